"""Segmentation networks of transformers, built from what `save_pretrained` wrote beside weights.

transformers, an optional extra, is the library; nothing is downloaded, and of a config.json only
numbers and plain words reach it.
"""

import io
import json
import re
from collections.abc import Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uda.models.config import ModelConfig
from uda.models.encoders.base import FeatureMaps, Normalization
from uda.models.mask2former import log_scores
from uda.models.segmenter import SegmentationOutput, Segmenter
from uda.utilities.errors import InputError, require, shown
from uda.utilities.extras import require_extra


class Kind(NamedTuple):
    """One of transformers' networks."""

    model: str  # its class
    divisor: int = 1  # of the sides of images
    fixed: bool = False  # whether it takes images of one size


KINDS = {
    "segformer": Kind("SegformerForSemanticSegmentation"),
    "upernet": Kind("UperNetForSemanticSegmentation", divisor=32),
    "mask2former": Kind("Mask2FormerForUniversalSegmentation", divisor=32),
    "dpt": Kind("DPTForSemanticSegmentation", fixed=True),
    "beit": Kind("BeitForSemanticSegmentation", fixed=True),
    "data2vec-vision": Kind("Data2VecVisionForSemanticSegmentation", fixed=True),
}
_BACKBONES = ("swin", "swinv2", "convnext", "convnextv2", "resnet", "beit", "dinov2", "bit", "dpt")

# What would make transformers run, download or open something.
_NEVER = ("auto_map", "custom_pipelines", "quantization_config", "backbone", "use_timm_backbone",
          "use_pretrained_backbone", "backbone_kwargs", "trust_remote_code")  # fmt: skip
# What this library decides itself, or does not need.
_UNUSED = ("architectures", "attn_implementation", "experts_implementation", "dtype", "torch_dtype",
           "transformers_version", "id2label", "label2id", "num_labels", "name_or_path",
           "task_specific_params", "finetuning_task", "problem_type")  # fmt: skip
_WORD = re.compile(r"[A-Za-z0-9_-]{1,64}")  # neither a path nor the name of a repository
_LARGEST = 2**16  # number; of points in Mask2Former's loss, 12,544
_DEEPEST = 256  # layers of one kind
_NESTED = 4  # dicts in dicts


@dataclass(kw_only=True, slots=True)
class HuggingFaceConfig(ModelConfig):
    """Settings of `HuggingFace`."""

    dropout: float = 0.0  # not used: the settings have rates of their own
    settings: str  # config.json's content
    mean: tuple[float, float, float]  # of R, G, B in [0, 1]
    std: tuple[float, float, float]
    bgr: bool = False

    @property
    def title(self) -> str:
        return f"{self._values().get('model_type')} of transformers"

    def build(self, num_classes: int) -> "HuggingFace":
        self.check(num_classes)
        values = self._values()
        kind = kind_of(values)
        size = _image_size(values) if kind.fixed else None
        return HuggingFace(_built(values, num_classes), kind, self, size=size)

    def _values(self) -> dict[str, Any]:
        try:
            values = json.loads(self.settings)
        except (ValueError, RecursionError) as error:
            raise InputError(f"config.json is damaged ({str(error)[:100]})") from None
        require(isinstance(values, dict), "config.json holds no settings")
        return values


def _built(values: Mapping[str, Any], num_classes: int) -> nn.Module:
    """The network of transformers, randomly initialized."""
    model_class = getattr(_library(values), kind_of(values).model)
    settings = library_settings(values, num_classes)
    try:
        model: nn.Module = model_class(settings)
    except Exception as error:  # settings that do not fit each other
        line = " ".join(str(error).split())[:200]
        raise InputError(
            f"transformers cannot build the network of config.json ({type(error).__name__}: {line})"
        ) from None
    return model


def _library(values: Mapping[str, Any]) -> ModuleType:
    return require_extra("transformers", needed_by=f"a network of {shown(values['model_type'])}")


class HuggingFace(Segmenter):
    """A whole network of transformers. Its logits are its only feature map."""

    def __init__(
        self,
        model: nn.Module,
        kind: Kind,
        config: HuggingFaceConfig,
        *,
        size: tuple[int, int] | None,
    ) -> None:
        """`size`: (H, W) that images are resized to inside."""
        normalization = Normalization(config.mean, config.std, config.bgr)
        super().__init__(model, provenance="random", normalization=normalization)
        self.divisor = kind.divisor
        self.size = size

    @property
    def has_auxiliary_head(self) -> bool:
        """Whether outputs carry `auxiliary_logits`: they never do."""
        return False

    def encode(self, normalized: Tensor) -> FeatureMaps:
        """Logits at the network's own stride: of Mask2Former, see `log_scores`."""
        if self.size is not None and normalized.shape[-2:] != self.size:
            normalized = F.interpolate(
                normalized, self.size, mode="bilinear", align_corners=False, antialias=True
            )
        output = self.backbone(pixel_values=normalized)
        masks = getattr(output, "masks_queries_logits", None)
        return (output.logits if masks is None else log_scores(output.class_queries_logits, masks),)

    def decode(self, features: FeatureMaps) -> SegmentationOutput:
        """The logits that `encode` returned."""
        return SegmentationOutput(features[0], None, features[0])


def kind_of(values: Mapping[str, Any]) -> Kind:
    """The network of a config.json; InputError when this library does not know it."""
    name, made_for = values.get("model_type"), values.get("architectures")
    kind = KINDS.get(name) if isinstance(name, str) else None
    known = ", ".join(each.model for each in KINDS.values())
    if kind is None or (made_for is not None and made_for != [kind.model]):
        raise InputError(
            f"config.json is of a {shown(name)} for {shown(made_for)}; allowed: {known}"
        )
    return kind


def library_settings(values: Mapping[str, Any], num_classes: int) -> Any:  # noqa: ANN401
    """The settings as transformers takes them.

    Raises InputError when they could make it run, download or open something, or ask for more than
    any network has.
    """
    kind = kind_of(values)
    plain = _plain(values, "config.json")
    config_class = getattr(_library(values), kind.model).config_class
    try:
        return config_class.from_dict(plain | {"num_labels": num_classes})
    except Exception as error:  # as in `_built`
        line = " ".join(str(error).split())[:200]
        raise InputError(
            f"transformers cannot build settings of config.json ({type(error).__name__}: {line})"
        ) from None


def _plain(values: Mapping[str, Any], place: str, nested: int = 0) -> dict[str, Any]:
    """The settings that are numbers, plain words, lists of them, or dicts of these."""
    require(nested < _NESTED, f"{place}: too many dicts in each other")
    found: dict[str, Any] = {}
    for name, value in values.items():
        where = f"{place}: {shown(name)}"
        require(
            name not in _NEVER or not value,
            f"{where} is {shown(value)}, which may make transformers run, download or open "
            "something else: only networks are read whose settings and weights are all in the "
            "folder; save it again with a backbone of transformers and without it",
        )
        if name.startswith("_") or name in _UNUSED or name in _NEVER:
            continue
        if isinstance(value, Mapping):
            inner = value.get("model_type")
            require(
                not name.endswith("_config") or inner in (None, *_BACKBONES),
                f"{where} is of a {shown(inner)}; allowed: {', '.join(_BACKBONES)}",
            )
            found[name] = _plain(value, where, nested + 1)
            continue
        for part in _leaves(value):
            require(_is_plain(part), f"{where} is {shown(value)}; allowed: numbers and words")
            deep = re.search(r"layers|depth|stages|blocks|heads|queries", name) is not None
            most = _DEEPEST if deep else _LARGEST
            require(
                not isinstance(part, int | float) or abs(part) <= most,
                f"{where} is {shown(value)}; allowed: up to {most}",
            )
        found[name] = value
    return found


def _leaves(value: object) -> list[object]:
    if not isinstance(value, list):
        return [value]
    require(len(value) <= _DEEPEST, f"config.json: a list of {len(value)}")
    parts: list[object] = []
    for inner in value:
        parts += inner if isinstance(inner, list) else [inner]  # pairs of sides
    return parts


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        return _WORD.fullmatch(value) is not None
    return value is None or isinstance(value, bool | int | float)


def _image_size(values: Mapping[str, Any]) -> tuple[int, int]:
    side = values.get("image_size", 0)
    height, width = side if isinstance(side, list) and len(side) == 2 else (side, side)
    require(
        isinstance(height, int) and isinstance(width, int) and min(height, width) > 0,
        f"config.json: image_size is {shown(side)}; needed: the pixels of a side",
    )
    return height, width


def with_tensors(
    config: HuggingFaceConfig, tensors: Mapping[str, Tensor], num_classes: int
) -> dict[str, Tensor]:
    """The state dict of the network that `config` builds, from the tensors of a folder, whose names
    may be those of an earlier version of transformers.

    Raises InputError when one is missing, odd or too many.
    """
    values = json.loads(config.settings)
    model_class = getattr(_library(values), kind_of(values).model)
    settings = library_settings(values, num_classes)
    with torch.device("meta"):  # a file may ask for a network that no memory holds
        network = _built(values, num_classes)
        wanted = sum(tensor.numel() for tensor in network.state_dict().values())
    held = sum(tensor.numel() for tensor in tensors.values())
    require(
        wanted <= 2 * held, f"config.json asks for {wanted} numbers, but the weights are {held}"
    )
    with redirect_stderr(io.StringIO()):  # it draws a bar
        model, found = model_class.from_pretrained(
            None, config=settings, state_dict=dict(tensors), output_loading_info=True
        )
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        names = sorted(map(str, found.get(what, ())))
        names = [name for name in names if not name.endswith(_NOT_NEEDED)]
        require(
            not names,
            f"{len(names)} {what.replace('_', ' ')} in its weights, e.g. {shown(names[:1])}; give "
            "the folder as save_pretrained wrote it",
        )
    size = _image_size(values) if kind_of(values).fixed else None
    return HuggingFace(model, kind_of(values), config, size=size).float().state_dict()


_NOT_NEEDED = ("relative_position_index", "position_ids", "num_batches_tracked")  # constants
