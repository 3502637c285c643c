"""One round of training steps, ours or the plain way: python scripts/benchmark_step.py PRESET WAY

It is a process of its own, so that its peak memory is that of the steps; it prints JSON.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from uda.commands.endings import clear_errors
from uda.data.batch import Batch, View
from uda.experiment import Experiment
from uda.experiments import load_preset
from uda.labels.spaces import CITYSCAPES, IGNORE_INDEX
from uda.models.deeplabv3plus import DeepLabV3PlusConfig
from uda.models.segmenter import SegmentationOutput, Segmenter
from uda.objectives.base import StepContext
from uda.training.run import Run, start_run
from uda.training.step import train_step
from uda.utilities.distributed import device_named, own_batch, process_group
from uda.utilities.host_memory import keep_freed_memory

Way = Literal["plain", "ours"]
PRESETS = ("aagc_640x360_b2", "multi_640x360_lsgan_b2")
_STEPS = 3  # timed ones of a round, after two
DOES_NOT_FIT = 3  # exit status of a process that ran out of the device's memory


def experiment_of(preset: str, *, batch_size: int, quick: bool) -> Experiment:
    """The preset when all its objectives take part, from random weights; `quick` shrinks it."""
    experiment = load_preset(preset)
    experiment.model = experiment.model.without_weights()
    experiment.train.batch_size = batch_size
    experiment.train.warmup_steps = 0  # the plain way has no schedule
    for objective in experiment.objectives.values():
        objective.start_step = 0
    if quick:
        experiment.model = shrunk(experiment.model)
        experiment.data.crop = (64, 128)
    return experiment


def shrunk(model: object) -> DeepLabV3PlusConfig:
    """The same kind of network with a few channels."""
    assert isinstance(model, DeepLabV3PlusConfig), "the presets measured here have no other"
    return replace(
        model,
        backbone="resnet18",
        backbone_width=8,
        aspp_rates=(1, 2),
        aspp_channels=8,
        low_level_channels=4,
        decoder_channels=8,
    )


def synthetic_batch(experiment: Experiment) -> Batch:
    """A batch as the loader hands it over: noise, and labels in blocks, some of them ignored. Of
    several processes each has its share."""
    generator = torch.Generator().manual_seed(0)
    count, (height, width) = experiment.train.batch_size, experiment.data.crop
    ids = torch.tensor([*range(CITYSCAPES.num_classes), IGNORE_INDEX], dtype=torch.uint8)

    def images() -> Tensor:
        size = (count, 3, height, width)
        return torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)

    blocks = ids[torch.randint(0, len(ids), (count, height // 8, width // 8), generator=generator)]
    labels = blocks.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2)
    own = own_batch(count)
    return Batch(
        source_images=images()[own.start : own.stop],
        source_labels=labels[own.start : own.stop],
        target_images=images()[own.start : own.stop],
        target_pseudo_labels=None,
        indices=tuple(own),
        source_names=("source",) * len(own),
        target_names=("target",) * len(own),
    )


def start(experiment: Experiment, way: Way, device: torch.device) -> Run:
    """The run at step 0; the plain one in float32, with channels first and memory as it comes."""
    if way == "plain":
        experiment.train.precision = "float32"
    else:
        keep_freed_memory()
    run = start_run(experiment, num_classes=CITYSCAPES.num_classes, device=device)
    if way == "plain":
        run.student.to(memory_format=torch.contiguous_format)
    return run


def plain_step(run: Run, batch: Batch) -> dict[str, Tensor]:
    """An update as one writes it first: every view forward, then one backward for their sum.

    Returns the losses by name, as `train_step` does. For presets without a teacher.
    """
    batch = _channels_first(batch.to_device(run.device))
    context = StepContext(run.step, run.experiment.train.seed, batch.indices)
    run.student.train()
    for optimizer in run.optimizers.values():
        optimizer.zero_grad(set_to_none=True)
    views = [
        View("source", batch.source_images, batch.source_labels),
        View("target", batch.target_images),
    ]
    for objective in run.objectives.values():
        views += objective.views(batch, context)
    terms: dict[str, Tensor] = {}
    for view in views:
        output = run.student(view.images)
        for name, objective in run.objectives.items():
            if view.name in objective.reads:
                _add(terms, name, objective.terms(view, output, context), objective.config.weight)
    _backward(terms)
    own: dict[str, Tensor] = {}
    for name, objective in run.objectives.items():
        _add(own, name, objective.after_backward(context), 1.0)
    _backward(own)
    for optimizer in run.optimizers.values():
        optimizer.step()
    for objective in run.objectives.values():
        objective.after_step(context)
    run.step += 1
    return {name: value.detach() for name, value in (terms | own).items()}


def _add(terms: dict[str, Tensor], name: str, new: Mapping[str, Tensor], weight: float) -> None:
    terms.update({f"loss/{name}/{term}": weight * value for term, value in new.items()})


def _backward(terms: Mapping[str, Tensor]) -> None:
    if terms:
        torch.stack(list(terms.values())).sum().backward()


def _channels_first(batch: Batch) -> Batch:
    return replace(
        batch,
        source_images=batch.source_images.contiguous(),
        target_images=batch.target_images.contiguous(),
    )


class NetworkClock:
    """The seconds that a student's forward and backward passes take, one view after the other."""

    def __init__(self, student: Segmenter, clock: Callable[[], float]) -> None:
        self.seconds = 0.0
        self._clock = clock
        self._began: float | None = None
        student.register_forward_pre_hook(self._start)
        student.register_forward_hook(self._forward_ends)
        # The backbone's first layer is the last that a gradient reaches.
        student.backbone_parameters()[0].register_post_accumulate_grad_hook(self._stop)

    def _start(self, *_: object) -> None:
        if self._began is None:
            self._began = self._clock()

    def _stop(self, *_: object) -> None:
        assert self._began is not None, "every pass was begun"
        self.seconds += self._clock() - self._began
        self._began = None

    def _forward_ends(self, _: nn.Module, inputs: object, output: SegmentationOutput) -> None:
        self._stop()
        for name, logits in output.tensors().items():
            if name in ("logits", "auxiliary_logits"):
                logits.register_hook(self._backward_begins)

    def _backward_begins(self, gradient: Tensor) -> None:
        self._start()


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """What one process has measured."""

    first_step: float  # seconds from the start of the process to the end of its first step
    step: float  # seconds of a later one, median
    peak: int  # bytes
    # Share of a step that is neither forward nor backward of the student. None where the passes of
    # the views are not told apart: the plain way has one backward, several processes one more.
    outside: float | None


def measure_round(experiment: Experiment, way: Way, device: torch.device, started: float) -> Round:
    """One round in this process, which was started when `time.monotonic` said `started`."""
    step: Callable[[Run, Batch], object] = plain_step if way == "plain" else train_step

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.monotonic()

    run, batch = start(experiment, way, device), synthetic_batch(experiment)
    before = resident("VmRSS")
    step(run, batch)
    first_step = clock() - started
    step(run, batch)  # the optimizers have made their averages, and memory has been had once
    seconds = []
    for _ in range(_STEPS):
        begin = clock()
        step(run, batch)
        seconds.append(clock() - begin)
    peak = _peak_memory(device, before)
    told_apart = way == "ours" and run.exchange is None
    outside = _outside(run, batch, clock) if told_apart else None
    return Round(first_step=first_step, step=median(seconds), peak=peak, outside=outside)


def _outside(run: Run, batch: Batch, clock: Callable[[], float]) -> float:
    inside = NetworkClock(run.student, clock)
    begin = clock()
    train_step(run, batch)
    return 1 - inside.seconds / (clock() - begin)


def _peak_memory(device: torch.device, before: int) -> int:
    """The most bytes held so far: of the device, weights included; of a host, beyond `before`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resident("VmHWM") - before


def resident(name: str) -> int:
    """Resident bytes of this process, "VmRSS" now or "VmHWM" at most.

    Not getrusage: its maximum begins with that of the process that started this one.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = {line.partition(":")[0]: line.partition(":")[2].split() for line in lines}
    return int(fields[name][0]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("preset", choices=PRESETS)
    parser.add_argument("way", choices=get_args(Way))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--started", type=float, default=time.monotonic())
    options = parser.parse_args()
    experiment = experiment_of(options.preset, batch_size=options.batch_size, quick=options.quick)
    try:
        with process_group(device_named(options.device)) as device:
            measured = measure_round(experiment, options.way, device, options.started)
            print(json.dumps({name: getattr(measured, name) for name in Round.__slots__}))
    except torch.OutOfMemoryError:
        sys.exit(DOES_NOT_FIT)


if __name__ == "__main__":
    with clear_errors():
        main()
