"""Files of other projects, read as weights of our networks.

A format is recognized by the names and shapes of the tensors; nothing else in a file is read.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, get_args

import torch
from torch import Tensor, nn

from uda.checkpoints.formats import FORMATS, ForeignFormat
from uda.models.encoders.resnet import BackboneName, CaffeResNetBackbone, ResNetBackbone
from uda.models.segmenter import ModelConfig
from uda.utilities.errors import InputError, require, tally
from uda.utilities.schema import is_real
from uda.utilities.weight_files import PREFIXES, Comparison, compare, listed, unwrapped

_OURS = ("mean", "std")  # of the colors: saved by every Segmenter, and in no foreign file
_MOST_ROWS = 10_000
_NEAREST = 3  # formats that a message on an unknown file names


@dataclass(frozen=True, kw_only=True, slots=True)
class ForeignCheckpoint:
    """A network of another project, as ours."""

    format: ForeignFormat
    model: ModelConfig
    num_classes: int
    state: dict[str, Tensor]  # every entry of `model.build(num_classes)`'s state dict
    tensors: str  # how many of the network's the file holds, in words
    randomly_initialized: list[str]  # those it lacks, by the file's names


def read_foreign(
    content: object, *, origin: str, partial: Sequence[str] = ()
) -> ForeignCheckpoint | None:
    """The network in a file of another project; none when the format is unknown.

    content: what torch.load returned: a state dict whose names may all begin with "module." or
    "Scale.", alone or under "state_dict", "model_state" or "model"
    partial: names, or beginnings of names, of tensors that may be missing or of another shape: they
    are randomly initialized, the same in every call. A network whose classifier is among them gets
    the classes of the format's label space, whatever the file's is for.

    A file has the format of which it holds the most tensors, if they are more than half and more
    than the backbone, which many share. Tensors that the network does not know are counted.
    Raises InputError, naming `origin`, when it lacks one or holds one of another shape, and for an
    entry of `partial` that allows nothing.
    """
    entries = unwrapped(content)
    allowed = [_without_prefixes(name) for name in partial]
    require(all(allowed), f"--partial {partial}: give names of tensors, or how they begin")
    best = _candidates(entries)[0]
    if 2 * len(best.comparison.fitting) <= best.comparison.wanted or best.is_backbone_alone:
        return None
    if best.format.classifier.startswith(tuple(allowed)):
        best = _compared(entries, best.format, best.format.label_space.num_classes)
    lacking = _lacking(best, allowed, origin)
    odd = [n for n, tensor in best.comparison.fitting.items() if not tensor.isfinite().all()]
    require(
        not odd,
        f"{origin}: {tally(odd)} of its tensors hold values that are not finite: use an earlier "
        "file of that training",
    )
    return ForeignCheckpoint(
        format=best.format,
        model=best.format.network(),
        num_classes=best.num_classes,
        state=_state(best, lacking),
        tensors=_in_words(best.comparison, lacking),
        randomly_initialized=lacking,
    )


def describe_unknown(content: object, file: str) -> str:
    """What a file of unknown format can be used for, if anything, and the nearest formats."""
    entries = unwrapped(content)
    if not entries:
        return "files of other projects that can be read: " + ", ".join(f.name for f in FORMATS)
    nearest = _candidates(entries)[:_NEAREST]
    return f"{_use_of_backbone(entries, file)}nearest of the files of other projects: " + "; ".join(
        f"{candidate.format.name}, {candidate.comparison}" for candidate in nearest
    )


class _Candidate(NamedTuple):
    """A file compared with the network of a format, in the names of the file."""

    format: ForeignFormat
    num_classes: int
    comparison: Comparison

    @property
    def likeness(self) -> tuple[int, int, int]:
        """Larger for the likelier format; of two that hold the whole file, the smaller network."""
        found = self.comparison
        return len(found.fitting), len(found.misshapen), -found.wanted

    @property
    def is_backbone_alone(self) -> bool:
        """Whether the file has no tensor of the network's heads."""
        names = [self.format.own_name(name) or "" for name in self.comparison.fitting]
        return all(name.startswith("backbone.") for name in names)


def _candidates(entries: Mapping[str, object]) -> list[_Candidate]:
    """A file compared with every format, the likeliest first. The classifier tells the number of
    classes; without one they are those of the format's label space."""
    found = [
        _compared(entries, f, _rows(entries.get(f.classifier)) or f.label_space.num_classes)
        for f in FORMATS
    ]
    return sorted(found, key=lambda candidate: candidate.likeness, reverse=True)


def _compared(
    entries: Mapping[str, object], foreign: ForeignFormat, num_classes: int
) -> _Candidate:
    own = _shapes(foreign.network, num_classes)
    theirs = {foreign.their_name(name) or name: shape for name, shape in own.items()}
    used = {name: value for name, value in entries.items() if name not in foreign.unused}
    return _Candidate(foreign, num_classes, compare(used, theirs))


def _lacking(best: _Candidate, allowed: Sequence[str], origin: str) -> list[str]:
    """The tensors that the file lacks, all of which have to be `allowed`."""
    found = best.comparison
    lacking = [*found.missing, *found.misshapen]
    for name in allowed:
        require(
            any(lacked.startswith(name) for lacked in lacking),
            f"--partial {name}: no tensor of {best.format.name} that {origin} lacks begins with it "
            f"({tally(lacking)} missing or of another shape): omit it",
        )
    if any(not name.startswith(tuple(allowed)) for name in lacking):
        raise InputError(
            f"{origin} looks like {best.format.name}, but {found}; give the file as its authors "
            "published it, or let some be randomly initialized: eval_single.py, pseudo_label.py "
            "and scripts/convert_checkpoint.py take --partial NAME ... (names, or how they begin)"
        )
    return lacking


def _state(best: _Candidate, lacking: Sequence[str]) -> dict[str, Tensor]:
    """The state dict of the network, under our names."""

    def own(name: str) -> str:
        found = best.format.own_name(name)
        assert found is not None, "what the network has of the file's has a name of ours"
        return found

    state = {own(n): t for n, t in (best.comparison.counters | best.comparison.fitting).items()}
    if lacking:
        new = _random_weights(best.format.network(), best.num_classes)
        state |= {name: new[name] for name in map(own, lacking)}
    mean, std = best.format.normalization.mean, best.format.normalization.std
    return state | {
        "mean": torch.tensor(mean).view(1, 3, 1, 1),
        "std": torch.tensor(std).view(1, 3, 1, 1),
    }


def _random_weights(model: ModelConfig, num_classes: int) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return model.build(num_classes).state_dict()


def _in_words(found: Comparison, lacking: Sequence[str]) -> str:
    line = (
        f"{len(found.fitting)} of {found.wanted} matched, {tally(lacking)} missing, "
        f"{tally(found.unexpected)} unexpected"
    )
    return f"{line}; randomly initialized: {listed(lacking)}" if lacking else line


def _without_prefixes(name: str) -> str:
    """`name` as `unwrapped` returns it from a file where all names have these prefixes."""
    while found := [prefix for prefix in PREFIXES if name.startswith(prefix)]:
        name = name.removeprefix(found[0])
    return name


def _rows(tensor: object) -> int:
    """The classes of a classifier with that weight; 0 when it is not one, or has more rows than
    any: a tensor can repeat one number without end."""
    if not isinstance(tensor, Tensor) or not is_real(tensor) or tensor.ndim == 0:
        return 0
    return len(tensor) if len(tensor) <= _MOST_ROWS else 0


@lru_cache(maxsize=32)
def _shapes(network: Callable[[], ModelConfig], num_classes: int) -> dict[str, torch.Size]:
    """The shape of every entry of the network that a file should hold, by our name."""
    with torch.device("meta"):  # shapes without memory or initialization
        built = network().build(num_classes)
    return {name: t.shape for name, t in built.state_dict().items() if name not in _OURS}


def _use_of_backbone(entries: Mapping[str, object], file: str) -> str:
    """What a file with a backbone, and no heads but those that are left out, can be used for."""
    backbone = {n: v for n, v in entries.items() if not n.startswith(CaffeResNetBackbone.heads)}
    width = _rows(backbone.get("conv1.weight")) or 1
    for name in get_args(BackboneName):
        with torch.device("meta"):
            network: nn.Module = ResNetBackbone(name, width=width, output_stride=16)
        found = compare(backbone, {n: t.shape for n, t in network.state_dict().items()})
        if found.complete and not found.unexpected:
            return (
                f"it holds the backbone of a {name} of width {width}, which can be used as initial "
                f"weights: --set model.backbone_weights={file}; "
            )
    return ""
