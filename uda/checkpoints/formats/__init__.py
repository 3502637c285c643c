"""Formats of files of other projects: one file for each family, found by being here."""
