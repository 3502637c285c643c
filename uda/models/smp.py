"""Networks of segmentation-models-pytorch: a U-Net or DeepLabV3 on one of its encoders.

Source: Ronneberger et al., MICCAI 2015, arXiv 1505.04597 (U-Net); Chen et al., arXiv 1706.05587
(DeepLabV3); github.com/qubvel-org/segmentation_models.pytorch, an optional extra.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from uda.models.config import BackboneModelConfig
from uda.models.decoders.heads import refuse_single_image
from uda.models.encoders.base import IMAGENET, FeatureMaps, Normalization
from uda.models.segmenter import SegmentationOutput, Segmenter
from uda.utilities.config_tree import suggest
from uda.utilities.errors import InputError, require, shown
from uda.utilities.extras import require_extra
from uda.utilities.hub import by_hand, without_retries
from uda.utilities.tensor_order import split_order
from uda.utilities.weight_files import fill_from_file, reason

Architecture = Literal["unet", "deeplabv3"]

# Encoders that older versions had under these names, and their present names. The package itself
# replaces many more; those are refused, so that a network is never silently another one.
_REPLACED = {"timm-mobilenetv3_large_100": "tu-tf_mobilenetv3_large_100"}
_OF_TIMM = "tu-"  # before the names of timm's networks, which are encoders, too
_OLD = "timm-"
_LITE = "timm-tf_efficientnet_lite"  # trained on other colors than the package's other encoders
_FILE = "state dict of that encoder, or of a whole network of segmentation-models-pytorch on it"


@dataclass(kw_only=True, slots=True)
class SmpConfig(BackboneModelConfig):
    """Settings of `SmpNetwork`.

    `backbone` is the package's name of an encoder: resnet34, vgg16_bn, efficientnet-b3, or "tu-"
    and a name of timm's. `dropout` is in DeepLabV3's pyramid (0.5 in the package), or drops whole
    channels of the U-Net's last features (none in the package).
    """

    backbone: str = "resnet34"
    architecture: Architecture = "unet"

    def build(self, num_classes: int) -> "SmpNetwork":
        self.check(num_classes)
        return SmpNetwork(_build_parts(self, num_classes), self)


class _Parts(NamedTuple):
    """A network of the package, taken apart."""

    encoder: nn.Module
    decoder: nn.Module
    classifier: nn.Module
    align_corners: bool  # of the resize after the classifier
    normalization: Normalization
    provenance: str


class SmpNetwork(Segmenter):
    """The package's encoder and decoder, for images of any size."""

    def __init__(self, parts: _Parts, config: SmpConfig) -> None:
        super().__init__(
            parts.encoder,
            provenance=parts.provenance,
            batch_norm=config.batch_norm,
            align_corners=parts.align_corners,
            normalization=parts.normalization,
        )
        self.divisor = int(parts.encoder.output_stride)  # type: ignore[arg-type]
        self.decoder = parts.decoder
        # DeepLabV3's is in its pyramid.
        self.dropout = nn.Dropout2d(config.dropout if config.architecture == "unet" else 0.0)
        self.classifier = parts.classifier
        self.pools = config.architecture == "deeplabv3"

    @property
    def has_auxiliary_head(self) -> bool:
        """Whether outputs carry `auxiliary_logits`: they never do."""
        return False

    def encode(self, normalized: Tensor) -> FeatureMaps:
        """The encoder's feature maps; the package counts the image itself as the first one.

        normalized: (N, 3, H, W) float, H and W multiples of `divisor`
        """
        _, *features = self.backbone(normalized)
        return tuple(features)

    def decode(self, features: FeatureMaps) -> SegmentationOutput:
        """Logits at stride 1 (U-Net) or 8 (DeepLabV3).

        Raises InputError on a single image in training where pooled images are normalized.
        """
        if self.pools:
            refuse_single_image(
                next(m for m in self.decoder.modules() if isinstance(m, _BatchNorm)),
                features[-1],
                heads="DeepLabV3 of segmentation-models-pytorch",
                instead="use larger batches, or --set model.architecture=unet",
            )
        # Of the image, decoders read only the size.
        height, width = (side * self.divisor for side in features[-1].shape[-2:])
        image = features[-1].new_empty(features[-1].shape[0], 0, height, width)
        logits = self.classifier(self.dropout(self.decoder([image, *features])))
        return SegmentationOutput(logits=logits, auxiliary_logits=None, features=features[-1])


def _build_parts(config: SmpConfig, num_classes: int) -> _Parts:
    """Encoder, decoder and classifier, randomly initialized, the encoder possibly from weights."""
    architectures = {"unet": "Unet", "deeplabv3": "DeepLabV3"}
    require(
        config.architecture in architectures,
        f"model.architecture is {config.architecture!r}; allowed: {', '.join(architectures)}",
    )
    package = require_extra("smp", needed_by=f"model.architecture={config.architecture}")
    name = _encoder_named(config.backbone, package)
    settings = {"decoder_aspp_dropout": config.dropout} if config.architecture != "unet" else {}
    build = getattr(package, architectures[config.architecture])
    with _quiet():
        try:
            whole = build(name, encoder_weights=None, classes=num_classes, **settings)
        except (ValueError, RuntimeError, KeyError) as error:
            raise InputError(
                f"model.backbone {config.backbone} cannot be the encoder of a "
                f"{config.architecture}: {reason(error)}; choose another encoder"
            ) from error
        normalization, provenance = _load_weights(whole.encoder, name, config, package)
    if name != config.backbone:
        provenance += f" ({config.backbone}, which the package has as {name})"
    classifier, resize, *_ = whole.segmentation_head
    return _Parts(
        encoder=whole.encoder,
        decoder=whole.decoder,
        classifier=classifier,
        align_corners=bool(getattr(resize, "align_corners", False)),
        normalization=normalization,
        provenance=provenance,
    )


def _encoder_named(name: str, package: ModuleType) -> str:
    """The package's name of the encoder `name`; InputError when it has none, or would
    silently use another."""
    known = list(package.encoders.encoders)
    name = _REPLACED.get(name, name)
    if name in known:
        return name
    if name.startswith(_OF_TIMM):
        timm = require_extra("timm", needed_by=f"model.backbone {shown(name)}")
        of_timm = [*timm.list_models(), *timm.list_pretrained()]
        # Such as tu-hf_hub:NAME and tu-local-dir:PATH: the package would follow them.
        require(
            name.removeprefix(_OF_TIMM) in of_timm,
            f"model.backbone is {shown(name)}, but timm has no network of that name; "
            f"{suggest(name.removeprefix(_OF_TIMM), of_timm)}",
        )
        return name
    require(
        not name.startswith(_OLD),
        f"model.backbone is {name!r}, an encoder that segmentation-models-pytorch no longer has; "
        f"it would build another one: choose one of timm's by name, {_OF_TIMM}NAME",
    )
    raise InputError(
        f"there is no encoder {name!r}; {suggest(name, known)}; timm's networks, too, as "
        f"{_OF_TIMM}NAME"
    )


def _load_weights(
    encoder: nn.Module, name: str, config: SmpConfig, package: ModuleType
) -> tuple[Normalization, str]:
    """Loads the encoder's weights; returns its normalization and their provenance."""
    known_by = name.replace(_OLD, _OF_TIMM) if name.startswith(_LITE) else name
    # For timm's networks the package knows the normalization without a download.
    colors = _colors(package, known_by) if known_by.startswith(_OF_TIMM) else IMAGENET
    weights = config.backbone_weights
    if weights == "imagenet":
        downloaded = _download(name, config, package)
        encoder.load_state_dict(downloaded[0])
        return downloaded[1], f"segmentation-models-pytorch {name} imagenet"
    if weights == "none":
        return colors, "random"
    return colors, f"file {_load_file(encoder, weights, config.backbone)}"


def _colors(package: ModuleType, name: str) -> Normalization:
    """The normalization that the package's weights of an encoder were trained with."""
    found: Mapping[str, Any] = package.encoders.get_preprocessing_params(name)
    highest = found["input_range"][1] if found["input_range"] else 1
    bgr = found["input_space"] == "BGR"
    order = -1 if bgr else 1  # the package's values are in the encoder's channel order
    mean, std = (tuple(v / highest for v in found[p][::order]) for p in ("mean", "std"))
    return Normalization(mean=mean, std=std, bgr=bgr)


def _download(
    name: str, config: SmpConfig, package: ModuleType
) -> tuple[dict[str, Tensor], Normalization]:
    """The package's ImageNet weights of an encoder, and their normalization."""
    stride = 32 if config.architecture == "unet" else 8
    try:
        with without_retries():
            trained = package.encoders.get_encoder(name, weights="imagenet", output_stride=stride)
        return trained.state_dict(), _colors(package, name)
    except Exception as error:  # of its hub's client, whose classes depend on its version
        option, instead = "model.backbone_weights", "or give it the path of a file"
        settings = package.encoders.encoders.get(name, {}).get("pretrained_settings", {})
        repository = settings.get("imagenet", {}).get("repo_id")
        raise InputError(
            f"the ImageNet weights of {name} could not be downloaded by segmentation-models-pytorch"
            f" ({reason(error)}): "
            + (
                by_hand(repository, "model.safetensors", option)
                if repository
                else f"use --set {option}=none, {instead}"
            )
        ) from error


def _load_file(encoder: nn.Module, weights: str, name: str) -> str:
    """Fills the encoder from a file and returns its name and SHA-256; InputError when it is
    missing, damaged, or another's."""
    path, by_order = split_order(weights)
    require(
        path.is_file(),
        f"model.backbone_weights is {str(path)!r}, which is not a file; allowed: none, imagenet, "
        f"or the path of a {_FILE}",
    )
    return fill_from_file(
        encoder,
        path,
        title=name,
        kind=_FILE,
        instead=f"give a {_FILE}",
        prefixes=("module.",),
        select=_encoder_entries,
        option="model.backbone_weights",
        by_order=by_order,
    )


def _encoder_entries(state: dict[str, object]) -> dict[str, object]:
    """The encoder's part of a whole network's state dict; all of an encoder's own."""
    inner = {n.removeprefix("encoder."): v for n, v in state.items() if n.startswith("encoder.")}
    return inner or state


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the package's warnings about old names, which this file handles."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
