"""Label spaces and sets of classes."""
