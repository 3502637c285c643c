"""Files of other projects, read as weights of our networks.

A file is told by the names and shapes of its tensors; nothing else in it is looked at.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple, TypeGuard

import torch
from torch import Tensor

from uda.errors import InputError, tally
from uda.models.deeplabv2 import DeepLabV2Config
from uda.models.segmenter import CAFFE, IMAGENET, ModelConfig, Normalization
from uda.models.segmentron import SegmenTronConfig
from uda.models.torchvision_deeplabv3 import TorchvisionDeepLabV3Config
from uda.models.vainf import VainFConfig

_OUTER = ("state_dict", "model_state", "model")  # under one of these a state dict may lie
_COUNTER = ".num_batches_tracked"  # of batches seen; nothing reads it, and older files lack it
_NOT_IN_THE_FILE = "unknown (a file of another project does not say)"
_OURS = ("mean", "std")  # of the colors: saved by every Segmenter, and in no foreign file


class Protocol(NamedTuple):
    """How a project evaluates its networks, in the words of EvaluationConfig."""

    input_size: tuple[int, int]  # (height, width)
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    heads: Literal["main", "fused"] = "main"
    upsample: Literal["via_input", "logits", "probabilities"] = "via_input"


@dataclass(frozen=True, kw_only=True, slots=True)
class ForeignCheckpoint:
    """A network of another project, as ours."""

    format: str  # in words
    model: ModelConfig
    num_classes: int
    state: dict[str, Tensor]  # every entry of `model.build(num_classes)`'s state dict
    supervision: str  # what target labels it has seen
    protocol: Protocol  # its authors evaluate it by


@dataclass(frozen=True, kw_only=True, slots=True)
class ForeignFormat:
    """How a project names what one of our networks is made of."""

    name: str  # in words
    network: Callable[[], ModelConfig]  # without weights of its own
    prefixes: Mapping[str, str]  # of their names to those of ours; the longest that fits counts
    unused: frozenset[str]  # their entries that the network never reads
    classifier: str  # their tensor with as many rows as there are classes
    normalization: Normalization  # of the network
    supervision: str
    protocol: Protocol

    def own_name(self, name: str) -> str | None:
        """Our name of their entry; none when no prefix fits."""
        return _exchange(name, self.prefixes)

    def their_name(self, own: str) -> str | None:
        """Their name of our entry; none for what their files do not hold."""
        return _exchange(own, {ours: theirs for theirs, ours in self.prefixes.items()})


def _exchange(name: str, prefixes: Mapping[str, str]) -> str | None:
    fitting = [prefix for prefix in prefixes if name.startswith(prefix)]
    if not fitting:
        return None
    longest = max(fitting, key=len)
    return prefixes[longest] + name.removeprefix(longest)


def _segmentron() -> ModelConfig:
    return SegmenTronConfig(backbone="resnet101", backbone_weights="none", backbone_width=64)


SEGMENTRON = ForeignFormat(
    name="SegmenTron DeepLabV3+ ResNet-101",
    network=_segmentron,
    prefixes={
        "encoder.": "backbone.",
        "head.aspp.image_pooling.": "aspp.pooled.",
        "head.aspp.aspp0.": "aspp.branches.0.",
        "head.aspp.aspp1.block.": "aspp.branches.1.",
        "head.aspp.aspp2.block.": "aspp.branches.2.",
        "head.aspp.aspp3.block.": "aspp.branches.3.",
        "head.aspp.": "aspp.project.",
        "head.c1_block.": "low_level.",
        "head.block.0.block.": "decoder.0.",
        "head.block.1.block.": "decoder.1.",
        "head.block.2.": "decoder.2.",
    },
    unused=frozenset({"encoder.fc.weight", "encoder.fc.bias"}),  # ImageNet's classifier
    classifier="head.block.2.weight",
    normalization=IMAGENET,
    # Of deeplabv3_plus_resnet101_segmentron.pth; a file cannot show that it is another's.
    supervision="ground truth (2975 images)",
    protocol=Protocol(input_size=(1024, 2048)),
)


def _sum_heads(levels: Literal[1, 2]) -> Callable[[], ModelConfig]:
    return partial(
        DeepLabV2Config,
        backbone_weights="none",
        batch_norm="frozen_affine",
        levels=levels,
        head="sum",
        aspp_branches=2,
        dropout=0.0,
    )


_ADAPTSEGNET = ForeignFormat(
    name="AdaptSegNet two-level DeepLab-v2",
    network=_sum_heads(2),
    prefixes={"": "backbone.", "layer5.": "auxiliary.", "layer6.": "main."},
    unused=frozenset(),
    classifier="layer6.conv2d_list.0.weight",
    normalization=CAFFE,
    supervision=_NOT_IN_THE_FILE,
    protocol=Protocol(input_size=(512, 1024), upsample="logits"),
)
_ADAPTSEGNET_SINGLE = replace(
    _ADAPTSEGNET,
    name="AdaptSegNet single-level DeepLab-v2",
    network=_sum_heads(1),
    prefixes={"": "backbone.", "layer5.": "main."},
    classifier="layer5.conv2d_list.0.weight",
)
_SEG_UNCERTAINTY = replace(
    _ADAPTSEGNET,
    name="Seg-Uncertainty two-level DeepLab-v2",
    network=partial(DeepLabV2Config, backbone_weights="none", batch_norm="frozen_affine"),
    classifier="layer6.head.1.weight",
    protocol=Protocol(
        input_size=(512, 1024),
        scales=(1.0, 1.25),
        flip=True,
        heads="fused",
        upsample="probabilities",
    ),
)

_VAINF = ForeignFormat(
    name="VainF DeepLabV3+ ResNet-101",
    network=partial(VainFConfig, backbone_weights="none"),
    prefixes={
        "backbone.": "backbone.",
        "classifier.aspp.": "aspp.",
        "classifier.project.": "low_level.",
        "classifier.classifier.": "decoder.",
    },
    unused=frozenset(),
    classifier="classifier.classifier.3.weight",
    normalization=IMAGENET,
    supervision=_NOT_IN_THE_FILE,
    protocol=Protocol(input_size=(1024, 2048)),
)
_TORCHVISION = replace(
    _VAINF,
    name="torchvision DeepLabV3 ResNet-101",
    network=partial(TorchvisionDeepLabV3Config, backbone_weights="none"),
    prefixes={"backbone.": "backbone.", "classifier.": "main.", "aux_classifier.": "auxiliary."},
    classifier="classifier.4.weight",
)

FORMATS = (
    SEGMENTRON, _ADAPTSEGNET, _ADAPTSEGNET_SINGLE, _SEG_UNCERTAINTY, _VAINF, _TORCHVISION
)  # fmt: skip


def read_foreign(content: object, *, origin: str) -> ForeignCheckpoint | None:
    """The network in a file of another project; none when it is of no known format.

    content: what torch.load returned: a state dict whose names may all begin with "module.", alone
    or under "state_dict", "model_state" or "model"

    A file is of the format of which it holds the most tensors, if they are more than half and not
    all of the trunk, which is everybody's. Raises InputError, naming `origin`, when it then lacks
    one, or holds one of another shape or too many.
    """
    entries = _entries(content)
    comparisons = [_compare(entries, foreign) for foreign in FORMATS]
    best = max(comparisons, key=lambda comparison: len(comparison.fitting))
    trunk_alone = all(own.startswith("backbone.") for own in best.fitting)
    if 2 * len(best.fitting) <= best.wanted or trunk_alone:
        return None
    if best.missing or best.unexpected or best.misshapen:
        raise InputError(
            f"{origin} looks like {best.format.name}, but {len(best.fitting)} of {best.wanted} "
            f"tensors match, {tally(best.missing)} missing, {tally(best.unexpected)} unexpected, "
            f"{tally(best.misshapen)} of another shape or type; give the file as its "
            "authors published it"
        )
    found = best.format
    normalization = {
        "mean": torch.tensor(found.normalization.mean).view(1, 3, 1, 1),
        "std": torch.tensor(found.normalization.std).view(1, 3, 1, 1),
    }
    return ForeignCheckpoint(
        format=found.name,
        model=found.network(),
        num_classes=best.num_classes,
        state=best.fitting | best.counters | normalization,
        supervision=found.supervision,
        protocol=found.protocol,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Comparison:
    """A file beside the network of a format; what fits bears our names, the rest theirs."""

    format: ForeignFormat
    num_classes: int
    wanted: int  # tensors, without counters
    fitting: dict[str, Tensor]
    counters: dict[str, Tensor]
    missing: list[str]
    unexpected: list[str]
    misshapen: list[str]


def _compare(entries: Mapping[str, object], foreign: ForeignFormat) -> _Comparison:
    num_classes = _rows(entries.get(foreign.classifier))
    shapes = _shapes(foreign, num_classes)
    counters = {n: torch.zeros((), dtype=torch.long) for n in shapes if n.endswith(_COUNTER)}
    fitting, unexpected, misshapen = {}, [], []
    missing = {own: foreign.their_name(own) or own for own in shapes if own not in counters}
    for name, value in entries.items():
        if name in foreign.unused:
            continue
        own = foreign.own_name(name)
        if own is None or own not in shapes:
            unexpected.append(name)
            continue
        missing.pop(own, None)
        if not _is_like(value, shapes[own], whole=own in counters):
            misshapen.append(name)
        elif own in counters:
            counters[own] = value
        else:
            fitting[own] = value
    return _Comparison(
        format=foreign,
        num_classes=num_classes,
        wanted=len(shapes) - len(counters),
        fitting=fitting,
        counters=counters,
        missing=list(missing.values()),
        unexpected=unexpected,
        misshapen=misshapen,
    )


def _is_like(value: object, shape: torch.Size, *, whole: bool) -> TypeGuard[Tensor]:
    """Whether `value` is a tensor of that shape, of whole numbers or of real ones."""
    return (
        isinstance(value, Tensor)
        and value.shape == shape
        and value.dtype.is_floating_point != whole
    )


def _entries(content: object) -> dict[str, object]:
    """The state dict in what torch.load returned, without "module."; empty when there is none."""
    if not isinstance(content, Mapping):
        return {}
    inner = next((content[o] for o in _OUTER if isinstance(content.get(o), Mapping)), content)
    named = {str(name): value for name, value in inner.items()}
    # Only where all have it: two names that become one would hide a tensor.
    if all(name.startswith("module.") for name in named):
        return {name.removeprefix("module."): value for name, value in named.items()}
    return named


def _rows(classifier: object) -> int:
    """Classes that a classifier tells apart; 1 for what is none, which fits no network anyway."""
    if not isinstance(classifier, Tensor) or classifier.ndim == 0:
        return 1
    return max(1, len(classifier))


def _shapes(foreign: ForeignFormat, num_classes: int) -> dict[str, torch.Size]:
    """Of every entry of the network that a file should hold, by our name."""
    with torch.device("meta"):  # shapes without memory or initialization
        network = foreign.network().build(num_classes)
    return {name: t.shape for name, t in network.state_dict().items() if name not in _OURS}
