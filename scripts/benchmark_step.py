"""Training steps, ours or the plain way: python scripts/benchmark_step.py PRESET WAY

It is a process of its own, so that its peak memory is that of the steps. It takes a step, and one
more for each line that it reads; for each it prints a line of JSON.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from benchmark_plain import STEPS
from uda.commands.endings import clear_errors
from uda.data.batch import Batch
from uda.experiment import Experiment
from uda.experiments import load_preset
from uda.labels.spaces import CITYSCAPES, IGNORE_INDEX
from uda.models.config import ModelConfig
from uda.models.decoders.daformer import DAFormerConfig
from uda.models.deeplabv3plus import DeepLabV3PlusConfig
from uda.models.encoder_decoder import EncoderDecoderConfig
from uda.models.segmenter import SegmentationOutput, Segmenter
from uda.objectives.class_mix import ClassMixConfig
from uda.training.run import Run, start_run
from uda.training.step import train_step
from uda.utilities.distributed import (
    device_named,
    is_main,
    own_batch,
    process_group,
    sum_over_ranks,
)
from uda.utilities.host_memory import keep_freed_memory

Way = Literal["plain", "ours"]
TrainStep = Callable[[Run, Batch], object]
PRESETS = tuple(STEPS)
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
        for objective in experiment.objectives.values():
            if isinstance(objective, ClassMixConfig):
                objective.ignored_rows = (4, 8)
    return experiment


def shrunk(model: object) -> ModelConfig:
    """The same kind of network with a few channels."""
    if isinstance(model, EncoderDecoderConfig):
        encoder, decoder = replace(model.encoder, name="mit_b0"), model.decoder
        assert isinstance(decoder, DAFormerConfig), "the presets measured here have no other"
        return replace(model, encoder=encoder, decoder=replace(decoder, channels=8))
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
        for optimizer in run.optimizers.values():
            for group in optimizer.param_groups:
                group["fused"] = None
    return run


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
class Step:
    """What one step took."""

    seconds: float  # by the clock; of the first, from the start of the process
    work: float  # seconds of all cores
    peak: int  # bytes at most so far
    # Share of it that is neither forward nor backward of the student. None where the passes of the
    # views are not told apart: the plain way has one backward, several processes one more.
    outside: float | None = None


def steps(
    experiment: Experiment, step: TrainStep, way: Way, device: torch.device, started: float
) -> Generator[Step, None, None]:
    """Steps in this process, which was started when `time.monotonic` said `started`."""

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.monotonic()

    run, batch = start(experiment, way, device), synthetic_batch(experiment)
    before = resident("VmRSS")
    told_apart = way == "ours" and run.exchange is None
    inside = NetworkClock(run.student, clock) if told_apart else None
    begin = started
    while True:
        worked = time.process_time()
        if inside is not None:
            inside.seconds = 0.0
        step(run, batch)
        took = clock() - begin
        outside = None if inside is None or begin == started else 1 - inside.seconds / took
        peak = _peak_memory(device, before)
        yield Step(seconds=took, work=time.process_time() - worked, peak=peak, outside=outside)
        begin = clock()


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


def asked_for_more() -> bool:
    """Whether the first process, which alone can be written to, has read another line."""
    found = torch.tensor(bool(sys.stdin.readline()) if is_main() else False, dtype=torch.int64)
    return bool(sum_over_ranks(found))


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
            step = STEPS[options.preset] if options.way == "plain" else train_step
            for taken in steps(experiment, step, options.way, device, options.started):
                if is_main():
                    print(json.dumps(asdict(taken)), flush=True)
                if not asked_for_more():
                    break
    except torch.OutOfMemoryError:
        sys.exit(DOES_NOT_FIT)


if __name__ == "__main__":
    with clear_errors():
        main()
