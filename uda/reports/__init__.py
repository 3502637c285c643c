"""Reports: one self-contained HTML file each, that opens from disk without a server or a network."""
