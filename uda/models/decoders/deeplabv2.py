"""DeepLab-v2's head: dilated convolutions of the deepest feature map, straight to classes, summed.

Source: Chen et al., TPAMI 2018, arXiv 1606.00915, section 3.2.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from uda.models.decoders.base import DecoderConfig, check_rates
from uda.models.decoders.deeplabv2_heads import dilated_classifiers, summed
from uda.models.encoders.base import FeatureMaps, FeatureShapes
from uda.utilities.errors import require


@dataclass(kw_only=True, slots=True)
class DeepLabV2DecoderConfig(DecoderConfig):
    """Settings of `DeepLabV2Decoder`."""

    rates: tuple[int, ...] = (6, 12, 18, 24)  # dilations; DAFormer's DeepLab-v2 has 6 and 12

    def check(self, maps: FeatureShapes) -> None:
        check_rates(self.rates)
        require(bool(self.rates), "model.decoder.rates is empty; allowed: one dilation or more")

    def build(self, maps: FeatureShapes, *, num_classes: int, dropout: float) -> "DeepLabV2Decoder":
        return DeepLabV2Decoder(maps.channels[-1], num_classes, rates=self.rates, dropout=dropout)


class DeepLabV2Decoder(nn.Module):
    """Sum of dilated 3x3 convolutions."""

    def __init__(
        self, in_channels: int, num_classes: int, *, rates: tuple[int, ...], dropout: float
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout2d(dropout)
        self.branches = dilated_classifiers(in_channels, num_classes, rates)
        for branch in self.branches:
            nn.init.zeros_(branch.get_parameter("bias"))

    def forward(self, features: FeatureMaps) -> Tensor:
        """Logits at the stride of the deepest map."""
        return summed(self.branches, self.dropout(features[-1]))
