"""Every file format of weights: snapshots, files of other projects, unsafe files."""
