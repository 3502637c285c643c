"""A run before it has weights: the lock of its folder, and what a resumed run continues from."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from uda.checkpoints import snapshots
from uda.checkpoints.resume_files import newest_readable
from uda.data.training import TrainingData
from uda.data.used_files import StoredFiles, UsedFiles, strings_in, used_files
from uda.experiment import Experiment
from uda.training.run_folder import PREVIOUS, RESUME, RunFolder, samples_digest
from uda.training.signals import Stopped
from uda.utilities.atomic_files import clear_write_errors, remove_partial
from uda.utilities.config_tree import differences, to_plain, with_defaults
from uda.utilities.distributed import any_of, is_main
from uda.utilities.errors import InputError, WriteError, require
from uda.utilities.locks import sole_writer
from uda.utilities.user_code import StoredCode, code_changes, stored_code

# A resumed run may differ in these: they do not change the updates.
_FREE = ("data.root", "data.workers", "data.cache", "data.cache_gib",
         "data.rare_classes.statistics", "train.log_every",
         "train.snapshot_every", "train.resume_every", "train.skip_nonfinite",
         "train.unlabeled_images", "train.shard_optimizer", "evaluation.")  # fmt: skip


class Resumed(NamedTuple):
    """The state of an interrupted run."""

    state: dict[str, Any]  # for Run.load_state
    supervision: str
    initial_weights: str
    unfinished: bool  # whether records of its step are still to be made
    data_changed_at: tuple[int, ...]  # steps from which on the data were known to be others


@dataclass(frozen=True, slots=True)
class RunPlan:
    """A run before it has weights: its preset, its data and its folder."""

    path: Path
    preset: str
    experiment: Experiment
    data: TrainingData
    plain: dict[str, Any] = field(init=False)  # the experiment
    code: StoredCode | None = field(init=False)  # the user's file, if it has classes from one
    used: UsedFiles = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "plain", to_plain(self.experiment))
        object.__setattr__(self, "code", stored_code(self.experiment))
        named = strings_in([self.plain[part] for part in ("model", "objectives", "train")])
        used = used_files(self.data.dataset, list(named), self.data.files)
        object.__setattr__(self, "used", used)

    def started(
        self, *, supervision: str, initial_weights: str, data_changed_at: tuple[int, ...] = ()
    ) -> "RunFolder":
        """The folder of the run that starts from these weights."""
        return RunFolder(
            self.path, self.preset, self.plain, self.data, self.code, supervision, initial_weights,
            self.used.stored, data_changed_at,
        )  # fmt: skip

    def load_resume(
        self, given: Path | None = None, *, code_changed: bool = False, data_changed: bool = False
    ) -> Resumed | None:
        """What to continue from: the state in the file or folder `given`, or else the run's own.
        None where this run was killed between its first snapshot and its first resume.pth.

        Raises InputError when there is none, or when the preset or the data are not those it was
        written with; for another version of the user's code, unless `code_changed` allows it, and
        for files with other content, unless `data_changed` does.
        """
        if given is None and not self._resume_paths():
            self._check_own_snapshots()
            return None
        path, values = (
            newest_readable(self._resume_paths(), _resumable)
            if given is None
            else self._given_resume(given)
        )
        self._check_settings(path, values["experiment"])
        if values["samples"] != samples_digest(self.data):
            raise InputError(
                f"{path} was written with other images or pseudo-labels, other labels to choose "
                "rare classes by, or another description of them: restore the data as they were, "
                "or start another run with --run NAME"
            )
        self._check_code(path, values.get("code"), allowed=code_changed)
        changed_at = values.get("data_changed_at", ())
        if files_changed(self.used, path, values.get("files"), allowed=data_changed):
            changed_at = (*changed_at, values["step"])
        state = {name: values[name] for name in ("step", "student", "teacher")}
        return Resumed(
            state | values["training"],
            values["supervision"],
            values["initial_weights"],
            unfinished=values.get("unfinished", False),
            data_changed_at=changed_at,
        )

    def _not_extended(self, changed: list[str], theirs: Mapping[str, Any], path: Path) -> list[str]:
        """What of the `changed` values is not a declared extension of the run that wrote `path`,
        whose values of `train` are `theirs`."""
        ours, extended = self.plain["train"], ("train.steps", "train.extended_from")
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

    def _check_settings(self, path: Path, stored: Mapping[str, Any]) -> None:
        # A field that the file lacks is younger than the file: without it all was as by default.
        whole = with_defaults(self.experiment, stored)
        # With a plateau the evaluation sets the learning rate.
        watched = self.experiment.train.plateau is not None
        free = tuple(name for name in _FREE if not (watched and name == "evaluation."))
        changed = [name for name in differences(self.plain, whole) if not name.startswith(free)]
        changed = self._not_extended(changed, whole["train"], path)
        require(
            not changed,
            f"{path} was written with other values of {', '.join(changed)}: resume with the "
            "same preset and overrides, or start another run with --run NAME",
        )

    def _check_code(self, path: Path, stored: StoredCode | None, *, allowed: bool) -> None:
        changes = ", ".join(code_changes(stored, self.code))
        if not changes:
            return
        require(
            allowed,
            f"{path} was written with other code: {changes}; restore it, or add --code-changed to "
            "continue with the code as it is now",
        )
        if is_main():
            print(f"the code has changed since {path} was written: {changes}")

    def _given_resume(self, given: Path) -> tuple[Path, dict[str, Any]]:
        path = given / RESUME if given.is_dir() else given
        own = path.absolute().parent == self.path.absolute()
        if not own and self._resume_paths():
            raise InputError(
                f"{self.path} holds a run of its own: --resume without a path continues it; to "
                f"continue from {path}, choose another folder with --run NAME"
            )
        return path, _resumable(path)

    def _resume_paths(self) -> list[Path]:
        return [path for path in (self.path / RESUME, self.path / PREVIOUS) if path.exists()]

    def _check_own_snapshots(self) -> None:
        """Without a resume.pth: the folder has snapshots of this very run, or InputError."""
        found = sorted(self.path.glob(f"{self.data.short_name}_*.pth"))
        require(
            bool(found),
            f"{self.path / RESUME} does not exist: there is nothing to resume; omit --resume",
        )
        snapshot = snapshots.load(found[0])
        self._check_settings(found[0], snapshot.experiment)
        if is_main():
            print(f"{self.path / RESUME} does not exist: the run starts over from step 0")

    def refuse_if_used(self) -> None:
        """Raises InputError when another run has written here."""
        if self._resume_paths():
            raise InputError(
                f"{self.path} holds a run already: add --resume to continue it, or choose another "
                "folder with --run NAME"
            )
        if any(self.path.glob("*.pth")):
            raise InputError(
                f"{self.path} holds snapshots of a run that was stopped before its first {RESUME}: "
                "add --resume to start it over, or choose another folder with --run NAME"
            )

    def opened(self, *, new: bool) -> AbstractContextManager[None]:
        """As `opened_folder`: a `new` run refuses a folder that has been made another's while this
        one was starting."""
        return opened_folder(self.path, self.refuse_if_used if new else None)


def files_changed(
    used: UsedFiles, path: Path, stored: StoredFiles | None, *, allowed: bool
) -> bool:
    """Whether the files of a run are others than those that its resume file `path` has `stored`,
    the same on all ranks. Raises InputError, on all of them, if that is not `allowed`."""
    if stored is None:
        if is_main():
            print(f"remark: {path} does not say of which files: changes would not be noticed")
        return False
    refusal, remark = used.since(stored)
    refusal = any_of(refusal)
    require(
        allowed or not refusal,
        f"since {path} was written, {refusal}: restore the files, or add --data-changed to "
        "continue with the data as they are now",
    )
    if is_main() and (refusal or remark):
        print(f"remark: since {path} was written, {refusal or remark}")
    return bool(refusal)


@contextmanager
def opened_folder(path: Path, refuse_if_used: Callable[[], object] | None) -> Iterator[None]:
    """Makes a run's folder, locks it against other writers, and removes the unfinished files of a
    killed process. A run that turns out to be impossible before it has saved anything leaves no
    folder behind.

    Raises InputError on every rank when another process has the folder, when `refuse_if_used`
    does, which is called once it is locked, or when the disk does not take it.
    """
    with ExitStack() as held:
        fresh = not path.exists()
        refusal = ""
        if is_main():  # the others learn from it whether they may continue
            try:
                with clear_write_errors(path):
                    path.mkdir(parents=True, exist_ok=True)
                remark = held.enter_context(sole_writer(path))
                if remark:
                    print(remark)
                if refuse_if_used is not None:
                    refuse_if_used()
                remove_partial(path)
            except InputError as error:
                refusal = str(error)
        refusal = any_of(refusal)
        require(not refusal, refusal)
        try:
            yield
        except (InputError, Stopped) as error:
            unsaved = fresh and not any(path.glob("*.pth"))
            if is_main() and unsaved and not isinstance(error, WriteError):
                shutil.rmtree(path)
            raise


def _resumable(path: Path) -> dict[str, Any]:
    """The values of a resume.pth; InputError when it is damaged or another kind of snapshot."""
    values = snapshots.read(path)
    require(
        "training" in values and "samples" in values,
        f"{path} is a snapshot to evaluate, without the state of the optimizers: give a {RESUME}",
    )
    return values
