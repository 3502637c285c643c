"""Reports: one self-contained HTML file each, opened from disk without server or network."""
