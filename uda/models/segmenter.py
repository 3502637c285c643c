"""The contract between a network and everything else."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Literal, Self, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from uda.models.encoders.base import IMAGENET, Encoder, FeatureMaps, HideTokens, Normalization
from uda.models.input_range import check_images, may_look
from uda.models.upsampled import Upsampled
from uda.utilities.errors import InputError, require

BatchNormMode = Literal["train", "frozen_affine", "frozen"]
InputScaling = Literal["statistics", "min_max"]
Perturbation = Callable[[FeatureMaps], FeatureMaps]  # as many maps, of the same shapes


class SegmentationOutput:
    """What a network predicts for images (N, 3, H, W).

    Logits at input size are made when they are asked for, and only then take the memory that they
    need: `main`, `auxiliary` and `detail` are what losses take that do without (see upsampled.py).
    """

    def __init__(
        self,
        logits: Tensor,
        auxiliary_logits: Tensor | None,
        features: Tensor,
        query_classes: Tensor | None = None,
        query_masks: Tensor | None = None,
        detail_logits: Tensor | None = None,
        detail_box: Tensor | None = None,
        embeddings: Tensor | None = None,
        *,
        size: tuple[int, int] | None = None,
        align_corners: bool = False,
    ) -> None:
        """Logits as they are or, with a `size` (H, W), upsampled to it; those of the detail to the
        size of its box."""
        # (N, D, h, w) deepest features of the backbone, at output stride
        self.features = features
        # Of a network that classifies masks: the class ("no object" is the last) and the mask of
        # each of Q queries after each of L decoder layers. None for other networks and outside of
        # training. (L, N, Q, C + 1) and (L, N, Q, h, w) logits.
        self.query_classes = query_classes
        self.query_masks = query_masks
        # (4,) int64 on the CPU: top, bottom, left, right in pixels
        self.detail_box = detail_box
        # What the last layer classifies, where a network names it (ProDA): (N, D, h, w) float
        self.embeddings = embeddings

        def upsampled(coarse: Tensor | None, size: tuple[int, int] | None) -> Upsampled | None:
            return None if coarse is None else Upsampled(coarse, size, align_corners=align_corners)

        self.size, self.align_corners = size, align_corners
        self.main = Upsampled(logits, size, align_corners=align_corners)
        self.auxiliary = upsampled(auxiliary_logits, size)
        if size is not None and detail_box is not None:
            top, bottom, left, right = detail_box.tolist()
            size = (bottom - top, right - left)
        self.detail = upsampled(detail_logits, size)

    @property
    def logits(self) -> Tensor:
        """(N, C, H, W) float, at input size"""
        return self.main.whole()

    @property
    def auxiliary_logits(self) -> Tensor | None:
        """(N, C, H, W) of the auxiliary head; None without one"""
        return None if self.auxiliary is None else self.auxiliary.whole()

    @property
    def detail_logits(self) -> Tensor | None:
        """Of a network that looks at a detail, too (HRDA): the logits of that part of the images,
        (N, C, bottom - top, right - left) float. None for other networks and outside of
        training."""
        return None if self.detail is None else self.detail.whole()

    @property
    def embedded(self) -> Tensor:
        """The `embeddings` (N, D, h, w) or, of a network that names none, its `features`."""
        return self.features if self.embeddings is None else self.embeddings

    def tensors(self) -> dict[str, Tensor]:
        """What the network has computed: logits as they are in memory, before any upsampling."""
        auxiliary, detail = self.auxiliary, self.detail
        named = {
            "logits": self.main.coarse,
            "auxiliary_logits": None if auxiliary is None else auxiliary.coarse,
            "detail_logits": None if detail is None else detail.coarse,
            "features": self.features,
            "query_classes": self.query_classes,
            "query_masks": self.query_masks,
            "detail_box": self.detail_box,
            "embeddings": self.embeddings,
        }
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def replace(self, **tensors: Tensor | None) -> "SegmentationOutput":
        """The same with other tensors, by the names of `tensors`."""
        return self._made_of(tensors, self.size, self.align_corners)

    def resized(self, size: tuple[int, int], *, align_corners: bool) -> "SegmentationOutput":
        """The same with logits that are upsampled to `size` (H, W)."""
        return self._made_of({}, size, align_corners)

    def _made_of(
        self,
        tensors: Mapping[str, Tensor | None],
        size: tuple[int, int] | None,
        align_corners: bool,
    ) -> "SegmentationOutput":
        found: dict[str, Any] = {"auxiliary_logits": None} | self.tensors() | dict(tensors)
        return SegmentationOutput(**found, size=size, align_corners=align_corners)


def between_extremes(images: Tensor) -> Tensor:
    """Each channel of each image from 0, its lowest value, to 1, its highest; constant ones are 0.

    images: (N, 3, H, W) float
    """
    lowest, highest = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    span = highest - lowest
    return (images - lowest) / torch.where(span > 0, span, 1)


class Segmenter(nn.Module, ABC):
    """A network that labels pixels: normalizes RGB images, returns logits at their size.

    A concrete network passes its backbone to this constructor, registers its heads as further
    children and implements `decode` and `has_auxiliary_head`; `encode` too, if its feature maps are
    not simply what the backbone returns.
    """

    mean: Tensor  # (1, 3, 1, 1) float
    std: Tensor  # (1, 3, 1, 1) float
    divisor = 1  # of the height and width that `encode` accepts
    # What images are resized by before they are encoded; None: they are padded where necessary.
    input_scale: float | None = None
    # Whether the numbers of a batch need no look: one has been looked at, or a loader makes them.
    levels_seen = False

    def __init__(
        self,
        backbone: nn.Module,
        *,
        provenance: str,
        batch_norm: BatchNormMode = "train",
        align_corners: bool = False,
        normalization: Normalization = IMAGENET,
        input_scaling: InputScaling = "statistics",
    ) -> None:
        """`provenance`: in words, where the initial weights are from; it is only stored.

        `batch_norm` is the mode of the backbone's batch normalization in training:
        "train": batch statistics, weight and bias learned;
        "frozen_affine": batch statistics, running ones updated, weight and bias fixed (what
        AdaptSegNet and its descendants ran);
        "frozen": running statistics used and not updated, weight and bias fixed.

        `input_scaling`: "statistics": images are normalized by `normalization`; "min_max": each
        channel of each image is scaled to [0, 1] by its own extremes instead.

        Raises InputError on an unknown `batch_norm`, or one that would change nothing.
        """
        super().__init__()
        if batch_norm not in get_args(BatchNormMode):
            raise InputError(
                f"batch_norm is {batch_norm!r}; allowed: {', '.join(get_args(BatchNormMode))}"
            )
        self.backbone = backbone
        self.provenance = provenance
        self.batch_norm: BatchNormMode = batch_norm
        self.align_corners = align_corners
        self.min_max = input_scaling == "min_max"
        if self.min_max:
            normalization = Normalization((0.0,) * 3, (1.0,) * 3, normalization.bgr)
        self.bgr = normalization.bgr
        # Saved with the weights, so that a snapshot cannot be evaluated with other values.
        self.register_buffer("mean", torch.tensor(normalization.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(normalization.std).view(1, 3, 1, 1))
        if batch_norm != "train":
            norms = self._backbone_norms()
            require(
                bool(norms),
                f"model.batch_norm is {batch_norm!r}, but this backbone has no batch normalization:"
                " keep the default, --set model.batch_norm=train",
            )
            for layer in norms:
                for parameter in layer.parameters():
                    parameter.requires_grad_(False)
        self.train(self.training)

    @property
    @abstractmethod
    def has_auxiliary_head(self) -> bool:
        """Whether outputs carry `auxiliary_logits`."""

    def encode(self, normalized: Tensor) -> FeatureMaps:
        """The backbone's feature maps, finest first.

        normalized: (N, 3, H, W) float, output of `normalize`, H and W multiples of `divisor`
        """
        features: FeatureMaps = self.backbone(normalized)
        return features

    @abstractmethod
    def decode(self, features: FeatureMaps) -> SegmentationOutput:
        """Logits at the network's own stride; `forward` resizes them to input size.

        features: what `encode` returns, possibly perturbed
        """

    def forward(
        self,
        images: Tensor,
        *,
        perturb: Perturbation | None = None,
        hide_tokens: HideTokens | None = None,
    ) -> SegmentationOutput:
        """Logits at input size, float32 whatever the precision of the network.

        images: (N, 3, H, W) float, RGB in [0, 1], any H and W; `perturb` changes the feature maps
        before they are decoded; `hide_tokens` tells the tokens in whose place the encoder sees its
        mask token, from the size (h, w) of their grid as (N, h, w) bool

        Raises ValueError as `coarse` does, and InputError when the network cannot hide tokens.
        """
        coarse = self.coarse(images, perturb=perturb, hide_tokens=hide_tokens)
        return coarse.resized((images.shape[2], images.shape[3]), align_corners=self.align_corners)

    def coarse(
        self,
        images: Tensor,
        *,
        perturb: Perturbation | None = None,
        hide_tokens: HideTokens | None = None,
    ) -> SegmentationOutput:
        """Logits at the network's own stride, for callers that resize them in another way.

        Images whose size is not a multiple of `divisor` are padded on the right and at the bottom
        with the mean color; their logits are at stride 1. With `input_scale`, images are instead
        resized to the largest such multiple that is not above `input_scale` times their size.

        images: (N, 3, H, W) float, RGB in [0, 1], any H and W; `perturb` and
        `hide_tokens`: see `forward`

        Raises ValueError on any other shape, and on integer images: bytes would give
        meaningless logits.
        """
        normalized, (height, width) = self._fitted(images)
        output = self.predict(normalized, perturb, hide_tokens)
        if normalized.shape[-2:] == (height, width):
            return output

        def cut(logits: Tensor) -> Tensor:
            if logits.shape[-2:] != normalized.shape[-2:]:
                logits = self._to_size_of(normalized, logits)
            return logits[..., :height, :width]

        names = ("logits", "auxiliary_logits")
        made = {n: cut(logits) for n, logits in output.tensors().items() if n in names}
        return output.replace(**made)

    def deepest_features(self, images: Tensor) -> Tensor:
        """The `features` of the network's output on images, without decoding anything.

        images: as for `coarse`, which raises the same errors
        """
        normalized, _ = self._fitted(images)
        return self.encode(self.context(normalized))[-1]

    def context(self, normalized: Tensor) -> Tensor:
        """Images, as for `predict`, whose `features` are the output's: these or smaller ones."""
        return normalized

    def _fitted(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Images as `predict` takes them, and how much of their height and width is not padding."""
        look = not self.levels_seen and may_look(images)
        check_images(images, levels=look)
        self.levels_seen |= look
        normalized = self.normalize(images)
        height, width = normalized.shape[-2:]
        if self.input_scale is not None:
            height, width = self._scaled(height), self._scaled(width)
            size = (height, width)
            normalized = F.interpolate(normalized, size, mode="bilinear", align_corners=False)
        below, right = -height % self.divisor, -width % self.divisor
        if below or right:
            normalized = F.pad(normalized, (0, right, 0, below))
        return normalized, (height, width)

    def encoded(self, normalized: Tensor, hide_tokens: HideTokens | None) -> FeatureMaps:
        """As `encode`, with tokens hidden.

        Raises InputError when the network cannot hide tokens.
        """
        if hide_tokens is None:
            return self.encode(normalized)
        if not isinstance(self.backbone, Encoder):
            raise InputError(
                f"{type(self).__name__} cannot hide tokens: use --set model=encoder_decoder --set "
                "model.encoder.name=dinov2_vitb14"
            )
        return self.backbone.hiding(normalized, hide_tokens)

    def predict(
        self,
        normalized: Tensor,
        perturb: Perturbation | None,
        hide_tokens: HideTokens | None = None,
    ) -> SegmentationOutput:
        """Logits at the network's own stride.

        normalized: as for `encode`; `perturb` and `hide_tokens`: see `forward`
        """
        features = self.encoded(normalized, hide_tokens)
        return self.decode(features if perturb is None else perturb(features))

    def normalize(self, images: Tensor) -> Tensor:
        """Images as the backbone expects them.

        images: (N, 3, H, W) float, RGB in [0, 1]
        """
        normalized = (between_extremes(images) if self.min_max else images) - self.mean
        normalized = normalized / self.std
        return normalized.flip(1) if self.bgr else normalized

    def train(self, mode: bool = True) -> Self:
        """Training or evaluation mode; frozen batch normalization stays in evaluation mode."""
        super().train(mode)
        if self.batch_norm == "frozen":
            for layer in self._backbone_norms():
                layer.eval()
        return self

    def backbone_parameters(self) -> list[nn.Parameter]:
        """Every trained parameter of the backbone, once; not those that learn as the heads do
        (`Encoder.added_parameters`)."""
        added = self._added()
        return [p for p in self.backbone.parameters() if p.requires_grad and id(p) not in added]

    def head_parameters(self) -> list[nn.Parameter]:
        """Every other trained parameter, once."""
        backbone = {id(p) for p in self.backbone.parameters()} - self._added()
        return [p for p in self.parameters() if p.requires_grad and id(p) not in backbone]

    def _added(self) -> set[int]:
        encoder = self.backbone
        return (
            {id(p) for p in encoder.added_parameters()} if isinstance(encoder, Encoder) else set()
        )

    def _scaled(self, side: int) -> int:
        assert self.input_scale is not None
        return max(int(self.input_scale * side) // self.divisor, 1) * self.divisor

    def _backbone_norms(self) -> list[_BatchNorm]:
        return [m for m in self.backbone.modules() if isinstance(m, _BatchNorm)]

    def _to_size_of(self, images: Tensor, logits: Tensor) -> Tensor:
        return F.interpolate(
            logits.float(),
            size=images.shape[-2:],
            mode="bilinear",
            align_corners=self.align_corners,
        )
