"""The folder of one run: which files it holds, and how a run is taken up again."""

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from uda import snapshots
from uda.data.training import TrainingData
from uda.distributed import is_main
from uda.errors import InputError
from uda.plain import differences
from uda.snapshots import Snapshot

RESUME = "resume.pth"

# A resumed run may differ in these: they leave every update as it is.
_FREE = ("data.root", "data.workers", "train.log_every", "train.snapshot_every",
         "train.resume_every", "evaluation.")  # fmt: skip


class Resumed(NamedTuple):
    """What an interrupted run had come to."""

    state: dict[str, Any]  # for Run.load_state
    supervision: str
    initial_weights: str


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Writes a run's snapshots and the state that `--resume` goes on from."""

    path: Path
    preset: str
    experiment: dict[str, Any]  # plain values
    data: TrainingData
    supervision: str
    initial_weights: str

    def save_snapshot(self, state: Mapping[str, Any], scores: dict[str, Any] | None) -> Path:
        """Writes `<source>_<step>.pth` from a run's state and the step's scores."""
        path = self.path / f"{self.data.short_name}_{state['step']}.pth"
        if is_main():
            snapshots.save(snapshots.snapshot_values(self._snapshot(state, scores)), path)
        return path

    def save_resume(self, state: Mapping[str, Any]) -> None:
        """Replaces `resume.pth`: a snapshot that holds, in addition, all that training moves."""
        if not is_main():
            return
        values = snapshots.snapshot_values(self._snapshot(state, None))
        values["training"] = {name: state[name] for name in ("objectives", "optimizers")}
        values["samples"] = self._samples_digest()
        snapshots.save(values, self.path / RESUME)

    def load_resume(self) -> "Resumed":
        """What to go on from. Raises InputError when there is none, or when the preset or the
        data are not those it was written with."""
        path = self.path / RESUME
        if not path.exists():
            raise InputError(f"{path} does not exist: there is nothing to resume; leave --resume")
        values = snapshots.read(path)
        changed = [
            name
            for name in differences(self.experiment, values["experiment"])
            if not name.startswith(_FREE)
        ]
        if changed:
            raise InputError(
                f"{path} was written with other values of {', '.join(changed)}: resume with the "
                "same preset and overrides, or start another run with --run NAME"
            )
        if "training" not in values or values.get("samples") != self._samples_digest():
            raise InputError(
                f"{path} was written with other images or pseudo-labels: restore the data as they "
                "were, or start another run with --run NAME"
            )
        state = {name: values[name] for name in ("step", "student", "teacher")}
        return Resumed(state | values["training"], values["supervision"], values["initial_weights"])

    def refuse_if_used(self) -> None:
        """Raises InputError when another run has written here."""
        if (self.path / RESUME).exists():
            raise InputError(
                f"{self.path} holds a run already: add --resume to go on with it, or choose "
                "another folder with --run NAME"
            )
        if any(self.path.glob("*.pth")):
            raise InputError(
                f"{self.path} holds snapshots of a run, but no {RESUME} to go on from: choose "
                "another folder with --run NAME, or remove this one"
            )

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Makes the folder. A run that turns out to be impossible before it has saved anything
        leaves none behind."""
        fresh = not self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            yield
        except InputError:
            if is_main() and fresh and not any(self.path.glob("*.pth")):
                shutil.rmtree(self.path)
            raise

    def _snapshot(self, state: Mapping[str, Any], scores: dict[str, Any] | None) -> Snapshot:
        return Snapshot(
            preset=self.preset,
            experiment=self.experiment,
            label_space=self.data.label_space,
            supervision=self.supervision,
            initial_weights=self.initial_weights,
            step=state["step"],
            scores=scores,
            versions=snapshots.versions(),
            student=state["student"],
            teacher=state["teacher"],
        )

    def _samples_digest(self) -> str:
        """Changes when an image joins or leaves, as the order of samples would be another, and
        when the pseudo-labels are made anew."""
        dataset = self.data.dataset
        names = [sample.name for domain in (dataset.source, dataset.target) for sample in domain]
        if dataset.pseudo_labels is not None:
            names.append(repr(dataset.pseudo_labels.manifest))
        return hashlib.sha256("\n".join(names).encode()).hexdigest()
