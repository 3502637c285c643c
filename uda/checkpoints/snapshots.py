"""Snapshots: what a run saves to evaluate, to start from and to resume."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL
import torch
import torchvision
from torch import Tensor

from uda.checkpoints.foreign import ForeignOptions, label_space_of, read_foreign
from uda.checkpoints.hugging_face import is_hugging_face, read_folder
from uda.checkpoints.matching import describe_unknown
from uda.checkpoints.recovery import recover_tensors
from uda.checkpoints.stored import (
    FORMAT,
    check_fit,
    complete,
    is_ours,
    plain_experiment,
    plain_label_space,
    stored_space,
)
from uda.data.config import DataConfig
from uda.data.registry import scored_on
from uda.evaluation.evaluate import EvaluationConfig
from uda.labels.spaces import LabelSpace
from uda.models.config import ModelConfig
from uda.models.decoders.base import DecoderConfig
from uda.models.from_files.hugging_face import HuggingFaceConfig
from uda.models.registry import model_from_plain
from uda.models.segmenter import Segmenter
from uda.utilities.atomic_files import replacing
from uda.utilities.config_tree import from_plain
from uda.utilities.errors import InputError, require, shortened
from uda.utilities.hub import downloaded, is_on_hub
from uda.utilities.sealed_files import Sealing
from uda.utilities.tensor_values import counted, not_finite, require_finite
from uda.utilities.user_code import StoredCode, UserCode, code_changes, is_user_class, run_file
from uda.utilities.version import __version__
from uda.utilities.weight_files import UnsafeFileError, identity, listed, read_weights

_FIELDS = ("preset", "experiment", "label_space", "supervision", "initial_weights", "step",
           "scores", "versions", "student", "teacher")  # fmt: skip
_NETWORKS = ("student", "teacher")
_NOT_OURS = f"is not a snapshot of this library: it has no {FORMAT!r}"


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
    code: StoredCode | None = None  # the user's file that some classes of the preset are from
    # Not saved: that file, as the user gave it now; and what to say of the file: which tensors of
    # a foreign one matched, what no tensor shows, whether the code has changed.
    given_code: UserCode | None = None
    report: dict[str, str] = field(default_factory=dict)

    @property
    def is_foreign(self) -> bool:
        """Whether it was made of a file of another project."""
        return not self.versions  # a run of ours writes down what it was computed with

    @property
    def model(self) -> ModelConfig:
        values = self.experiment["model"]
        parts = [part for part in values.values() if isinstance(part, dict)]
        parts += [inner for part in parts for inner in part.values()]  # HRDA's attention
        kinds: dict[object, type[Any]] = {
            inner.get("type"): DecoderConfig
            for inner in parts
            if isinstance(inner, dict) and is_user_class(inner.get("type"))
        }
        if is_user_class(values.get("type")):
            kinds[values["type"]] = ModelConfig
        own: dict[str, type[Any]] = {
            str(n): self._code_for(str(n)).find(str(n), kind) for n, kind in kinds.items()
        }
        own |= {HuggingFaceConfig.__name__: HuggingFaceConfig}  # from files only
        return model_from_plain(values, origin="snapshot", others=own)

    def _code_for(self, name: str) -> UserCode:
        """The user's file; InputError, naming the option, when it was not given."""
        if self.given_code is not None:
            return self.given_code
        path = name.rpartition(":")[0] if self.code is None else self.code["path"]
        raise InputError(
            f"this snapshot has a network of a user's file, {shortened(name)}: give that file with "
            f"--code FILE.py, or uda.load(..., code=FILE); it was {shortened(path)} in training. "
            "The file is run, so read it first"
        )

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
                "this snapshot has no teacher: its run had none, or had not used it yet; use the "
                "student"
            )
        model = self.model.without_weights()  # the snapshot brings its own
        with torch.device("meta"):  # a file may ask for a network that no memory holds
            shapes = model.build(self.label_space.num_classes).state_dict()
        check_fit(shapes, state, "snapshot")
        segmenter = model.build(self.label_space.num_classes)
        segmenter.load_state_dict(state)
        return segmenter.eval().to(memory_format=torch.channels_last)


def versions() -> dict[str, str]:
    """What the run was computed with."""
    return {
        "uda": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # of a class of its own, which weights_only refuses
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
    }


def snapshot_values(snapshot: Snapshot) -> dict[str, Any]:
    """The snapshot as a dict of tensors and plain values, as `save` wants it."""
    values = {name: getattr(snapshot, name) for name in _FIELDS}
    values["label_space"] = plain_label_space(snapshot.label_space)
    if snapshot.code is not None:
        values["code"] = snapshot.code
    return {"format": FORMAT} | values


def save(values: Mapping[str, Any], path: Path, *, keep: Path | None = None) -> None:
    """Writes `values` so that `path` holds either the old file, which then goes to `keep` if that
    is given, or all of the new one, with a digest of it.

    Raises WriteError when the disk does not take it, and FloatingPointError, with nothing written,
    for weights that are not finite.
    """
    if places := not_finite([values.get(name) for name in _NETWORKS]):
        raise FloatingPointError(f"{path} is not written: {counted(places)} not finite")
    with replacing(path, keep=keep) as file:
        sealed = Sealing(file)
        torch.save(dict(values), sealed)
        sealed.seal()


def read(path: Path) -> dict[str, Any]:
    """The values of a file written by `save`, on the CPU. No code of the file is run.

    Raises InputError when it is missing, damaged, or not ours, or its weights or what an optimizer
    keeps for them are not finite.
    """
    content = _content(path)
    if not is_ours(content):
        raise InputError(f"{path} {_NOT_OURS}; snapshots are written by train_uda.py: give one")
    values = complete(content, path)
    training = values.get("training", {})
    require_finite([training.get("optimizers"), *(values[name] for name in _NETWORKS)], path)
    return values


def _content(path: Path) -> object:
    return read_weights(
        path,
        expected="a snapshot such as snapshots/RUN/GTA5_40000.pth",
        instead=f"if you want its tensors: python scripts/convert_checkpoint.py {path} OUT, which "
        "reads them and runs nothing",
    )


def load(
    path: Path,
    *,
    foreign: ForeignOptions | None = None,
    recover: bool = False,
    code: Path | None = None,
) -> Snapshot:
    """The snapshot in a file of ours, or the network in one of the known foreign files, see
    uda/checkpoints/formats, or in a folder, see `read_folder`. What `read` refuses is refused, for
    weights that are not finite in all of them, and:

    a label space that this library does not know, or knows with other classes; what `read_foreign`
    refuses with the options `foreign`; such options for a file of ours; `code` for a file that
    needs none.

    With `recover`, the tensors are also taken out of a file that holds what could run code. `code`:
    the user's file with the network's class; it is run.
    """
    if is_on_hub(path):
        path = downloaded(path)
    snapshot = _loaded(path, foreign, recover=recover, code=code)
    require_finite([snapshot.student, snapshot.teacher], path)
    return snapshot


def _loaded(
    path: Path, foreign: ForeignOptions | None, *, recover: bool, code: Path | None
) -> Snapshot:
    """As `load`, whatever the weights are."""
    if is_hugging_face(path):
        given = [*(foreign.given if foreign is not None else []), *(["--code"] if code else [])]
        require(not given, f"{', '.join(given)}: {path} is a folder, which says it all: omit it")
        return Snapshot(**read_folder(path), step=0, scores=None, versions={}, teacher=None)
    dropped: list[str] = []
    try:
        content = _content(path)
    except UnsafeFileError:
        if not recover:
            raise
        content, dropped = recover_tensors(path)
    if not is_ours(content):
        require(code is None, f"--code {code}: {path} is not a snapshot of ours: omit it")
        try:
            snapshot = _from_foreign(content, path, foreign)
        except InputError as error:
            alone = "; --tensors writes the tensors alone, of any network" if dropped else ""
            raise InputError(f"{error}{alone}") from None
        if dropped:
            snapshot.report["dropped"] = listed(dropped)
        return snapshot
    given = foreign.given if foreign is not None else []
    require(
        not given,
        f"{', '.join(given)}: {path} is a snapshot of ours, which is complete: omit it",
    )
    values = complete(content, path)
    space = stored_space(values["label_space"], path)
    snapshot = Snapshot(
        **{field: values[field] for field in _FIELDS} | {"label_space": space},
        code=values.get("code"),
        report={"only network": values["weights"]} if "weights" in values else {},
    )
    if code is not None:
        _add_code(snapshot, path, code)
    return snapshot


def _add_code(snapshot: Snapshot, path: Path, code: Path) -> None:
    """Runs the user's file `code` for its classes, and reports whether it is that of training."""
    require(
        snapshot.code is not None,
        f"--code {code}: {path} is of a preset without classes of its own: omit it",
    )
    snapshot.given_code = run_file(code)
    changes = code_changes(snapshot.code, snapshot.given_code.stored())
    snapshot.report["code"] = (
        f"warning: changed since training: {', '.join(changes)}"
        if changes
        else f"{code} as trained"
    )


def _from_foreign(content: object, path: Path, options: ForeignOptions | None) -> Snapshot:
    """A foreign file as a snapshot of step 0, scored as its authors did."""
    foreign = read_foreign(content, origin=str(path), options=options)
    if foreign is None:
        raise InputError(f"{path} {_NOT_OURS}; {describe_unknown(content, str(path))}")
    space = label_space_of(foreign, path)
    lacking = foreign.randomly_initialized
    new = f"; {len(lacking)} tensors randomly initialized" if lacking else ""
    report = {"tensors": foreign.tensors, "networks": foreign.networks, "quirks": foreign.quirks}
    return Snapshot(
        preset=foreign.title,
        experiment=plain_experiment(foreign.model, foreign.format.protocol, scored_on(space)),
        label_space=space,
        supervision=foreign.format.supervision,
        initial_weights=identity(path) + new,
        step=0,
        scores=None,
        versions={},
        student=foreign.state,
        teacher=foreign.teacher,
        report={name: said for name, said in report.items() if said},
    )
