"""SegFormer's all-MLP head, on maps of any number and strides.

Source: Xie et al., "SegFormer", NeurIPS 2021, arXiv 2105.15203, section 3.2.
"""

from dataclasses import dataclass
from typing import get_args

from torch import Tensor, nn

from uda.models.decoders.base import DecoderConfig
from uda.models.decoders.embeddings import Embedding, Embeddings
from uda.models.decoders.heads import initialize_heads
from uda.models.decoders.pyramid_pooling import convolution
from uda.models.encoders.base import FeatureMaps, FeatureShapes
from uda.utilities.errors import require


@dataclass(kw_only=True, slots=True)
class SegFormerConfig(DecoderConfig):
    """Settings of `SegFormer`."""

    # The authors have 256 for MiT-B0 and B1 and 768 for the others; mmsegmentation has 256.
    channels: int = 256
    embedding: Embedding = "linear"  # mmsegmentation has "convolution", see Embeddings

    def check(self, maps: FeatureShapes) -> None:
        require(
            self.channels >= 1, f"model.decoder.channels is {self.channels}; allowed: 1 or more"
        )
        allowed = get_args(Embedding)
        require(
            self.embedding in allowed,
            f"model.decoder.embedding is {self.embedding!r}; allowed: {', '.join(allowed)}",
        )

    def build(self, maps: FeatureShapes, *, num_classes: int, dropout: float) -> "SegFormer":
        return SegFormer(maps, self, num_classes, dropout=dropout)


class SegFormer(nn.Module):
    """Embedded maps, finest first (the authors' code concatenates the deepest first), fused by a
    1x1 convolution; `dropout` drops whole channels."""

    def __init__(
        self, maps: FeatureShapes, config: SegFormerConfig, num_classes: int, *, dropout: float
    ) -> None:
        super().__init__()
        self.embeddings = Embeddings(maps, config.channels, config.embedding)
        self.fusion = convolution(
            len(maps.channels) * config.channels, config.channels, norm="batch"
        )
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(config.channels, num_classes, kernel_size=1)
        initialize_heads(self)

    def forward(self, features: FeatureMaps) -> Tensor:
        """Logits at the stride of the finest map."""
        return self.classifier(self.dropout(self.fusion(self.embeddings(features))))
