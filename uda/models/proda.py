"""ProDA's DeepLab-v2: one head of joined branches on layer4, on images that nothing is subtracted
from.

Source: Zhang et al., CVPR 2021, arXiv 2101.10979; written from the parameter names, the structure
and the measured logits of github.com/microsoft/ProDA, not from its code.
"""

from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from uda.models.decoders.deeplabv2_heads import SqueezeExcitationHead, group_norm
from uda.models.encoders.base import FeatureMaps, Normalization
from uda.models.encoders.resnet import ResNetBackbone, ResNetConfig, caffe_resnet_backbone
from uda.models.segmenter import SegmentationOutput, Segmenter

PLAIN = Normalization(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))  # RGB in [0, 1] as it is
_RATES = (6, 12, 18, 24)


@dataclass(kw_only=True, slots=True)
class ProDAConfig(ResNetConfig):
    """Settings of `ProDA`; its head is 4 times as wide as the backbone's stem.

    `backbone_weights` is "none" or the path of a Caffe ResNet's file.
    """

    input_norm: bool = True  # batch normalization before the head, as in the stages of distillation

    def build(self, num_classes: int) -> "ProDA":
        self.check(num_classes)
        backbone = caffe_resnet_backbone(
            self.backbone, width=self.backbone_width, weights=self.backbone_weights
        )
        return ProDA(backbone, self, num_classes)


class ProDA(Segmenter):
    """Joined dilated convolutions on the deepest features."""

    def __init__(self, backbone: ResNetBackbone, config: ProDAConfig, num_classes: int) -> None:
        super().__init__(
            backbone,
            provenance=backbone.provenance,
            batch_norm=config.batch_norm,
            align_corners=True,
            normalization=PLAIN,
        )
        width = config.backbone_width
        deep = backbone.channels[-1]
        self.input_norm = nn.BatchNorm2d(deep) if config.input_norm else nn.Identity()
        self.main = SqueezeExcitationHead(
            deep,
            num_classes,
            rates=_RATES,
            branch=4 * width,
            hidden=4 * width,
            dropout=config.dropout,
            norm=partial(group_norm, width=width),
        )

    @property
    def has_auxiliary_head(self) -> bool:
        """Whether outputs carry `auxiliary_logits`: they never do."""
        return False

    def deepest_features(self, images: Tensor) -> Tensor:
        """As in the output, after the normalization of the deepest map."""
        deep: Tensor = self.input_norm(super().deepest_features(images))
        return deep

    def decode(self, features: FeatureMaps) -> SegmentationOutput:
        """Logits at stride 8, and what the last layer makes them of."""
        deep = self.input_norm(features[-1])
        embedded = self.main.embed(deep)
        return SegmentationOutput(
            logits=self.main.classify(embedded),
            auxiliary_logits=None,
            features=deep,
            embeddings=embedded,
        )
