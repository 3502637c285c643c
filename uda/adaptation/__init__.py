"""Adapts a trained network to images without labels; see docs/adapt.md."""
