"""Trunks: images to feature maps."""
