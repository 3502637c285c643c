"""Steps of a preset at full size on generated images: memory and time, before a run of days."""

import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, runtime_checkable

import torch
from torch import Tensor

from uda.data.batch import Batch
from uda.data.config import DomainConfig
from uda.data.registry import layout_named
from uda.experiment import Experiment
from uda.labels.spaces import IGNORE_INDEX
from uda.training.run import Run, start_run
from uda.training.step import train_step
from uda.utilities.config_tree import differences, to_plain
from uda.utilities.distributed import check_batch_size, own_batch, world_size
from uda.utilities.errors import require
from uda.utilities.host_memory import keep_freed_memory, saying_what_to_lower

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_Config = TypeVar("_Config", bound="DataclassInstance")
_MEASURED = 3  # steps, after one that is not
_BLOCK = 32  # sides of the squares of one class, in pixels
GIB = 2**30


@runtime_checkable
class HasWeights(Protocol):
    """Settings of a network that can start from a file."""

    def without_weights(self) -> Self:
        """The same network from random weights."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What the steps of a preflight have taken."""

    network: int  # parameters of the student
    trained: int  # those that learn, of the student
    others: int  # parameters of the teacher and of the objectives' networks
    allocated: int  # bytes at most: of the device; on a CPU, of the whole process
    reserved: int | None  # bytes at most that torch has taken from the device; None on a CPU
    first: float  # seconds of the first step
    seconds: tuple[float, ...]  # of each later one

    @property
    def step(self) -> float:
        """Seconds of a step: the median."""
        return median(self.seconds)


def preflight(experiment: Experiment, *, device: torch.device, measured: int = _MEASURED) -> str:
    """Makes steps of `experiment` on `device`, one and then `measured` more, and says what they
    took, one fact a line.

    The steps are those in which every objective takes part. Images and labels are generated, and
    all networks start from random weights: no data set or file of weights is opened, and nothing
    is written. Raises InputError, with what to lower, when the device's memory is too small.
    """
    require(experiment.train.steps > 0, "train.steps is 0: there is no step to preflight")
    check_batch_size(experiment.train.batch_size)
    reduced, left_out = _without_files(experiment)
    if device.type == "cpu":
        keep_freed_memory()
    else:
        torch.cuda.reset_peak_memory_stats(device)
    with saying_what_to_lower(partial(too_large, experiment, device)):
        num_classes = layout_named(experiment.evaluation.dataset).label_space.num_classes
        found = measure_steps(reduced, num_classes=num_classes, device=device, measured=measured)
    return "\n".join(_lines(experiment, device, found, left_out))


def generated_batch(experiment: Experiment, *, num_classes: int, step: int) -> Batch:
    """What the loader would hand over in `step`, of the preset's sizes: noise, and labels in
    squares of one class, some of them ignored. Of several processes, each gets its part."""
    data, train = experiment.data, experiment.train
    own = own_batch(train.batch_size)
    generator = torch.Generator().manual_seed(step)
    classes = torch.tensor([*range(num_classes), IGNORE_INDEX], dtype=torch.uint8)

    def images(present: DomainConfig | None) -> Tensor:
        size = (0 if present is None else len(own), 3, *data.crop_of(present))
        return torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)

    def labels(present: DomainConfig | None) -> Tensor:
        height, width = data.crop_of(present)
        cells = (0 if present is None else len(own), -(-height // _BLOCK), -(-width // _BLOCK))
        squares = classes[torch.randint(0, len(classes), cells, generator=generator)]
        large = squares.repeat_interleave(_BLOCK, dim=1).repeat_interleave(_BLOCK, dim=2)
        return large[:, :height, :width].contiguous()

    borders = data.target is not None and data.target.ignored_borders is not None
    valid = torch.ones(len(own), *data.crop_of(data.target), dtype=torch.bool) if borders else None
    first = step * train.batch_size
    return Batch(
        source_images=images(data.source),
        source_labels=labels(data.source),
        target_images=images(data.target),
        target_pseudo_labels=None if data.pseudo_labels is None else labels(data.target),
        indices=tuple(first + place for place in own),
        source_names=("generated",) * len(own),
        target_names=("generated",) * len(own),
        target_ground_truth=labels(data.target) if data.target_ground_truth else None,
        target_second_images=None if data.second_target_view is None else images(data.target),
        target_valid=valid,
    )


def _without_files(experiment: Experiment) -> tuple[Experiment, list[str]]:
    """The experiment with random weights, and the settings that would have opened a file."""
    objectives: dict[str, Any] = {n: _random(o) for n, o in experiment.objectives.items()}
    random = replace(
        experiment,
        model=_random(experiment.model),
        objectives=objectives,
        train=replace(experiment.train, initial_snapshot=None),
    )
    before = to_plain(experiment)
    left_out = [f"{n}={_value(before, n)}" for n in differences(before, to_plain(random))]
    random.train.restart = None
    random.train.log_every = random.train.steps + 2 * _MEASURED  # of most steps, nothing is counted
    return random, left_out


def _random(config: _Config) -> _Config:
    """The settings with those of every network in them from random weights."""
    if isinstance(config, HasWeights):
        return config.without_weights()
    nested: dict[str, Any] = {
        field.name: _random(value)
        for field in fields(config)
        if is_dataclass(value := getattr(config, field.name)) and not isinstance(value, type)
    }
    return replace(config, **nested)


def _value(plain: Mapping[str, Any], name: str) -> object:
    """The value at a dotted name."""
    outer, _, inner = name.partition(".")
    return _value(plain[outer], inner) if inner else plain[outer]


def measure_steps(
    experiment: Experiment, *, num_classes: int, device: torch.device, measured: int
) -> Measured:
    """What steps of `experiment` on generated images take, after one that is not counted."""
    run = start_run(experiment, num_classes=num_classes, device=device)
    _begin(run)
    seconds = []
    for _ in range(1 + measured):
        batch = generated_batch(experiment, num_classes=num_classes, step=run.step)
        begin = _clock(device)
        train_step(run, batch)
        seconds.append(_clock(device) - begin)
    everything = sum(p.numel() for network in run.networks() for p in network.parameters())
    of_student = [(p.numel(), p.requires_grad) for p in run.student.parameters()]
    network = sum(count for count, _ in of_student)
    on_gpu = device.type == "cuda"
    return Measured(
        network=network,
        trained=sum(count for count, learns in of_student if learns),
        others=everything - network,
        allocated=torch.cuda.max_memory_allocated(device) if on_gpu else _peak_of_process(),
        reserved=torch.cuda.max_memory_reserved(device) if on_gpu else None,
        first=seconds[0],
        seconds=tuple(seconds[1:]),
    )


def _begin(run: Run) -> None:
    """Lets objectives look at first batches, and goes to the first step that has all of them."""
    experiment = run.experiment
    for objective in run.objectives.values():
        count = objective.config.first_batches()
        if count:
            batches = (
                generated_batch(experiment, num_classes=run.num_classes, step=step)
                for step in range(count)
            )
            objective.before_first_step(run.student, (b.to_device(run.device) for b in batches))
    run.step = max((c.start_step for c in experiment.objectives.values()), default=0)


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _peak_of_process() -> int:
    """Bytes of this process at most. Where Linux says so, without those of the program that started
    it, which `getrusage` begins with."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = (line.split() for line in status.read_text().splitlines())
        return next(1024 * int(words[1]) for words in lines if words[:1] == ["VmHWM:"])
    import resource  # not on every system

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _images_of(experiment: Experiment) -> Iterator[str]:
    """How many images of each domain a batch has, and their size."""
    data, count = experiment.data, experiment.train.batch_size
    sizes = {
        name: data.crop_of(domain)
        for name, domain in (("source", data.source), ("target", data.target))
        if domain is not None
    }
    shared = len(set(sizes.values())) == 1
    for place, (name, (height, width)) in enumerate(sizes.items(), 1):
        last = place == len(sizes)
        size = f" images of {width}x{height}" if last or not shared else ""
        yield f"{count} {name}{size}"


def _lines(
    experiment: Experiment, device: torch.device, found: Measured, left_out: list[str]
) -> Iterator[str]:
    train, evaluation = experiment.train, experiment.evaluation
    images = " + ".join(_images_of(experiment))
    processes = f", {world_size()} processes" if world_size() > 1 else ""
    yield "preflight        generated images and labels: no data set is opened, and the time to"
    yield "                 read and augment images is not in these figures; nothing is written"
    yield f"device           {_name(device)}{processes}"
    yield f"precision        {train.precision}"
    yield f"batch            {images}"
    yield f"objectives       {', '.join(experiment.objectives)}: all take part"
    yield (
        f"network          {experiment.model.title}, {found.network / 1e6:.2f} M parameters, "
        f"{found.trained / 1e6:.2f} M trained"
    )
    if found.others:
        yield f"                 {found.others / 1e6:.2f} M more in teacher and objectives"
    for setting in left_out:
        yield f"                 randomly initialized instead of {setting}"
    if found.reserved is None:
        yield f"peak memory      {found.allocated / GIB:.2f} GiB, of the whole process on the CPU"
    else:
        yield (
            f"peak memory      {found.allocated / GIB:.2f} GiB allocated, "
            f"{found.reserved / GIB:.2f} GiB reserved"
        )
    yield (
        f"seconds per step {found.step:.3f} (median of {len(found.seconds)}: "
        f"{min(found.seconds):.3f} to {max(found.seconds):.3f}; the first took {found.first:.2f})"
    )
    times = -(-train.steps // evaluation.every) if evaluation.every else 0
    hours = found.step * train.steps / 3600
    yield (
        f"expected         {hours:.{1 if hours >= 1 else 2}f} hours for {train.steps} steps; "
        f"evaluation ({times} times) is not in it"
    )


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, threads of torch: {torch.get_num_threads()}"


def too_large(experiment: Experiment, device: torch.device, batch: str = "") -> str:
    """That a step, with a `batch` of these images, does not fit into the device's memory, and what
    to lower."""
    size = ""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        size = f" of {total / GIB:.1f} GiB"
    return (
        f"a step{batch} does not fit into the memory of {_name(device)}{size}; lower one of these: "
        + "; ".join(_to_lower(experiment))
    )


def _to_lower(experiment: Experiment) -> Iterator[str]:
    train, data = experiment.train, experiment.data
    if train.precision == "float32":
        yield "--set train.precision=bfloat16"
    if getattr(getattr(experiment.model, "encoder", None), "checkpointing", None) is False:
        yield "--set model.encoder.checkpointing=true (slower, the same gradients)"
    smaller = max(train.batch_size // 2 // world_size(), 1) * world_size()
    if smaller < train.batch_size:
        yield f"--set train.batch_size={smaller} (another run: fewer images per step)"
    own = {"data.source.crop": data.source and data.source.crop,
           "data.target.crop": data.target and data.target.crop}  # fmt: skip
    for name, crop in ({n: c for n, c in own.items() if c} or {"data.crop": data.crop}).items():
        yield f"--set {name}={crop[0] // 2},{crop[1] // 2} (another run: smaller crops)"
