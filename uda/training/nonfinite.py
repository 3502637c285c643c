"""Losses that are not finite: noticed late without waiting for the device, told as they were."""

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

Losses = Mapping[str, Tensor]


def is_finite(losses: Losses, gradients: Sequence[Tensor]) -> bool:
    """Whether all of them are, on every rank; waits for the device. The gradients have been
    exchanged, so that one rank knows those of all."""
    loss = mean_over_ranks(torch.stack(list(losses.values())))
    parts = [loss.isfinite().all(), *(gradient.isfinite().all() for gradient in gradients)]
    return bool(torch.stack(parts).all())


class LossWatch:
    """Keeps the losses of every step on their device until somebody looks at them."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._seen: list[tuple[int, Losses]] = []

    def see(self, run: Run, result: StepResult, tracker: Tracker) -> None:
        """Takes the losses of the step just made. A step that was skipped is recorded; the first
        one beyond what is tolerated raises FloatingPointError as `check` does."""
        if not result.skipped:
            self._seen.append((run.step, result.losses))
            return
        values = _on_the_host([result.losses])[0]
        report = self._report(run, run.step, values)
        allowed = run.experiment.train.skip_nonfinite
        if run.skipped > allowed:
            raise FloatingPointError(f"{report}; --skip-nonfinite {allowed} is used up")
        tracker.record_skip(run.step, count=run.skipped, losses=_spelled(values))
        tracker.say(f"skipped, {run.skipped} of at most {allowed}: {report}")

    def check(self, run: Run) -> None:
        """Raises FloatingPointError, the same on all ranks, when a loss since the last check was
        not finite: with the first such step, every term and the batch, which is saved."""
        seen, self._seen = self._seen, []
        found = _on_the_host([losses for _, losses in seen])
        for (step, _), values in zip(seen, found, strict=True):
            if not all(map(math.isfinite, values.values())):
                raise FloatingPointError(
                    f"{self._report(run, step, values)}; nothing was saved since: go on from the "
                    "last resume.pth with the same command and --resume, and with --skip-nonfinite "
                    "1 to leave such a step out"
                )

    def _report(self, run: Run, step: int, values: Mapping[str, float]) -> str:
        """What there is to know of the step that led to `step`; its batch is saved."""
        what = f"a loss is not finite at step {step}: {_spelled(values)}"
        if all(map(math.isfinite, values.values())):
            what = f"a gradient is not finite at step {step}, the losses are: {_spelled(values)}"
        try:
            batch = _whole_batch(self._folder, step, run.experiment.train.batch_size)
            names = _names(batch)
            path = self._save(batch, step, values)
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
            picture = comparison(*_rows(batch, self._folder.data.label_space),
                                 self._folder.data.label_space)  # fmt: skip
            with replacing(path.with_suffix(".png")) as file:
                picture.save(file, format="png")
        return f"{path} (and .png)"


def _on_the_host(steps: Sequence[Losses]) -> list[dict[str, float]]:
    """The losses of some steps as means over the ranks; one wait for the device."""
    flat = [value.float() for losses in steps for value in losses.values()]
    values = iter(mean_over_ranks(torch.stack(flat)).tolist() if flat else ())
    return [{name: next(values) for name in losses} for losses in steps]


def _spelled(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


def _whole_batch(folder: RunFolder, step: int, batch_size: int) -> Batch:
    """The batch, of all ranks, of the update that led to `step`: read again, as it is a function of
    (seed, step)."""
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
