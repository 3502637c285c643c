"""Photometric augmentation: images change, labels do not."""
