"""The contract between an encoder and everything else."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from uda.utilities.errors import InputError, shown

T = TypeVar("T")

FeatureMaps = tuple[Tensor, ...]  # each (N, D, h, w) float, finest first
# From (h, w) of the grid of tokens to (N, h, w) bool: where the mask token stands for them.
HideTokens = Callable[[int, int], Tensor]


class FeatureShapes(NamedTuple):
    """What an encoder declares about its feature maps, finest first."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]  # an image of H pixels has H / stride rows, rounded


class Normalization(NamedTuple):
    """The input a pretrained encoder expects: (RGB - mean) / std, channels reversed if `bgr`."""

    mean: tuple[float, float, float]  # of R, G, B, each in [0, 1]
    std: tuple[float, float, float]
    bgr: bool = False


IMAGENET = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
# Caffe's ResNets read BGR in 0..255 minus a mean; written for RGB in [0, 1].
CAFFE = Normalization(
    mean=(122.67891434 / 255, 116.66876762 / 255, 104.00698793 / 255),
    std=(1 / 255, 1 / 255, 1 / 255),
    bgr=True,
)


IMAGENET_WIDTH = 64  # channels of the stem in every published classification ResNet


@dataclass(kw_only=True, slots=True)
class EncoderConfig:
    """Settings of an encoder. An encoder refuses those that it does not have."""

    name: str = "resnet101"
    weights: str = "imagenet"  # "none", "imagenet" or the path of a file; "in-order:" before
    # that path: the tensors of another project's names, taken by their order
    # Of the deepest map; none: the encoder's own, which for ResNets is 16.
    output_stride: int | None = None
    # Channels of a ResNet's stem, or of each head of DINOv2 and DINOv3; the other layers scale with
    # it. Published weights have 64.
    width: int = IMAGENET_WIDTH
    drop_path: float | None = None  # none: the encoder's own (MiT: 0.1, others: 0)
    # MiT: epsilon of the normalization after patch embeddings and in the reduced attention. None:
    # 1e-5, as in SegFormer's code; mmsegmentation has 1e-6.
    patch_norm_eps: float | None = None
    # Each block or stage is computed again in the backward pass: less memory, more time.
    checkpointing: bool = False

    def option(self, field: str) -> str:
        """The full name of a field, as an override spells it."""
        return f"model.encoder.{field}"

    def refuse(self, *names: str) -> None:
        """Raises InputError when one of these fields, which the encoder lacks, is set."""
        defaults = {f.name: f.default for f in fields(EncoderConfig)}
        problems = [
            f"{self.option(name)} is {shown(getattr(self, name))}, but {self.name} has no such "
            f"setting: use --set {self.option(name)}={str(defaults[name]).lower()}"
            for name in names
            if getattr(self, name) != defaults[name]
        ]
        if problems:
            raise InputError(*problems)


@dataclass(kw_only=True, slots=True)
class BackboneConfig(EncoderConfig):
    """The same, set by the fields of a network that names them otherwise."""

    def option(self, field: str) -> str:
        names = {"name": "backbone", "output_stride": "output_stride"}
        return f"model.{names.get(field, f'backbone_{field}')}"


class Encoder(nn.Module, ABC):
    """A network from images to feature maps."""

    # Files with its weights: their kind, and what may precede all names.
    file_kind: ClassVar[str]
    prefixes: ClassVar[tuple[str, ...]]

    channels: tuple[int, ...]  # of each map, and its strides: see FeatureShapes
    strides: tuple[int, ...]
    title: str  # in words
    normalization: Normalization = IMAGENET  # of the images that `forward` reads
    provenance: str = "random"  # where its weights come from
    divisor: int = 1  # of the height and width of the images that `forward` reads
    checkpointing: bool = False  # see EncoderConfig

    @property
    def shapes(self) -> FeatureShapes:
        """Channels and strides of the maps."""
        return FeatureShapes(self.channels, self.strides)

    @abstractmethod
    def forward(self, images: Tensor) -> FeatureMaps:
        """One map for each of `channels`.

        images: (N, 3, H, W) float, normalized
        """

    def hiding(self, images: Tensor, hide_tokens: HideTokens) -> FeatureMaps:
        """As `forward`, with the mask token in the place of some of the images' tokens; see
        `EncoderFamily.hides_tokens`.

        Raises InputError when the encoder has no such token.
        """
        raise InputError(
            f"{self.title} has no mask token, so it cannot hide tokens: use --set "
            "model.encoder.name=dinov2_vitb14 or another of DINOv2's and DINOv3's encoders"
        )

    def layers(self) -> list[list[nn.Parameter]]:
        """Every parameter once: those of the stem, of each block, and what follows it, shallowest
        first, for learning rates by layer.

        Raises InputError when the encoder does not tell.
        """
        raise InputError(
            f"{self.title} does not tell the order of its layers: use --set train.layer_decay=1"
        )

    def added_parameters(self) -> list[nn.Parameter]:
        """What was added to a pretrained network and learns as fast as the heads; not in
        `layers`."""
        return []

    def run(self, stage: Callable[..., T], *inputs: Any) -> T:  # noqa: ANN401
        """`stage(*inputs)`; with `checkpointing`, a training step keeps its inputs and computes it
        again in the backward pass, with the same random numbers and the same results. Running
        statistics of batch norm move once; whatever else a stage changed, it would change twice.

        Source: Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174.
        """
        if not (self.checkpointing and self.training and torch.is_grad_enabled()):
            return stage(*inputs)
        # Block by block. Single layers are left together: one may change its input in place.
        if isinstance(stage, nn.Sequential) and all(any(block.children()) for block in stage):
            (values,) = inputs
            for block in stage:
                values = self.run(block, values)
            return cast(T, values)
        used = stage if isinstance(stage, nn.Module) else self
        contexts = lambda: (nullcontext(), _statistics_kept(used))  # noqa: E731
        return checkpoint(stage, *inputs, use_reentrant=False, context_fn=contexts)

    @abstractmethod
    def entries(self, state: Mapping[str, object]) -> dict[str, object]:
        """The entries of a file's `state` that the encoder uses, under its own names."""


@contextmanager
def _statistics_kept(network: nn.Module) -> Iterator[None]:
    """Within it, batch norm moves copies of its buffers. It must have some: autograd wants to save
    as many tensors as in the forward pass."""
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.training]
    kept = [(norm, name, buffer) for norm in norms for name, buffer in norm.named_buffers()]
    try:
        for norm, name, buffer in kept:
            setattr(norm, name, buffer.clone())
        yield
    finally:
        for norm, name, buffer in kept:
            setattr(norm, name, buffer)


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderFamily:
    """The encoders of one file of this folder, found by `encoder_named`."""

    names: str  # in words, for messages
    includes: Callable[[str], bool]  # whether an encoder of that name is one of them
    # An encoder whose `provenance` says which weights it has. Raises InputError when it cannot be
    # built with these settings.
    build: Callable[[EncoderConfig], Encoder]
    # Whether they learned, in pre-training, a token that stands for hidden ones: `Encoder.hiding`.
    hides_tokens: bool = False
