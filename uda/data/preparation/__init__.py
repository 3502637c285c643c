"""From the raw files of data sets to what their layouts read: the working parts of
scripts/prepare_*.py."""
