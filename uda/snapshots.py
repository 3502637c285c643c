"""Saved state: snapshots to evaluate and go on from, and the state that a resumed run needs."""

import hashlib
import os
import pickle
import platform
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeGuard

import numpy as np
import PIL
import torch
import torchvision
from torch import Tensor

from uda.data.config import DataConfig
from uda.data.labels import LABEL_SPACES, LabelSpace
from uda.data.registry import LAYOUTS
from uda.errors import InputError, require
from uda.evaluation import EvaluationConfig
from uda.models import ModelConfig, model_from_plain
from uda.models.checkpoints import FORMATS, ForeignCheckpoint, read_foreign
from uda.models.segmenter import Segmenter
from uda.plain import from_plain, to_plain

FORMAT = "uda-snapshot-1"

_FIELDS = ("preset", "experiment", "label_space", "supervision", "initial_weights", "step",
           "scores", "versions", "student", "teacher")  # fmt: skip


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
        segmenter = model.build(self.label_space.num_classes)
        load_weights(segmenter, state, origin="snapshot")
        return segmenter.eval().to(memory_format=torch.channels_last)


def load_weights(segmenter: Segmenter, state: Mapping[str, Tensor], *, origin: str) -> None:
    """Loads every tensor of the network; InputError when one is missing, odd or too many."""
    own = segmenter.state_dict()
    odd = sorted(set(own) ^ set(state))
    odd += [name for name in own if name in state and own[name].shape != state[name].shape]
    if odd:
        raise InputError(
            f"{origin}: {len(odd)} tensors do not fit the network of this preset, e.g. {odd[0]}; "
            "use a snapshot of a preset with the same model settings"
        )
    segmenter.load_state_dict(dict(state))


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
    space = snapshot.label_space
    values["label_space"] = {"name": space.name, "classes": space.classes}
    return {"format": FORMAT} | values


def save(values: Mapping[str, Any], path: Path) -> None:
    """Writes `values` so that `path` holds either the old file or all of the new one."""
    temporary = path.with_name(path.name + ".partial")
    try:
        with temporary.open("wb") as file:
            torch.save(dict(values), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name, too, must survive a power cut
    finally:
        os.close(folder)


def read(path: Path) -> dict[str, Any]:
    """The values of a file written by `save`, on the CPU. No code of the file is run.

    Raises InputError when it is missing, damaged, or not ours.
    """
    return _ours(_content(path), path)


def _is_ours(content: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(content, dict) and content.get("format") == FORMAT


def _ours(content: object, path: Path) -> dict[str, Any]:
    if not _is_ours(content):
        raise InputError(
            f"{path} is not a snapshot of ours: it holds no {FORMAT!r}; snapshots are written by "
            f"train_uda.py. Files of other projects that can be read: "
            f"{', '.join(known.name for known in FORMATS)}"
        )
    missing = [name for name in _FIELDS if name not in content]
    if missing:
        raise InputError(f"{path} is damaged: it has no {', '.join(missing)}")
    return content


def _content(path: Path) -> object:
    """What `torch.save` wrote; InputError when the file is missing or cannot be read safely."""
    try:
        with warnings.catch_warnings(action="ignore"):  # torch comments on files of other tools
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; expected a snapshot such as "
                         "snapshots/RUN/GTA5_40000.pth") from None  # fmt: skip
    except pickle.UnpicklingError:
        raise InputError(
            f"{path} is damaged, or holds objects beyond tensors and plain values, which could run "
            "code when loaded; expected a snapshot of train_uda.py"
        ) from None
    except Exception as error:  # damaged archives raise whatever the reader stumbles over
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:120]
        raise InputError(f"{path} cannot be read as a snapshot ({reason})") from None


def load(path: Path) -> Snapshot:
    """The snapshot in a file of ours, or the network in one of the known foreign files, see
    uda/models/checkpoints.py. What `read` refuses is refused, and:

    a label space that this library does not know, or knows with other classes.
    """
    content = _content(path)
    if not _is_ours(content):
        foreign = read_foreign(content, origin=str(path))
        if foreign is not None:
            return _from_foreign(foreign, path)
    values = _ours(content, path)
    name, classes = values["label_space"]["name"], tuple(values["label_space"]["classes"])
    space = LABEL_SPACES.get(name)
    if space is None or space.classes != classes:
        raise InputError(
            f"{path}: its label space is {name} with {len(classes)} classes; known: "
            + ", ".join(f"{s.name} with {s.num_classes}" for s in LABEL_SPACES.values())
        )
    return Snapshot(**{field: values[field] for field in _FIELDS} | {"label_space": space})


def _from_foreign(foreign: ForeignCheckpoint, path: Path) -> Snapshot:
    """A foreign file as a snapshot of step 0, scored as its authors did."""
    spaces = [s for s in LABEL_SPACES.values() if s.num_classes == foreign.num_classes]
    require(
        bool(spaces),
        f"{path}: {foreign.format} with {foreign.num_classes} classes; known: "
        + ", ".join(f"{s.name} with {s.num_classes}" for s in LABEL_SPACES.values()),
    )
    scored_on = next(name for name, layout in LAYOUTS.items()
                     if layout.label_space is spaces[0] and "val" in layout.splits)  # fmt: skip
    evaluation = EvaluationConfig(dataset=scored_on, **foreign.protocol._asdict())
    experiment = {
        "model": {"type": type(foreign.model).__name__} | to_plain(foreign.model),
        "data": to_plain(DataConfig()),
        "evaluation": to_plain(evaluation),
    }
    return Snapshot(
        preset=foreign.format,
        experiment=experiment,
        label_space=spaces[0],
        supervision=foreign.supervision,
        initial_weights=f"{path.name} sha256:{sha256(path)[:12]}",
        step=0,
        scores=None,
        versions={},
        student=foreign.state,
        teacher=None,
    )


def sha256(path: Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
