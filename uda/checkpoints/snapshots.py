"""Saved state: snapshots to evaluate and go on from, and the state that a resumed run needs."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, TypeGuard

import numpy as np
import PIL
import torch
import torchvision
from torch import Tensor, nn

from uda.checkpoints.foreign import ForeignCheckpoint, describe_unknown, read_foreign
from uda.checkpoints.recovery import recover_tensors
from uda.data.config import DataConfig
from uda.data.datasets.cityscapes import CITYSCAPES
from uda.data.registry import LABEL_SPACES
from uda.evaluation.evaluate import EvaluationConfig
from uda.labels.spaces import LabelSpace
from uda.models.registry import model_from_plain
from uda.models.segmenter import ModelConfig, Segmenter
from uda.optim.plateau import PlateauState
from uda.utilities.atomic_files import replacing
from uda.utilities.config_tree import from_plain, to_plain
from uda.utilities.errors import InputError, require, shortened
from uda.utilities.schema import Plain, fault
from uda.utilities.weight_files import UnsafeFileError, identity, listed, read_weights

FORMAT = "uda-snapshot-1"


class _LabelSpace(TypedDict):
    name: str
    classes: tuple[str, ...]
    # The rest of a LabelSpace; snapshots that lack it are of label spaces known to this library.
    report_names: NotRequired[tuple[str, ...]]
    palette: NotRequired[tuple[tuple[int, ...], ...]]
    raw_to_train: NotRequired[dict[int, int]]
    mirror_swaps: NotRequired[tuple[tuple[int, ...], ...]]
    unscored: NotRequired[tuple[int, ...]]
    raw_colors: NotRequired[tuple[tuple[int, ...], ...]]
    raw_channel: NotRequired[str]  # younger than the others


class _Optimizer(TypedDict):
    state: dict[int, dict[str, Tensor | None]]  # by the number of the parameter
    param_groups: list[dict[str, Plain]]


class _Training(TypedDict):
    objectives: dict[str, dict[str, Tensor]]
    optimizers: dict[str, _Optimizer]
    skipped: int
    plateau: NotRequired[PlateauState | None]  # unknown to versions before it


class _Experiment(TypedDict):
    model: dict[str, Plain]
    data: dict[str, Plain]
    evaluation: dict[str, Plain]


class _Stored(TypedDict):
    """What a file of ours has to hold."""

    preset: str
    experiment: dict[str, Plain]
    label_space: _LabelSpace
    supervision: str
    initial_weights: str
    step: int
    scores: dict[str, Plain] | None
    versions: dict[str, str]
    student: dict[str, Tensor]
    teacher: dict[str, Tensor] | None
    training: NotRequired[_Training]  # of resume.pth
    samples: NotRequired[str]  # of resume.pth
    unfinished: NotRequired[bool]  # of resume.pth


_FIELDS = ("preset", "experiment", "label_space", "supervision", "initial_weights", "step",
           "scores", "versions", "student", "teacher")  # fmt: skip
_NOT_OURS = f"is not a snapshot of ours: it holds no {FORMAT!r}"


@dataclass(kw_only=True, slots=True)
class Snapshot:
    """The networks of a run after `step` updates, and everything needed to judge them."""

    preset: str
    experiment: dict[str, Any]  # the resolved preset as plain values
    label_space: LabelSpace
    supervision: str  # what target labels the run has seen
    initial_weights: str  # where the backbone's or the whole network's first weights came from
    step: int
    scores: dict[str, Any] | None  # of this step, if it was evaluated
    versions: dict[str, str]
    student: dict[str, Tensor]
    teacher: dict[str, Tensor] | None
    # What is to be said of a foreign file: which tensors matched, what no tensor shows. Not saved.
    report: dict[str, str] = field(default_factory=dict)

    @property
    def is_foreign(self) -> bool:
        """Whether it was made of a file of another project."""
        return not self.versions  # a run of ours writes down what it was computed with

    @property
    def model(self) -> ModelConfig:
        return model_from_plain(self.experiment["model"], origin="snapshot")

    @property
    def data(self) -> DataConfig:
        return from_plain(DataConfig, self.experiment["data"], origin="snapshot")

    @property
    def evaluation(self) -> EvaluationConfig:
        return from_plain(EvaluationConfig, self.experiment["evaluation"], origin="snapshot")

    def build(self, weights: Literal["student", "teacher"] = "student") -> Segmenter:
        """The network with the snapshot's `weights`, "student" or "teacher", in evaluation mode.

        Raises InputError when the snapshot has no teacher or its tensors do not fit its preset.
        """
        state = self.student if weights == "student" else self.teacher
        if state is None:
            raise InputError(
                "this snapshot has no teacher: its run had none, or had not asked it yet; use the "
                "student"
            )
        model = replace(self.model, backbone_weights="none")  # the snapshot brings its own
        with torch.device("meta"):  # a file may ask for a network that no memory holds
            shapes = model.build(self.label_space.num_classes).state_dict()
        _check_fit(shapes, state, "snapshot")
        segmenter = model.build(self.label_space.num_classes)
        load_weights(segmenter, state, origin="snapshot")
        return segmenter.eval().to(memory_format=torch.channels_last)


def load_weights(segmenter: nn.Module, state: Mapping[str, Tensor], *, origin: str) -> None:
    """Loads every tensor of the network; InputError when one is missing, odd or too many."""
    _check_fit(segmenter.state_dict(), state, origin)
    segmenter.load_state_dict(dict(state))


def _check_fit(own: Mapping[str, Tensor], state: Mapping[str, Tensor], origin: str) -> None:
    odd = sorted(set(own) ^ set(state))
    odd += [name for name in own if name in state and not _is_alike(own[name], state[name])]
    if odd:
        raise InputError(
            f"{origin}: {len(odd)} tensors do not fit the network of this preset, e.g. "
            f"{shortened(odd[0])}; use a snapshot of a preset with the same model settings"
        )


def _is_alike(own: Tensor, other: Tensor) -> bool:
    return own.shape == other.shape and own.dtype.is_floating_point == other.dtype.is_floating_point


def versions() -> dict[str, str]:
    """What the run was computed with."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # of a class of its own, which weights_only refuses
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
    }


def snapshot_values(snapshot: Snapshot) -> dict[str, Any]:
    """The snapshot as a dict of tensors and plain values, as `save` wants it."""
    values = {name: getattr(snapshot, name) for name in _FIELDS}
    values["label_space"] = {
        part.name: getattr(snapshot.label_space, part.name)
        for part in fields(LabelSpace)
        if part.init
    }
    return {"format": FORMAT} | values


def save(values: Mapping[str, Any], path: Path, *, keep: Path | None = None) -> None:
    """Writes `values` so that `path` holds either the old file, which then goes to `keep` if that
    is given, or all of the new one. Raises WriteError when the disk does not take it."""
    with replacing(path, keep=keep) as file:
        torch.save(dict(values), file)


def read(path: Path) -> dict[str, Any]:
    """The values of a file written by `save`, on the CPU. No code of the file is run.

    Raises InputError when it is missing, damaged, or not ours.
    """
    content = _content(path)
    if not _is_ours(content):
        raise InputError(f"{path} {_NOT_OURS}; snapshots are written by train_uda.py: give one")
    return _complete(content, path)


def _is_ours(content: object) -> TypeGuard[dict[str, Any]]:
    found = content.get("format") if isinstance(content, dict) else None
    return isinstance(found, str) and found == FORMAT  # a tensor would be compared one by one


def _complete(content: dict[str, Any], path: Path) -> dict[str, Any]:
    wrong = fault(content, _Stored) or fault(content["experiment"], _Experiment, "experiment")
    require(not wrong, f"{path} is damaged: {wrong}; give another snapshot of that run")
    return content


def _content(path: Path) -> object:
    return read_weights(
        path,
        expected="a snapshot such as snapshots/RUN/GTA5_40000.pth",
        instead=f"if you want its tensors: python scripts/convert_checkpoint.py {path} OUT, which "
        "reads them and runs nothing",
    )


def load(path: Path, *, partial: Sequence[str] = (), recover: bool = False) -> Snapshot:
    """The snapshot in a file of ours, or the network in one of the known foreign files, see
    uda/checkpoints/formats.py. What `read` refuses is refused, and:

    a label space that this library does not know, or knows with other classes; a foreign file that
    lacks a tensor that does not begin as one of `partial`, see `read_foreign`; `partial` for a file
    of ours or for tensors that are there.

    With `recover`, the tensors are also taken out of a file that holds what could run code.
    """
    dropped: list[str] = []
    try:
        content = _content(path)
    except UnsafeFileError:
        if not recover:
            raise
        content, dropped = recover_tensors(path)
    if not _is_ours(content):
        snapshot = _from_foreign(content, path, partial)
        if dropped:
            snapshot.report["dropped"] = listed(dropped)
        return snapshot
    require(not partial, f"--partial: {path} is a snapshot of ours, which is whole: leave it")
    values = _complete(content, path)
    space = _stored_space(values["label_space"], path)
    return Snapshot(**{field: values[field] for field in _FIELDS} | {"label_space": space})


def _stored_space(stored: Mapping[str, Any], path: Path) -> LabelSpace:
    """The label space of a snapshot: one that this library knows, or the one that is stored.

    Raises InputError when it is neither, or is damaged.
    """
    name, classes = stored["name"], tuple(stored["classes"])
    known = LABEL_SPACES.get(name)
    parts = {part.name for part in fields(LabelSpace) if part.init}
    whole = stored.keys() >= parts - {"raw_channel"}
    require(
        known.classes == classes if known is not None else whole,
        f"{path}: its label space is {shortened(name)} with {len(classes)} classes; known: "
        f"{_known_spaces()}",
    )
    if known is not None:
        return known
    triples = all(len(color) == 3 for color in (*stored["palette"], *stored["raw_colors"]))
    pairs = all(len(pair) == 2 for pair in stored["mirror_swaps"])
    require(
        triples and pairs,
        f"{path} is damaged: its label space has odd colors or pairs; give another snapshot",
    )
    try:
        return LabelSpace(**{name: stored[name] for name in parts & stored.keys()})
    except InputError as error:
        raise InputError(f"{path} is damaged: {error}; give another snapshot") from None


def _known_spaces() -> str:
    return ", ".join(f"{s.name} with {s.num_classes}" for s in LABEL_SPACES.values())


def _from_foreign(content: object, path: Path, partial: Sequence[str]) -> Snapshot:
    """A foreign file as a snapshot of step 0, scored as its authors did."""
    # All known formats are of networks for Cityscapes' classes; as many of another label space, or
    # of one of a user's, would be others.
    space = CITYSCAPES.label_space
    foreign = read_foreign(
        content, origin=str(path), partial=partial, drawn_classes=space.num_classes
    )
    if foreign is None:
        raise InputError(f"{path} {_NOT_OURS}; {describe_unknown(content, str(path))}")
    _check_classes(foreign, space, path)
    evaluation = EvaluationConfig.following(foreign.format.protocol, dataset=CITYSCAPES.name)
    experiment = {
        "model": {"type": type(foreign.model).__name__} | to_plain(foreign.model),
        "data": to_plain(DataConfig()),
        "evaluation": to_plain(evaluation),
    }
    drawn = f"; {len(foreign.drawn)} tensors newly drawn" if foreign.drawn else ""
    return Snapshot(
        preset=foreign.format.name,
        experiment=experiment,
        label_space=space,
        supervision=foreign.format.supervision,
        initial_weights=identity(path) + drawn,
        step=0,
        scores=None,
        versions={},
        student=foreign.state,
        teacher=None,
        report={"tensors": foreign.tensors, "quirks": foreign.format.quirks},
    )


def _check_classes(foreign: ForeignCheckpoint, space: LabelSpace, path: Path) -> None:
    """Raises InputError when the network has not as many classes as the label space."""
    heads = [n for n, own in foreign.format.prefixes.items() if not own.startswith("backbone.")]
    use = f"let its heads be drawn anew with --partial {' '.join(heads)}"
    if foreign.format.trunk_is_bare:
        use += f", or take its trunk as initial weights: --set model.backbone_weights={path}"
    require(
        foreign.num_classes == space.num_classes,
        f"{path}: {foreign.format.name} with {foreign.num_classes} classes; known: {space.name} "
        f"with {space.num_classes}; {use}",
    )
