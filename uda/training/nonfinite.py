"""Losses, gradients and weights that are not finite: found without a wait in every step, and
reported in full before anything is saved or scored."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uda.checkpoints.snapshots import save
from uda.data.batch import Batch
from uda.data.sampling import collate
from uda.labels.spaces import LabelSpace
from uda.prediction.pictures import Picture, comparison
from uda.training.run import Run, StepResult
from uda.training.run_folder import RunFolder
from uda.training.tracking import Tracker
from uda.utilities.atomic_files import clear_write_errors, replacing
from uda.utilities.distributed import is_main, mean_over_ranks
from uda.utilities.errors import InputError
from uda.utilities.tensor_values import counted, not_finite

Losses = Mapping[str, Tensor]
_GRADIENT = "gradient norm"  # beside the losses, whose names have slashes
_ADVICE = (
    "nothing was saved since: resume from the last resume.pth with the same command and --resume, "
    "and add --skip-nonfinite 1 to skip such a step"
)


def is_finite(losses: Losses, gradients: Sequence[Tensor]) -> bool:
    """Whether all of them are finite on every rank; waits for the device. The gradients were
    exchanged before, so every rank has the mean over all of them."""
    loss = mean_over_ranks(torch.stack(list(losses.values())))
    parts = [loss.isfinite().all(), *(gradient.isfinite().all() for gradient in gradients)]
    return bool(torch.stack(parts).all())


class FiniteCheck:
    """Keeps the losses of a run's steps on their device until the next check reads them."""

    def __init__(self, run: Run, folder: RunFolder, tracker: Tracker) -> None:
        self._run = run
        self._folder = folder
        self._tracker = tracker
        self._unchecked: list[tuple[int, Losses]] = []  # with the norm of the gradients

    def add(self, result: StepResult) -> None:
        """Takes the losses of the step just made. A skipped step is recorded; the first one more
        than --skip-nonfinite allows raises FloatingPointError as `check` does."""
        run = self._run
        if not result.skipped:
            gradient_norm = result.gradient_norm
            seen = {} if gradient_norm is None else {_GRADIENT: gradient_norm}
            self._unchecked.append((run.step, {**result.losses, **seen}))
            return
        values = on_the_host([result.losses])[0]
        report = self._report(run.step, values)
        allowed = run.experiment.train.skip_nonfinite
        if run.skipped > allowed:
            used_up = f"--skip-nonfinite {allowed} is used up" if allowed else _ADVICE
            raise FloatingPointError(f"{report}; {used_up}")
        self._tracker.record_skip(run.step, count=run.skipped, losses=spelled(values))
        self._tracker.say(f"skipped, {run.skipped} of at most {allowed}: {report}")

    def check(self, *, weights: bool = False) -> None:
        """Raises FloatingPointError, the same on all ranks, when a loss or gradient since the last
        check was not finite: with the first such step, every term and the batch, which is saved.

        `weights`: also when a weight, or what an optimizer keeps for it, is not finite now. That
        comes before anything is saved or scored: good files must not be replaced.
        """
        unchecked, self._unchecked = self._unchecked, []
        found = on_the_host([losses for _, losses in unchecked])
        for (step, _), values in zip(unchecked, found, strict=True):
            if not all(map(math.isfinite, values.values())):
                raise FloatingPointError(f"{self._report(step, values)}; {_ADVICE}")
        if places := self._places() if weights else []:
            raise FloatingPointError(
                f"after step {self._run.step}, {counted(places)} not finite, though all losses and "
                f"gradients were: lower the learning rate, train.optimizer.lr; {_ADVICE}"
            )

    def _places(self) -> list[str]:
        """The weights that are not finite now, or what the optimizers keep for them. Objectives may
        use infinity."""
        run = self._run
        networks = {"student": run.student.state_dict()}
        if run.teacher is not None:
            networks["teacher"] = run.teacher.network.state_dict()
        kept = [list(optimizer.state.values()) for optimizer in run.optimizers.values()]
        return not_finite([networks, kept])

    def _report(self, step: int, values: Mapping[str, float]) -> str:
        """All that is known about the update that led to `step`; its batch is saved."""
        losses = {name: value for name, value in values.items() if name != _GRADIENT}
        what = f"a loss is not finite at step {step}: {spelled(losses)}"
        if all(map(math.isfinite, losses.values())):
            what = f"a gradient is not finite at step {step}, the losses are: {spelled(losses)}"
        try:
            batch = _whole_batch(self._folder, step, self._run.experiment.train.batch_size)
            names = _names(batch)
            path = self._save(batch, step, losses)
        except InputError as error:
            return f"{what}; its batch cannot be shown: {error}"
        return f"{what}; its batch, in {path}: {names}"

    def _save(self, batch: Batch, step: int, values: Mapping[str, float]) -> str:
        folder = self._folder.path / "nonfinite"
        path = folder / f"step_{step}.pth"
        if is_main():
            with clear_write_errors(folder):
                folder.mkdir(exist_ok=True)
            tensors = {field.name: getattr(batch, field.name) for field in fields(batch)}
            save({"step": step, "losses": dict(values)} | tensors, path)
            space = self._folder.data.label_space
            picture = comparison(*_rows(batch, space), space)
            with replacing(path.with_suffix(".png")) as file:
                picture.save(file, format="png")
        return f"{path} (and .png)"


def on_the_host(steps: Sequence[Losses]) -> list[dict[str, float]]:
    """The losses of some steps as means over the ranks; one wait for the device."""
    flat = [value.float() for losses in steps for value in losses.values()]
    values = iter(mean_over_ranks(torch.stack(flat)).tolist() if flat else ())
    return [{name: next(values) for name in losses} for losses in steps]


def spelled(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


def _whole_batch(folder: RunFolder, step: int, batch_size: int) -> Batch:
    """The batch, of all ranks, of the update that led to `step`: it is read again, since it is a
    function of (seed, step)."""
    dataset = folder.data.dataset
    batch = collate([dataset[k] for k in range((step - 1) * batch_size, step * batch_size)])
    if isinstance(batch, InputError):
        raise batch
    return batch


def _names(batch: Batch) -> str:
    names = {"source": batch.source_names, "target": batch.target_names}
    return ", ".join(f"{name} {', '.join(of)}" for name, of in names.items() if any(of))


def _rows(batch: Batch, label_space: LabelSpace) -> tuple[list[list[Picture]], list[str]]:
    """A row of pictures for each sample, and the title of each column."""

    def images(tensor: Tensor) -> list[Picture]:
        return list(tensor.permute(0, 2, 3, 1).numpy())

    def labels(tensor: Tensor | None) -> list[Picture]:
        return [] if tensor is None else [*map(label_space.colorize, tensor.numpy().astype(int))]

    columns: dict[str, Any] = {
        "source": images(batch.source_images),
        "source labels": labels(batch.source_labels),
        "target": images(batch.target_images),
        "pseudo-labels": labels(batch.target_pseudo_labels),
        "target labels": labels(batch.target_ground_truth),
    }
    shown = {title: pictures for title, pictures in columns.items() if len(pictures)}
    rows = [list(row) for row in zip(*shown.values(), strict=True)]
    return [[np.ascontiguousarray(picture) for picture in row] for row in rows], list(shown)
