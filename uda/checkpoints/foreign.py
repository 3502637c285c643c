"""Files of other projects, read as weights of our networks.

A format is recognized by the names and shapes of the tensors; nothing else in a file is read.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from uda.checkpoints.formats.base import Entries, ForeignFormat
from uda.checkpoints.matching import (
    Candidate,
    candidates,
    compared,
    known_use,
    stride_of,
    with_stride,
)
from uda.labels.spaces import LabelSpace
from uda.models.config import ModelConfig
from uda.utilities.errors import InputError, require, tally
from uda.utilities.tensor_values import not_finite
from uda.utilities.weight_files import PREFIXES, Comparison, listed, unwrapped

FOREIGN_OPTIONS = ("--partial", "--ignore", "--project", "--output-stride")
_TEACHERS = ("ema_model", "model_ema", "teacher", "ema")  # names of dicts beside the student's
_COMMANDS = "eval_single.py, pseudo_label.py, uda predict and scripts/convert_checkpoint.py take"


@dataclass(frozen=True, kw_only=True, slots=True)
class ForeignOptions:
    """What a user says of a file of another project, because its tensors do not."""

    # Names, or beginnings of names, of tensors that may be missing or of another shape: they are
    # randomly initialized, the same in every call. A network whose classifier is among them gets
    # the classes of the format's first label space, whatever the file's is for.
    partial: Sequence[str] = ()
    ignore: Sequence[str] = ()  # the same of tensors that are of no use to the network
    project: str | None = None  # whose file it is: ForeignFormat.project
    output_stride: int | None = None  # of the network; none: by the file's name, or the usual one
    # Only the tensors are wanted, for a network that is known: formats with the same tensors need
    # not be told apart.
    network_is_given: bool = False

    @property
    def given(self) -> list[str]:
        """The names of the options that the user gave."""
        values = [self.partial, self.ignore, self.project, self.output_stride]
        return [name for name, value in zip(FOREIGN_OPTIONS, values, strict=True) if value]


@dataclass(frozen=True, kw_only=True, slots=True)
class ForeignCheckpoint:
    """A network of another project, as ours."""

    format: ForeignFormat
    title: str  # of the format, with the network's encoder
    model: ModelConfig
    num_classes: int
    state: dict[str, Tensor]  # every entry of `model.build(num_classes)`'s state dict
    teacher: dict[str, Tensor] | None  # likewise
    tensors: str  # how many of the network's the file holds, in words
    networks: str  # which networks the file holds, in words, if they are several
    randomly_initialized: list[str]  # those it lacks, by the file's names
    quirks: str  # see ForeignFormat


def read_foreign(
    content: object, *, origin: str, options: ForeignOptions | None = None
) -> ForeignCheckpoint | None:
    """The network in a file of another project; none when the format is unknown.

    content: what torch.load returned: a state dict whose names may all begin with "module." or
    "Scale.", alone or under "state_dict", "model_state", "model" or another usual name

    A file has the format of which it holds the most tensors, if they are more than half and more
    than the backbone, which many share.
    Raises InputError, naming `origin`, when it lacks one, holds one of another shape or one that
    the network does not know, where `options` do not allow it; when several formats are left; and
    for options that change nothing.
    """
    options = options or ForeignOptions()
    entries = unwrapped(content)
    found = candidates(entries, project=options.project, output_stride=options.output_stride)
    if not found:
        return None
    best = found[0]
    if 2 * len(best.comparison.fitting) <= best.comparison.wanted or best.is_backbone_alone:
        return None
    best = _chosen([c for c in found if c.likeness == best.likeness], origin, options)
    best, said = _with_stride(best, origin, options)
    allowed = _bare_names(options.partial, best.format, "--partial")
    if best.format.classifier.startswith(tuple(allowed)):
        best = best.of_classes(best.format.label_spaces[0].num_classes)
    lacking = _lacking(best, allowed, origin)
    dropped = _unknown(best, _bare_names(options.ignore, best.format, "--ignore"), origin)
    teacher, networks = _teacher(best, content, lacking, origin)
    return ForeignCheckpoint(
        format=best.format,
        title=best.title,
        model=best.model,
        num_classes=best.num_classes,
        state=_state(best, best.comparison, lacking, origin),
        teacher=teacher,
        tensors=_in_words(best.comparison, lacking, dropped),
        networks=networks,
        randomly_initialized=lacking,
        quirks=said + best.format.quirks,
    )


def label_space_of(foreign: ForeignCheckpoint, path: Path) -> LabelSpace:
    """The label space with as many classes as the network; InputError when there is none."""
    spaces = foreign.format.label_spaces
    for space in spaces:
        if space.num_classes == foreign.num_classes:
            return space
    heads = [n for n, own in foreign.format.prefixes.items() if not own.startswith("backbone.")]
    use = f"re-initialize its heads with --partial {' '.join(heads)}"
    if foreign.format.backbone_is_bare:
        use += f", or use its backbone as initial weights: --set model.backbone_weights={path}"
    known = " or ".join(f"{space.name} with {space.num_classes}" for space in spaces)
    raise InputError(
        f"{path}: {foreign.title} with {foreign.num_classes} classes; known: {known}; {use}"
    )


def _chosen(alike: Sequence[Candidate], origin: str, options: ForeignOptions) -> Candidate:
    """The format among those that the file fits as well; InputError when its tensors do not tell
    and the user does not say."""
    if len(alike) == 1 or options.network_is_given or options.project is not None:
        return alike[0]
    verdicts = []
    for candidate in alike:
        drawn = tuple(_bare_names(options.partial, candidate.format, "--partial"))
        kept = {n: v for n, v in candidate.parts.student.items() if not n.startswith(drawn)}
        verdicts.append(candidate.format.applies(kept))
    left = [c for c, verdict in zip(alike, verdicts, strict=True) if verdict is not False] or alike
    refused = not options.partial and not any(map(_classes_are_known, left))  # for its classes
    if len(left) == 1 or None not in verdicts or refused:
        return left[0]
    choices = " or ".join(
        f"--project {c.format.project} ({c.title}: {c.format.quirks})" for c in left
    )
    raise InputError(
        f"{origin}: its tensors do not tell which of these networks it is of, and they differ in "
        f'what they compute: say {choices}; in Python, project="{left[0].format.project}"'
    )


def _classes_are_known(candidate: Candidate) -> bool:
    return candidate.num_classes in [s.num_classes for s in candidate.format.label_spaces]


def _with_stride(best: Candidate, origin: str, options: ForeignOptions) -> tuple[Candidate, str]:
    """The candidate at the output stride that the user or the file's name says, and words on it."""
    stride = options.output_stride
    if stride is not None:
        require(
            with_stride(best.model, stride) is not None,
            f"--output-stride {stride}: {best.title} has one output stride only: omit it",
        )
    elif best.format.stride_in_name:
        hint = re.search(best.format.stride_in_name, Path(origin).name)
        model = with_stride(best.model, int(hint[1])) if hint else None
        if model is not None and hint is not None:
            return best._replace(model=model), f"output stride {hint[1]} (by the file's name); "
    found = stride_of(best.model)
    return best, "" if found is None else f"output stride {found}; "


def _lacking(best: Candidate, allowed: Sequence[str], origin: str) -> list[str]:
    """The tensors that the file lacks, all of which have to be `allowed`."""
    found = best.comparison
    lacking = [*found.missing, *found.misshapen]
    for name in allowed:
        require(
            any(lacked.startswith(name) for lacked in lacking),
            f"--partial {name}: no tensor of {best.title} that {origin} lacks begins with it "
            f"({tally(lacking)} missing or of another shape): omit it",
        )
    if any(not name.startswith(tuple(allowed)) for name in lacking):
        if use := known_use(best.parts.student, origin, whole=True):
            raise InputError(f"{origin} looks like {best.title}, but {use}")
        raise InputError(
            f"{origin} looks like {best.title}, but {found}; give the file as its authors "
            f"published it, or let some be randomly initialized: {_COMMANDS} --partial NAME ... "
            "(names, or how they begin)"
        )
    return lacking


def _unknown(best: Candidate, ignored: Sequence[str], origin: str) -> list[str]:
    """The tensors that the network does not know, all of which have to be `ignored`."""
    student = best.format.convert(best.parts.student)
    unknown = [n for n in best.comparison.unexpected if isinstance(student.get(n), Tensor)]
    for name in ignored:
        require(
            any(other.startswith(name) for other in unknown),
            f"--ignore {name}: {origin} has no tensor that {best.title} does not know and that "
            f"begins with it ({tally(unknown)} it does not know): omit it",
        )
    refused = [name for name in unknown if not name.startswith(tuple(ignored))]
    require(
        not refused,
        f"{origin} looks like {best.title}, but also holds {len(refused)} tensors that this "
        f"network does not know ({listed(refused)}): it may compute something else; if they serve "
        f"training only, leave them out: {_COMMANDS} --ignore NAME ... (names, or how they begin)",
    )
    return unknown


def _state(
    best: Candidate, found: Comparison, lacking: Sequence[str], origin: str
) -> dict[str, Tensor]:
    """The state dict of the network, under our names; InputError for values that are not finite."""
    odd = not_finite(found.fitting)
    require(
        not odd,
        f"{origin}: {tally(odd)} of its tensors hold values that are not finite: use an earlier "
        "file of that training",
    )

    def own(name: str) -> str:
        ours = best.format.own_name(name)
        assert ours is not None, "what the network has of the file's has a name of ours"
        return ours

    state = {own(n): t for n, t in (found.counters | found.fitting).items()}
    if lacking:
        new = _random_weights(best.model, best.num_classes)
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


def _in_words(found: Comparison, lacking: Sequence[str], dropped: Sequence[str]) -> str:
    line = (
        f"{len(found.fitting)} of {found.wanted} matched, {tally(lacking)} missing, "
        f"{tally(found.unexpected)} unexpected"
    )
    line += f"; left out: {listed(dropped)}" if dropped else ""
    return f"{line}; randomly initialized: {listed(lacking)}" if lacking else line


def _teacher(
    best: Candidate, content: object, lacking: Sequence[str], origin: str
) -> tuple[dict[str, Tensor] | None, str]:
    """The teacher's state dict, if the file has one, and the networks of the file in words.

    A teacher is among the student's entries, see ForeignFormat.networks, or in a dict of its own
    beside them, as in files of DACS.
    """
    entries: Entries | None = best.parts.teacher
    others = [f"{words} ({count} tensors)" for words, count in best.parts.others.items()]
    beside: Mapping[object, object] = content if isinstance(content, Mapping) else {}
    for name in _TEACHERS if entries is None else ():
        other = unwrapped(beside.get(name))
        found = compared(best.format, best.model, best.num_classes, other)
        if found.complete:
            entries = other
        elif found.fitting:
            others.append(f"what is under {name!r}, which does not fit ({found})")
    held = "student" if entries is None else "student and teacher"
    words = held + (f"; not read: {', '.join(others)}" if others else "")
    if entries is None:
        return None, words if others else ""
    found = compared(best.format, best.model, best.num_classes, entries)
    require(
        {*found.missing, *found.misshapen} <= set(lacking),
        f"{origin}: its teacher does not fit the network of its student: {found}; use an earlier "
        "file of that training",
    )
    return _state(best, found, lacking, origin), words


def _bare_names(names: Sequence[str], foreign: ForeignFormat, option: str) -> list[str]:
    """The names as `unwrapped` and `split` return them from a file where all have prefixes."""
    found = list(names)
    student = () if foreign.networks is None else (foreign.networks.student,)
    for prefix in (*PREFIXES, *PREFIXES, *student):  # PREFIXES in any order
        found = [name.removeprefix(prefix) for name in found]
    require(all(found), f"{option} {names}: give names of tensors, or how they begin")
    return found
