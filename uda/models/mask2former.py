"""Mask2Former: queries that each predict a class and a mask, on one of our ResNets.

Pixel decoder, transformer decoder, matching and losses are those of transformers, an optional
extra that only this file imports; nothing is downloaded.

Source: Cheng et al., CVPR 2022, arXiv 2112.01527.
"""

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from uda.models.encoders.base import FeatureMaps
from uda.models.encoders.resnet import BackboneName, ResNetBackbone, ResNetConfig
from uda.models.segmenter import SegmentationOutput, Segmenter
from uda.utilities.errors import require
from uda.utilities.extras import require_extra

_NORM_GROUPS = 32  # of the pixel decoder's group normalization
_LEAST = torch.finfo(torch.float32).tiny  # class score whose logarithm can still be taken


@dataclass(kw_only=True, slots=True)
class Mask2FormerConfig(ResNetConfig):
    """Settings of `Mask2Former`; the defaults are the paper's on a ResNet-50."""

    backbone: BackboneName = "resnet50"
    # Not used, as in the paper. transformers would skip whole layers, then fail where masks of one
    # level meet features of another; and `disable_dropout` could not turn it off in a teacher.
    dropout: float = 0.0
    queries: int = 100
    channels: int = 256  # of pixel features, masks and queries
    attention_heads: int = 8
    encoder_layers: int = 6  # of deformable attention, in the pixel decoder
    encoder_width: int = 1024  # inside its feedforward networks
    decoder_layers: int = 9  # of masked attention
    decoder_width: int = 2048  # inside their feedforward networks

    @property
    def has_queries(self) -> bool:
        return True

    def build(self, num_classes: int) -> "Mask2Former":
        self.check(num_classes)
        require(
            self.dropout == 0,
            f"model.dropout is {self.dropout}, but Mask2Former has none: use --set model.dropout=0",
        )
        for name in ("queries", "channels", "attention_heads", "encoder_layers", "encoder_width",
                     "decoder_layers", "decoder_width"):  # fmt: skip
            value = getattr(self, name)
            require(value >= 1, f"model.{name} is {value}; allowed: 1 or more")
        require(
            # One channel in a group, of one image at one place, cannot be normalized.
            self.channels >= 2 * _NORM_GROUPS
            and self.channels % _NORM_GROUPS == 0 == self.channels % self.attention_heads,
            f"model.channels is {self.channels}; allowed: multiples of {_NORM_GROUPS} and of "
            f"model.attention_heads ({self.attention_heads}), {2 * _NORM_GROUPS} or more",
        )
        return Mask2Former(self.build_backbone(output_stride=32), self, num_classes)


class Mask2Former(Segmenter):
    """The score of a class at a pixel is the sum over queries of softmax(class) * sigmoid(mask),
    without "no object". Logits are the logarithm of that score.

    So softmax gives each class its share of the summed scores, and the largest logit is the class
    with the highest score, as in the paper.
    """

    def __init__(
        self, backbone: ResNetBackbone, config: Mask2FormerConfig, num_classes: int
    ) -> None:
        """Decoders on `backbone`, initialized as in transformers; `config.build` checks the fields.

        Raises InputError when transformers is not installed.
        """
        super().__init__(backbone, provenance=backbone.provenance, batch_norm=config.batch_norm)
        library = _transformers()
        settings = _settings(library, config, num_classes)
        heads: Any = library.Mask2FormerPreTrainedModel(settings)
        heads.pixel_decoder = library.Mask2FormerPixelDecoder(settings, list(backbone.channels))
        heads.transformer = library.Mask2FormerTransformerModule(config.channels, settings)
        heads.classifier = nn.Linear(config.channels, num_classes + 1)
        heads.post_init()  # initializes the weights
        self.pixel_decoder: nn.Module = heads.pixel_decoder
        self.transformer: nn.Module = heads.transformer
        self.classifier: nn.Module = heads.classifier

    @property
    def has_auxiliary_head(self) -> bool:
        """Whether outputs carry `auxiliary_logits`."""
        return False

    def decode(self, features: FeatureMaps) -> SegmentationOutput:
        """Logits at stride 4; in training also the output of every decoder layer."""
        with _float32(features[-1]):  # deformable attention samples finer than bfloat16 resolves
            pixels = self.pixel_decoder([stage.float() for stage in features])
        decoded = self.transformer(
            multi_scale_features=pixels.multi_scale_features,
            mask_features=pixels.mask_features,
            output_hidden_states=True,
        )
        classes = [self.classifier(q.transpose(0, 1)) for q in decoded.intermediate_hidden_states]
        masks = decoded.masks_queries_logits
        return SegmentationOutput(
            logits=log_scores(classes[-1], masks[-1]),
            auxiliary_logits=None,
            features=features[-1],
            query_classes=torch.stack(classes).float() if self.training else None,
            query_masks=torch.stack(list(masks)).float() if self.training else None,
        )


def log_scores(classes: Tensor, masks: Tensor) -> Tensor:
    """(N, C, h, w) float32, logarithm of the class scores: see `Mask2Former`.

    classes: (N, Q, C + 1) logits, the last one "no object"; masks: (N, Q, h, w) logits
    """
    with _float32(masks):
        shares = classes.float().softmax(dim=2)[:, :, :-1]
        scores = torch.einsum("nqc,nqhw->nchw", shares, masks.float().sigmoid())
        return scores.clamp_min(_LEAST).log()


class MaskLoss(nn.Module):
    """transformers' Hungarian matching of queries to masks, and its losses at sampled points."""

    def __init__(
        self,
        *,
        num_classes: int,
        no_object_weight: float,
        class_weight: float,
        mask_weight: float,
        dice_weight: float,
        points: int,
        oversample: float,
        importance: float,
    ) -> None:
        """The weights also apply to the costs of the matching.

        Raises InputError when transformers is not installed.
        """
        super().__init__()
        library = _transformers()
        settings = library.Mask2FormerConfig(
            num_labels=num_classes,
            no_object_weight=no_object_weight,
            class_weight=class_weight,
            mask_weight=mask_weight,
            dice_weight=dice_weight,
            train_num_points=points,
            oversample_ratio=oversample,
            importance_sample_ratio=importance,
        )
        self.weights = {"class": class_weight, "mask": mask_weight, "dice": dice_weight}
        names = {f"loss_{theirs}": self.weights[ours] for ours, theirs in _TERMS.items()}
        self.loss: nn.Module = library.Mask2FormerLoss(settings, names)

    def forward(
        self, query_classes: Tensor, query_masks: Tensor, *, masks: Tensor, classes: Tensor
    ) -> dict[str, Tensor]:
        """Of one image, float32 scalars "class", a mean over queries by the weight of their class,
        "mask" and "dice", means over its masks; weighted and summed over decoder layers.

        query_classes: (L, Q, C + 1) logits; query_masks: (L, Q, h, w) logits; masks: (K, H, W)
        float, 0 or 1; classes: (K,) int64; K may be 0. Points are sampled from torch's global
        generator.
        """
        layers = [
            {"class_queries_logits": c[None], "masks_queries_logits": m[None]}
            for c, m in zip(query_classes.float(), query_masks.float(), strict=True)
        ]
        with _float32(query_masks):
            found = self.loss(
                **layers[-1],
                mask_labels=[masks],
                class_labels=[classes],
                auxiliary_predictions=layers[:-1],
            )
        return {
            ours: self.weights[ours]
            * torch.stack([v for n, v in found.items() if n.startswith(f"loss_{theirs}")]).sum()
            for ours, theirs in _TERMS.items()
        }


_TERMS = {"class": "cross_entropy", "mask": "mask", "dice": "dice"}  # ours and transformers'


def _transformers() -> ModuleType:
    """The module of transformers that defines Mask2Former."""
    require_extra("transformers", needed_by="Mask2Former")
    return import_module("transformers.models.mask2former.modeling_mask2former")


def _settings(library: ModuleType, config: Mask2FormerConfig, num_classes: int) -> object:
    return library.Mask2FormerConfig(
        num_labels=num_classes,
        feature_size=config.channels,
        mask_feature_size=config.channels,
        hidden_dim=config.channels,
        num_attention_heads=config.attention_heads,
        encoder_layers=config.encoder_layers,
        encoder_feedforward_dim=config.encoder_width,
        decoder_layers=config.decoder_layers + 1,  # it counts the prediction before the first layer
        dim_feedforward=config.decoder_width,
        dropout=0.0,
        num_queries=config.queries,
    )


def _float32(values: Tensor) -> torch.autocast:
    """Inside, autocast is off."""
    return torch.autocast(values.device.type, enabled=False)
