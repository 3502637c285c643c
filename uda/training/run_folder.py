"""The folder of one run: which files it holds, and how a run is taken up again."""

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from uda.checkpoints import snapshots
from uda.checkpoints.snapshots import Snapshot
from uda.data.training import TrainingData
from uda.training.signals import Stopped
from uda.utilities.atomic_files import clear_write_errors, remove_partial
from uda.utilities.config_tree import differences
from uda.utilities.distributed import any_of, is_main, wait_for_all
from uda.utilities.errors import InputError, WriteError, require
from uda.utilities.locks import sole_writer

RESUME = "resume.pth"
PREVIOUS = "resume.previous.pth"  # what `resume.pth` was before it was last replaced

# A resumed run may differ in these: they leave every update as it is.
_FREE = ("data.root", "data.workers", "train.log_every", "train.snapshot_every",
         "train.resume_every", "train.skip_nonfinite", "train.unlabeled_images",
         "evaluation.")  # fmt: skip


class Resumed(NamedTuple):
    """What an interrupted run had come to."""

    state: dict[str, Any]  # for Run.load_state
    supervision: str
    initial_weights: str
    unfinished: bool  # whether records of its step were still to be made


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
        path = self.snapshot_path(state["step"])
        if is_main():
            snapshots.save(snapshots.snapshot_values(self._snapshot(state, scores)), path)
        return path

    def snapshot_path(self, step: int) -> Path:
        """Where `save_snapshot` writes that of a step."""
        return self.path / f"{self.data.short_name}_{step}.pth"

    def save_resume(self, state: Mapping[str, Any], *, unfinished: bool = False) -> None:
        """Replaces `resume.pth`: a snapshot that holds, in addition, all that training moves, and
        whether records of its step are `unfinished`. The file before stays as the previous one."""
        if not is_main():
            return
        values = snapshots.snapshot_values(self._snapshot(state, None))
        moved = ("objectives", "optimizers", "skipped", "plateau")
        values["training"] = {name: state[name] for name in moved}
        values["samples"] = self._samples_digest()
        values["unfinished"] = unfinished
        snapshots.save(values, self.path / RESUME, keep=self.path / PREVIOUS)

    def load_resume(self, given: Path | None = None) -> Resumed:
        """What to go on from: the state in the file or folder `given`, or else the run's own.

        Raises InputError when there is none, or when the preset or the data are not those it was
        written with.
        """
        path, values = self._own_resume() if given is None else self._given_resume(given)
        changed = [
            name
            for name in differences(self.experiment, values["experiment"])
            if not name.startswith(self._free())
        ]
        changed = self._not_extended(changed, values["experiment"]["train"], path)
        if changed:
            raise InputError(
                f"{path} was written with other values of {', '.join(changed)}: resume with the "
                "same preset and overrides, or start another run with --run NAME"
            )
        if values["samples"] != self._samples_digest():
            raise InputError(
                f"{path} was written with other images or pseudo-labels, or another description of "
                "them: restore the data as they were, or start another run with --run NAME"
            )
        state = {name: values[name] for name in ("step", "student", "teacher")}
        return Resumed(
            state | values["training"],
            values["supervision"],
            values["initial_weights"],
            unfinished=values.get("unfinished", False),
        )

    def _not_extended(self, changed: list[str], theirs: Mapping[str, Any], path: Path) -> list[str]:
        """What of the `changed` values is not a declared extension of the run that wrote `path`,
        whose values of `train` are `theirs`."""
        ours, extended = self.experiment["train"], ("train.steps", "train.extended_from")
        before = (*theirs.get("extended_from", ()), theirs["steps"])
        if ours["steps"] > theirs["steps"] and ours["extended_from"] == before:
            return [name for name in changed if name not in extended]
        require(
            changed != ["train.steps"] or ours["steps"] < theirs["steps"],
            f"{path} is of a run of {theirs['steps']} steps, the preset has {ours['steps']}: to "
            "extend the run, under a new schedule from there on, add --set train.extended_from="
            + ",".join(map(str, before)),
        )
        return changed

    def _free(self) -> tuple[str, ...]:
        """What may differ; with a plateau not the evaluation, which then sets the rate."""
        watched = self.experiment["train"]["plateau"] is not None
        return tuple(name for name in _FREE if not (watched and name == "evaluation."))

    def _own_resume(self) -> tuple[Path, dict[str, Any]]:
        """The run's last state that can be read: a damaged file costs the steps since the one
        before it."""
        paths = [path for path in self._resume_files() if path.exists()]
        require(
            bool(paths),
            f"{self.path / RESUME} does not exist: there is nothing to resume; leave --resume",
        )
        *paths, last = paths
        for path in paths:
            try:
                return path, _resumable(path)
            except InputError as error:
                found = _resumable(last)
                wait_for_all()  # every rank has read it
                if is_main():
                    print(f"{error}; going on from {last}, which takes its place")
                    last.replace(path)
                return path, found
        return last, _resumable(last)

    def _given_resume(self, given: Path) -> tuple[Path, dict[str, Any]]:
        path = given / RESUME if given.is_dir() else given
        own = path.absolute().parent == self.path.absolute()
        if not own and any(file.exists() for file in self._resume_files()):
            raise InputError(
                f"{self.path} holds a run of its own: --resume without a path goes on with it; to "
                f"go on from {path}, choose another folder with --run NAME"
            )
        return path, _resumable(path)

    def _resume_files(self) -> tuple[Path, Path]:
        return self.path / RESUME, self.path / PREVIOUS

    def refuse_if_used(self) -> None:
        """Raises InputError when another run has written here."""
        if any(path.exists() for path in self._resume_files()):
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
    def opened(self, *, new: bool) -> Iterator[None]:
        """Makes the folder, which nobody else may write to meanwhile, and removes what a process
        that was killed had begun to write. A run that turns out to be impossible before it has
        saved anything leaves no folder behind.

        Raises InputError on every rank when another process has it, has made it a run's while this
        one, a `new` one, was starting, or when the disk does not take it.
        """
        with ExitStack() as held:
            fresh = not self.path.exists()
            refusal = ""
            if is_main():  # the others learn from it whether they may go on
                try:
                    with clear_write_errors(self.path):
                        self.path.mkdir(parents=True, exist_ok=True)
                    remark = held.enter_context(sole_writer(self.path))
                    if remark:
                        print(remark)
                    if new:
                        self.refuse_if_used()
                    remove_partial(self.path)
                except InputError as error:
                    refusal = str(error)
            refusal = any_of(refusal)
            require(not refusal, refusal)
            try:
                yield
            except (InputError, Stopped) as error:
                unsaved = fresh and not any(self.path.glob("*.pth"))
                if is_main() and unsaved and not isinstance(error, WriteError):
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
        """Changes when an image joins or leaves, as the order of samples would be another, when
        the pseudo-labels are made anew, and when a file describes its data set otherwise."""
        dataset = self.data.dataset
        names = [sample.name for domain in (dataset.source, dataset.target) for sample in domain]
        if dataset.pseudo_labels is not None:
            names.append(repr(dataset.pseudo_labels.manifest))
        names += filter(None, self.data.described)
        return hashlib.sha256("\n".join(names).encode()).hexdigest()


def _resumable(path: Path) -> dict[str, Any]:
    """The values of a resume.pth; InputError when it is damaged or another kind of snapshot."""
    values = snapshots.read(path)
    require(
        "training" in values and "samples" in values,
        f"{path} is a snapshot to evaluate, without the state of the optimizers: give a {RESUME}",
    )
    return values
