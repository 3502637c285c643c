"""Networks, and the one function that builds them from a preset's settings."""

from uda.models.deeplabv3plus import ModelConfig, build_segmenter

__all__ = ["ModelConfig", "build_segmenter"]
