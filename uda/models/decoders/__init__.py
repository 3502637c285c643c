"""Heads: feature maps to logits."""
