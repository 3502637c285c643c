"""uda data ...: checks, descriptions and preparation of data sets."""
