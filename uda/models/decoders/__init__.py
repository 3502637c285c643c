"""Decoders: feature maps to logits."""
