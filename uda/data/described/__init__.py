"""Data sets that a TOML file describes: docs/own_data.md."""
