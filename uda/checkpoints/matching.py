"""Files of other projects, compared with the formats that they may have."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from uda.checkpoints.formats.base import (
    Entries,
    ForeignFormat,
    any_begins,
    backbone_files,
    known_formats,
)
from uda.models.config import ModelConfig
from uda.models.encoder_decoder import EncoderDecoderConfig
from uda.utilities.errors import InputError
from uda.utilities.schema import is_real
from uda.utilities.weight_files import Comparison, compare, unwrapped

_OURS = ("mean", "std")  # of the colors: saved by every Segmenter, and in no foreign file
_MOST_ROWS = 10_000
_NEAREST = 3  # formats that a message on an unknown file names


class Parts(NamedTuple):
    """The entries of a file by the networks that it holds, under the names of a file with one."""

    student: dict[str, object]
    teacher: dict[str, object] | None
    others: dict[str, int]  # networks that are not read, in words, and how many entries they have


class Candidate(NamedTuple):
    """A file compared with the network of a format, in the names of the file."""

    format: ForeignFormat
    model: ModelConfig
    num_classes: int
    parts: Parts
    comparison: Comparison

    @property
    def title(self) -> str:
        """The format in words."""
        return self.format.title(self.model)

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

    def of_classes(self, num_classes: int) -> "Candidate":
        """The same with a network of so many classes."""
        found = compared(self.format, self.model, num_classes, self.parts.student)
        return self._replace(num_classes=num_classes, comparison=found)


def candidates(
    entries: Entries, *, project: str | None = None, output_stride: int | None = None
) -> list[Candidate]:
    """A file compared with the formats that its names allow, the likeliest first. The classifier
    tells the number of classes; without one they are those of the format's first label space.

    project: only formats of this project, whatever the names; `output_stride`: of networks that
    have such a setting. Raises InputError when there is no such project.
    """
    found = []
    split_by = [(foreign, split(entries, foreign)) for foreign in formats_of(project)]
    if project is None:
        likely = [pair for pair in split_by if pair[0].may_be(pair[1].student)]
        split_by = likely or [pair for pair in split_by if pair[0].has_names_of(pair[1].student)]
    for foreign, parts in split_by:
        model = foreign.network(parts.student)
        if output_stride is not None:
            model = with_stride(model, output_stride) or model
        student = foreign.convert(parts.student)
        num_classes = rows(student.get(foreign.classifier)) or foreign.label_spaces[0].num_classes
        comparison = compared(foreign, model, num_classes, parts.student)
        found.append(Candidate(foreign, model, num_classes, parts, comparison))
    return sorted(found, key=lambda candidate: candidate.likeness, reverse=True)


def describe_unknown(content: object, file: str) -> str:
    """What a file of unknown format can be used for, if anything, and the nearest formats."""
    entries = unwrapped(content)
    if use := known_use(entries, file):
        return use
    nearest = candidates(entries)[:_NEAREST]
    if not nearest:
        titles = ", ".join(f.title(f.network({})) for f in known_formats())
        return f"files of other projects that can be read: {titles}"
    return "nearest of the files of other projects: " + "; ".join(
        f"{candidate.title}, {candidate.comparison}" for candidate in nearest
    )


def known_use(entries: Entries, file: str, *, whole: bool = False) -> str:
    """What a file is that is no network of ours; empty where it is not known. `whole`: only
    networks with heads."""
    found = (kind.use(entries) for kind in backbone_files() if kind.is_whole or not whole)
    return next((f"it holds {use.replace('{file}', file)}" for use in found if use), "")


def formats_of(project: str | None) -> list[ForeignFormat]:
    """All formats, or those of one project; InputError when there is none of that name."""
    formats = known_formats()
    if project is None:
        return list(formats)
    found = [foreign for foreign in formats if foreign.project == project]
    if not found:
        known = ", ".join(sorted({foreign.project for foreign in formats}))
        raise InputError(f"--project {project}: there is no format of that project; known: {known}")
    return found


def split(entries: Entries, foreign: ForeignFormat) -> Parts:
    """The networks in a file of that format. What belongs to none of them is left with the student,
    whose network will not know it."""
    own = foreign.networks
    if own is None or not any_begins(entries, (own.student, own.teacher)):
        return Parts(dict(entries), None, {})
    second = own.or_teacher and not any_begins(entries, (own.teacher,))
    prefix = own.or_teacher if second else own.teacher
    student: dict[str, object] = {}
    teacher: dict[str, object] = {}
    others: dict[str, int] = {}
    for name, value in entries.items():
        other = next((words for begin, words in own.others.items() if name.startswith(begin)), "")
        if name.startswith(prefix):
            teacher[name.removeprefix(prefix)] = value
        elif other:
            others[other] = others.get(other, 0) + 1
        else:
            student[name.removeprefix(own.student)] = value
    return Parts(student, teacher or None, others)


def compared(
    foreign: ForeignFormat, model: ModelConfig, num_classes: int, entries: Entries
) -> Comparison:
    """The entries of one network, compared with ours, in the names of the file."""
    own = _shapes(_Network(repr(model), num_classes, model))
    theirs = {foreign.their_name(name) or name: shape for name, shape in own.items()}
    converted = foreign.convert(entries)
    used = {n: v for n, v in converted.items() if n in theirs or not n.startswith(foreign.unused)}
    return compare(used, theirs)


def with_stride(model: ModelConfig, output_stride: int) -> ModelConfig | None:
    """The same network at this output stride; none when it has no such setting."""
    if isinstance(model, EncoderDecoderConfig):
        if model.encoder.output_stride is None:  # encoders with one stride only
            return None
        return replace(model, encoder=replace(model.encoder, output_stride=output_stride))
    if all(part.name != "output_stride" for part in fields(model)):
        return None
    changes = {"output_stride": output_stride}
    return replace(model, **changes)  # type: ignore[arg-type]


def stride_of(model: ModelConfig) -> int | None:
    """The output stride that the network's settings state; none when they do not."""
    inner = model.encoder if isinstance(model, EncoderDecoderConfig) else model
    stride: int | None = getattr(inner, "output_stride", None)
    return stride


def rows(tensor: object) -> int:
    """The classes of a classifier with that weight; 0 when it is not one, or has more rows than
    any: a tensor can repeat one number without end."""
    if not isinstance(tensor, Tensor) or not is_real(tensor) or tensor.ndim == 0:
        return 0
    return len(tensor) if len(tensor) <= _MOST_ROWS else 0


@dataclass(frozen=True)
class _Network:
    """Settings as a key: those of networks can be changed, and so have no hash."""

    text: str
    num_classes: int
    model: ModelConfig = field(compare=False)


@lru_cache(maxsize=64)
def _shapes(network: _Network) -> Mapping[str, torch.Size]:
    """The shape of every entry of the network that a file should hold, by our name."""
    with torch.device("meta"):  # shapes without memory or initialization
        built = network.model.build(network.num_classes)
    return {name: t.shape for name, t in built.state_dict().items() if name not in _OURS}
