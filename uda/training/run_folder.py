"""The files that a run writes into its folder."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uda.checkpoints import snapshots
from uda.checkpoints.snapshots import Snapshot
from uda.data.training import TrainingData
from uda.data.used_files import StoredFiles
from uda.utilities.distributed import is_main
from uda.utilities.user_code import StoredCode

RESUME = "resume.pth"
PREVIOUS = "resume.previous.pth"  # what `resume.pth` was before it was last replaced


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Writes a run's snapshots and its resume.pth, and knows what they say of the run."""

    path: Path
    preset: str
    experiment: dict[str, Any]  # plain values
    data: TrainingData
    code: StoredCode | None
    supervision: str
    initial_weights: str
    files: StoredFiles | None = None  # that the run is made with
    data_changed_at: tuple[int, ...] = ()  # steps from which on these were known to be others

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
        """Replaces `resume.pth`: a snapshot with all that training changes, and whether records of
        its step are `unfinished`. The file before it becomes the previous one."""
        if not is_main():
            return
        values = snapshots.snapshot_values(self._snapshot(state, None))
        moved = ("objectives", "optimizers", "skipped", "plateau", "loss_scale")
        values["training"] = {name: state[name] for name in moved}
        values["samples"] = samples_digest(self.data)
        values["unfinished"] = unfinished
        if self.files is not None:
            values["files"] = self.files
        if self.data_changed_at:
            values["data_changed_at"] = self.data_changed_at
        snapshots.save(values, self.path / RESUME, keep=self.path / PREVIOUS)

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
            code=self.code,
        )


def samples_digest(data: TrainingData) -> str:
    """Changes when an image is added or removed, as that changes the order of samples; when the
    pseudo-labels are rewritten; when a file describes its data set in another way; when a data set
    is translated in another way; and when rare classes are sampled by other counts of pixels."""
    dataset = data.dataset
    names = [sample.name for domain in (dataset.source, dataset.target) for sample in domain]
    if dataset.pseudo_labels is not None:
        names.append(repr(dataset.pseudo_labels.manifest))
    names += filter(None, data.described)
    names += [translation.digest for translation in data.translations]
    names += [rare.digest for rare in dataset.rare_classes]
    return hashlib.sha256("\n".join(names).encode()).hexdigest()
