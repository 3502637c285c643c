"""What a run shows: progress bar, metrics.jsonl, TensorBoard."""

import math
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from uda.data.batch import View
from uda.evaluation.inference import Prediction
from uda.evaluation.metrics import Scores
from uda.evaluation.views import Views
from uda.labels.spaces import IGNORE_INDEX, LabelSpace
from uda.optim.plateau import Plateau
from uda.training.metrics_file import drop_lines_after, entries_of
from uda.training.monitors import Figures, Monitor
from uda.utilities.atomic_files import clear_write_errors
from uda.utilities.distributed import is_main, mean_over_ranks
from uda.utilities.errors import WriteError
from uda.utilities.sealed_json import checked_line

T = TypeVar("T")


def progress_bar(
    items: Iterable[T], *, total: int, description: str, initial: int = 0
) -> "tqdm[T]":
    """A bar over `items`, or one to move by hand when there are none.

    Where output does not go to a terminal, it is a line every ten seconds, and none before that: an
    error that ends a command at once is then the only line.
    """
    terminal = sys.stderr.isatty()
    seconds = 0.2 if terminal else 10.0
    return tqdm(
        items, total=total, desc=description, initial=initial, unit="img", dynamic_ncols=True,
        mininterval=seconds, delay=seconds, disable=not is_main(),
        file=sys.stderr if terminal else _Lines(),
    )  # fmt: skip


class _Lines:
    """Standard error, for bars in a log: each state is a line of its own. Behind the carriage
    returns that a terminal wants, a log would hide what else is printed."""

    def write(self, text: str) -> None:
        if line := text.strip():
            sys.stderr.write(f"{line}\n")

    def flush(self) -> None:
        sys.stderr.flush()


_PANEL_HEIGHT = 512  # pixels of a picture in TensorBoard


class Tracker:
    """Writes a run's losses and scores below its folder and draws the progress bar."""

    def __init__(
        self,
        folder: Path,
        *,
        name: str,
        steps: int,
        first_step: int,
        batch_size: int,
        unfinished: bool = False,
    ) -> None:
        """Continues the records at `first_step`: what an interrupted run wrote beyond it is
        removed, and so are its scores of that step if the step is `unfinished`."""
        self._batch_size = batch_size
        self._metrics = folder / "metrics.jsonl"
        self._monitor = Monitor(steps=steps)
        self._writer: SummaryWriter | None = None  # only the first process writes
        if is_main():
            with clear_write_errors(self._metrics):
                drop_lines_after(self._metrics, first_step, unfinished=unfinished)
                for line in self.lines():
                    if "predicted_on" in line:
                        self._monitor.warnings_after(line["step"], line)
                self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step + 1)
        self._bar: tqdm[None] = progress_bar(
            (),
            total=steps * batch_size,
            description=name,
            initial=first_step * batch_size,
        )
        self._timed_from = (time.perf_counter(), first_step)

    def __enter__(self) -> Self:
        self._hook = threading.excepthook
        threading.excepthook = self._hear_thread
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._bar.close()
        if self._writer is None:
            threading.excepthook = self._hook
            return
        try:
            with clear_write_errors(self._metrics.with_name("tensorboard")):
                self._writer.close()
        except WriteError:
            if kind is None:  # otherwise the error being raised says more
                raise
        finally:
            threading.excepthook = self._hook

    def _hear_thread(self, error: threading.ExceptHookArgs) -> None:
        """Hides the traceback of TensorBoard's thread: its next write raises the error here."""
        if not isinstance(error.exc_value, OSError):
            self._hook(error)

    def say(self, text: str) -> None:
        """Prints lines without breaking the bar."""
        if sys.stderr.isatty():
            self._bar.write(text, file=sys.stdout)
        else:
            print(text, flush=True)

    def advance(self) -> None:
        """Moves the bar by one step."""
        self._bar.update(self._batch_size)

    def log(self, step: int, losses: Mapping[str, Tensor], *, lr: float) -> None:
        """Records the losses of the update that led to `step`.

        Reading them back is one of the few times the loop waits for the device.
        """
        names = list(losses)
        found = mean_over_ranks(torch.stack([losses[name] for name in names]))
        values = dict(zip(names, found.tolist(), strict=True))
        now = time.perf_counter()
        rate = (step - self._timed_from[1]) * self._batch_size / (now - self._timed_from[0])
        self._timed_from = (now, step)
        self._record(step, {"lr": lr, "images_per_second": rate} | values)
        shown = {name.split("/", 1)[-1]: f"{value:.3f}" for name, value in values.items()}
        self._bar.set_postfix(shown, refresh=False)

    def record_figures(self, step: int, figures: Figures) -> None:
        """Records the figures of the update that led to `step`, and warns of a collapse."""
        warnings = self._monitor.warnings_after(step, figures.numbers | figures.words)
        words = figures.words | {f"warning/{kind}": text for kind, text in warnings.items()}
        self._record(step, figures.numbers, **words)
        for text in warnings.values():
            self.say(f"step {step}: warning: {text}")

    def record_scores(
        self,
        step: int,
        scores: Scores,
        names: Sequence[str],
        *,
        protocol: str,
        facts: Mapping[str, object],
    ) -> None:
        """Records the scores of an evaluation by `protocol`, and the values and warnings among its
        `facts`, all scores as fractions; NaN, that of an absent class, is left out."""
        values = {"miou": scores.miou} | {
            f"iou/{name}": iou for name, iou in zip(names, scores.iou, strict=True)
        }
        for name, fact in facts.items():
            value = fact.get("value") if isinstance(fact, Mapping) else None
            if isinstance(value, float):
                values[f"measure/{name}"] = value / 100  # facts are in percent
        sets = facts.get("sets", {})
        assert isinstance(sets, Mapping)
        for name, fact in sets.items():
            if fact["value"] is not None:
                values[f"set/{name}"] = fact["value"] / 100
        numbers = {name: v for name, v in values.items() if not math.isnan(v)}
        warnings = {name: fact for name, fact in facts.items() if isinstance(fact, str)}
        self._record(step, numbers, protocol=protocol, **warnings)
        self._timed_from = (time.perf_counter(), step)  # evaluation is not training time

    def record_skip(self, step: int, *, count: int, losses: str) -> None:
        """Records that the update that would have led to `step` was skipped because of its
        `losses`, as the `count`-th of the run."""
        self._record(step, {"skipped": count}, losses=losses)

    def record_label_free(self, step: int, criteria: Mapping[str, float]) -> None:
        """Records the label-free criteria of an evaluation, if there are any."""
        known = {f"label_free/{n}": v for n, v in criteria.items() if not math.isnan(v)}
        if known:
            self._record(step, known)
        self._timed_from = (time.perf_counter(), step)

    def record_plateau(self, step: int, value: float, plateau: Plateau) -> None:
        """Records the `value` that the plateau took from an evaluation, and its state since."""
        numbers = {plateau.config.watches: value, "best": plateau.best, "bad": plateau.bad,
                   "factor": plateau.factor}  # fmt: skip
        known = {n: v for n, v in numbers.items() if v is not None and not math.isnan(v)}
        self._record(step, {f"plateau/{name}": value for name, value in known.items()})

    def lines(self) -> list[dict[str, Any]]:
        """What has been recorded so far; only the first process has it."""
        return [entry for _, entry in entries_of(self._metrics) if entry is not None]

    def picture(self, step: int, name: str, rows: Tensor) -> None:
        """Adds an image panel (3, H, W) float RGB in [0, 1]."""
        if self._writer is not None:
            with clear_write_errors(self._metrics.with_name("tensorboard")):
                self._writer.add_image(name, rows, step)

    def _record(self, step: int, values: Mapping[str, float], **words: str) -> None:
        if self._writer is None:
            return
        with clear_write_errors(self._metrics):
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)
            with self._metrics.open("a") as file:
                file.write(checked_line({"step": step} | words | dict(values)) + "\n")


def view_panel(views: Sequence[View], label_space: LabelSpace) -> Tensor:
    """The first sample of each view next to its labels, one row per view: (3, rows*H, 2*W). Views
    of other sizes have rows of their own height, and black pixels to the right of the narrower."""
    rows = []
    for view in views:
        image = view.images[0].detach().float().cpu()
        labels = (
            torch.full(image.shape[1:], IGNORE_INDEX) if view.labels is None else view.labels[0]
        )
        rows.append(torch.cat([image, _colors(labels, label_space)], dim=2))
    width = max(row.shape[2] for row in rows)
    return torch.cat([F.pad(row, (0, width - row.shape[2])) for row in rows], dim=1)


def prediction_panel(found: Iterable[tuple[Views, Prediction]], label_space: LabelSpace) -> Tensor:
    """Images next to their labels and the predictions, one row each: (3, rows*h, 3*w).

    found: labeled images with their predictions; all are shown in the size of the first, reduced to
    at most 512 pixels of height
    """
    rows: list[Tensor] = []
    for views, prediction in found:
        assert views.labels is not None, "validation samples are labeled"
        if not rows:
            height, width = views.images[0].shape[1:]
            reduction = math.ceil(height / _PANEL_HEIGHT)
            size = (height // reduction, width // reduction)
        image = F.interpolate(views.images[0][None].float().div(255), size, mode="area")[0]
        maps = torch.stack([views.labels.long(), prediction.labels.cpu()])[None].float()
        labels, predictions = F.interpolate(maps, size, mode="nearest")[0].long()
        columns = [_colors(labels, label_space), _colors(predictions, label_space)]
        rows.append(torch.cat([image, *columns], dim=2))
    return torch.cat(rows, dim=1)


def _colors(labels: Tensor, label_space: LabelSpace) -> Tensor:
    """Palette colors (3, H, W) float in [0, 1] of train ids (H, W)."""
    colors = label_space.colorize(labels.cpu().numpy().astype(np.int64))
    return torch.from_numpy(colors).permute(2, 0, 1).float().div(255)
