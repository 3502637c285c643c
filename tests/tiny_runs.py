"""Presets shrunk to a fraction of a second per step, and what their runs leave behind."""

import copy
import os
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from _pytest.mark import ParameterSet
from torch import Tensor

from trials import write_random_pseudo_labels
from uda.data.batch import Batch
from uda.data.config import DataConfig
from uda.data.registry import list_dataset
from uda.experiment import Experiment
from uda.experiments import PRESETS, load_preset
from uda.labels.spaces import CITYSCAPES, IGNORE_INDEX
from uda.models.config import ModelConfig
from uda.models.decoders.base import HeadNorm
from uda.models.deeplabv2 import DeepLabV2Config
from uda.models.deeplabv3plus import DeepLabV3PlusConfig
from uda.models.encoder_decoder import EncoderDecoderConfig
from uda.models.segmenter import BatchNormMode
from uda.objectives.distillation import DistillationConfig
from uda.objectives.fourier import FourierConfig
from uda.objectives.frozen_distance import FrozenDistanceConfig
from uda.training import loop as engine
from uda.training.run import Run, StepResult, start_run
from uda.training.step import train_step
from uda.utilities.config_tree import to_plain
from uda.utilities.sealed_json import line_values

REPOSITORY = Path(__file__).resolve().parents[1]
CROP = (64, 128)  # pixels (height, width)
CPU = torch.device("cpu")
# Presets that learn from target labels, by hand: a new one has to be put here by somebody.
SUPERVISED_BY_TARGET = (
    *(f"{prefix}cityscapes_seg{size}" for prefix in ("", "logged_")
      for size in ("", "_d2000", "_d1000", "_d500", "_d100")),
    *(f"logged_aagc_640x360_b2_single_cutmix{name}"
      for name in ("", "_real", "_real_d1000", "_real_d500", "_real_d100", "_student",
                   "_student_gt")),
    "aagc_640x360_b2_single_cutmix_student",
    "aagc_640x360_b2_single_cutmix_student_gt",
    "aagc_640x360_b2_mixed_d500",
    "segmentron_deeplabv3plus_r101_cityscapes",
    "toy_cut_mix_ground_truth",
    "toy_oracle",
    "unimatch_v2_d186",
)  # fmt: skip
EVALUATION_ONLY = ("logged_segmentron_deeplabv3plus_r101_cityscapes",)


def tiny_preset(name: str, root: Path, *, steps: int = 6) -> Experiment:
    """The preset `name` on the toy city at `root`: its objectives, batch norm and augmentations
    with a small network and small images. Warm-up and what starts late take a third of the steps.

    A preset with pseudo-labels reads them from `root.parent / "pseudo_labels"`, which is written
    if need be, and starts from no snapshot.
    """
    experiment = _shrunk(load_preset(name), steps=steps)
    experiment.data.root = str(root)
    if experiment.data.pseudo_labels is not None:
        experiment.data.pseudo_labels = str(root.parent / "pseudo_labels")
        write_pseudo_labels(Path(experiment.data.pseudo_labels), root)
    return experiment


def _shrunk(experiment: Experiment, *, steps: int) -> Experiment:
    data = experiment.data
    data.root, data.crop, data.workers = "", CROP, 0
    data.pseudo_labels = None if data.pseudo_labels is None else "pseudo_labels"
    for domain in (data.source, data.target):
        if domain is not None:
            domain.size, domain.splits, domain.crop = (88, 176), ("train",), None
            domain.first = None if domain.first is None else 4
    if data.rare_classes is not None:
        data.rare_classes.min_pixels, data.rare_classes.min_crop_pixels = 500, 50
    experiment.model = _shrunk_model(experiment.model)
    for objective in experiment.objectives.values():
        objective.start_step = min(objective.start_step, steps // 3)
        if isinstance(objective, FrozenDistanceConfig):  # of the student, without a file
            objective.encoder, objective.weights, objective.size = None, "none", None
        if isinstance(objective, DistillationConfig):  # of the student, without a file
            objective.network = None
        if isinstance(objective, FourierConfig):
            objective.band = 0.05  # of 64 pixels, 0.01 is less than one frequency
    train = experiment.train
    train.steps, train.batch_size = steps, 2
    train.warmup_steps = min(train.warmup_steps, steps // 3)
    if train.restart is not None:
        train.restart.at_step = steps // 2
    train.initial_snapshot = None
    train.log_every, train.snapshot_every, train.resume_every = 1, steps, steps
    experiment.evaluation.every, experiment.evaluation.input_size = steps, CROP
    return experiment


def _shrunk_model(config: ModelConfig) -> ModelConfig:
    """The same kind of network with a few channels per layer, from random weights."""
    if isinstance(config, DeepLabV2Config):
        rates = (1, 2, 3, 4)[: config.aspp_branches] + config.aspp_rates[config.aspp_branches :]
        return replace(config, backbone="resnet18", backbone_weights="none", backbone_width=8,
                       aspp_rates=rates)  # fmt: skip
    if isinstance(config, DeepLabV3PlusConfig):
        head = config.auxiliary_head
        model = tiny_model(config.batch_norm, config.head_norm, auxiliary_head=head)
        return replace(model, separable=config.separable)
    if isinstance(config, EncoderDecoderConfig):
        return _shrunk_encoder_decoder(config)
    small: dict[str, Any] = {
        "backbone": "resnet18", "backbone_weights": "none", "backbone_width": 8,
    }  # fmt: skip
    return replace(config, **{n: v for n, v in small.items() if hasattr(config, n)})


# Of each family of encoders, by the letters that its names begin with.
_SMALLEST = {"resnet": "resnet18", "mit": "mit_b0", "dinov": "dinov2_vits14"}


def _shrunk_encoder_decoder(config: EncoderDecoderConfig) -> EncoderDecoderConfig:
    """The smallest encoder of the same family, and decoders with few channels."""
    config = copy.deepcopy(config.without_weights())
    family = config.encoder.name.partition("_")[0].rstrip("0123456789")
    suffix = "_adapter" if config.encoder.name.endswith("_adapter") else ""
    config.encoder.name = _SMALLEST[family] + suffix
    if family != "mit":
        config.encoder.width = 8
    for part in (config.decoder, config.auxiliary):
        if part is not None and hasattr(part, "channels"):
            part.channels = 16
    if config.hrda is not None:
        config.hrda.crop = CROP[0] // 2
        if hasattr(config.hrda.attention, "channels"):
            config.hrda.attention.channels = 16
    return config


@cache
def _plain(name: str) -> dict[str, Any]:
    """The preset's tiny run; not to be changed."""
    return to_plain(_shrunk(load_preset(name), steps=6))


def _first_of_equals(names: Iterable[str], *parts: str) -> tuple[str, ...]:
    """The names without those whose tiny run equals an earlier one in these parts of the preset."""
    seen: dict[str, str] = {}
    for name in names:
        plain = _plain(name)
        seen.setdefault(repr([plain[part] for part in parts]), name)
    return tuple(seen.values())


def covering(parts: Mapping[str, frozenset[str]]) -> tuple[str, ...]:
    """Names that together have every part that all names have."""
    missing = frozenset[str]().union(*parts.values())
    chosen: list[str] = []
    while missing:
        chosen.append(max(parts, key=lambda name: len(parts[name] & missing)))
        missing -= parts[chosen[-1]]
    return tuple(name for name in parts if name in chosen)


def _kinds_of_parts(name: str) -> frozenset[str]:
    """The tiny run's network, teacher and objectives; of numbers, whether they are 0."""
    plain = _plain(name)
    settings = [
        {option: value for option, value in objective.items() if option != "start_step"}
        for objective in plain["objectives"].values()
    ]
    return frozenset(
        f"{kind} {_without_numbers(part)}"
        for kind, part in (
            ("model", plain["model"]),
            ("teacher", plain["teacher"]),
            *(("objective", objective) for objective in settings),
        )
    )


def _without_numbers(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _without_numbers(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_numbers(inner) for inner in value]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value != 0
    return value


def slow_unless(name: str, fast: Collection[str]) -> ParameterSet:
    """The preset as a parameter of a test, in the fast suite only if it is among `fast`."""
    return pytest.param(name, marks=() if name in fast else pytest.mark.slow)


def thinned(values: Iterable[Any], *, one_in: int) -> list[ParameterSet]:
    """Values as parameters of a test; the fast suite has every so many of them, evenly spread."""
    return [
        pytest.param(value, marks=() if place % one_in == 0 else pytest.mark.slow)
        for place, value in enumerate(values)
    ]


def tiny_model(
    batch_norm: BatchNormMode = "train",
    head_norm: HeadNorm = "batch",
    *,
    auxiliary_head: bool = True,
) -> DeepLabV3PlusConfig:
    return DeepLabV3PlusConfig(
        backbone="resnet18",
        backbone_weights="none",
        backbone_width=8,
        batch_norm=batch_norm,
        head_norm=head_norm,
        aspp_rates=(1, 2),
        aspp_channels=8,
        low_level_channels=4,
        decoder_channels=8,
        auxiliary_head=auxiliary_head,
    )


def _of_streets(experiment: Experiment) -> bool:
    """Whether the toy city has its data; other tasks have tests of their own in tests/systems."""
    data = experiment.data
    named = {name for d in (data.source, data.target) if d is not None for name in d.datasets}
    return named | {experiment.evaluation.dataset} <= {"gta5", "cyclegta5", "cityscapes"}


STREETS = tuple(name for name in PRESETS if _of_streets(load_preset(name)))
TRAINED = tuple(name for name in STREETS if name not in EVALUATION_ONLY)
# Presets that differ in more than what a step does not see: lengths, rates, data sets.
DISTINCT_STEPS = _first_of_equals(TRAINED, "model", "objectives", "teacher")
# Presets that together have every kind of network, teacher and objective in DISTINCT_STEPS; the
# others combine them anew, or differ in numbers.
COVERING_STEPS = covering({name: _kinds_of_parts(name) for name in DISTINCT_STEPS})
# Presets that differ in what is read from disk.
_DISTINCT_DATA = _first_of_equals(TRAINED, "data")
UNSUPERVISED = tuple(name for name in _DISTINCT_DATA if name not in SUPERVISED_BY_TARGET)
SUPERVISED = tuple(name for name in _DISTINCT_DATA if name in SUPERVISED_BY_TARGET)


def without_dropout(experiment: Experiment) -> Experiment:
    experiment.model.dropout = 0.0
    return experiment


def write_pseudo_labels(folder: Path, root: Path, *, supervision: str = "none") -> None:
    """Random pseudo-labels for the target's training images, unless the folder exists."""
    if not folder.exists():
        samples = list_dataset(root, "cityscapes", "train", labeled=False)
        ids = (0, 2, 10, IGNORE_INDEX)
        write_random_pseudo_labels(folder, samples, CITYSCAPES, ids=ids, supervision=supervision)


def random_batch(
    *,
    samples: int = 2,
    source: bool = True,
    target: bool = True,
    pseudo_labels: bool = False,
    ground_truth: bool = False,
    second: bool = False,
) -> Batch:
    """A batch as the loader hands it over: noise with labels in blocks, some of them ignored."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.tensor([*range(6), IGNORE_INDEX], dtype=torch.uint8)

    def images() -> Tensor:
        size = (samples, 3, *CROP)
        return torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)

    def labels() -> Tensor:
        size = (samples, CROP[0] // 16, CROP[1] // 16)
        blocks = ids[torch.randint(0, len(ids), size, generator=generator)]
        return blocks.repeat_interleave(16, dim=1).repeat_interleave(16, dim=2)

    source_images, source_labels = images(), labels()
    return Batch(
        source_images=source_images if source else source_images[:0],
        source_labels=source_labels if source else source_labels[:0],
        target_images=images() if target else source_images[:0],
        target_pseudo_labels=labels() if pseudo_labels else None,
        indices=tuple(range(10, 10 + samples)),
        source_names=tuple(f"source/{i}" for i in range(samples)),
        target_names=tuple(f"target/{i}" for i in range(samples)) if target else ("",) * samples,
        target_ground_truth=labels() if ground_truth else None,
        target_second_images=images() if second else None,
    )


def batch_for(experiment: Experiment) -> Batch:
    """A random batch with all that `experiment` reads."""
    data: DataConfig = experiment.data
    return random_batch(
        source=data.source is not None,
        target=data.target is not None,
        pseudo_labels=data.pseudo_labels is not None,
        ground_truth=data.target_ground_truth,
        second=data.second_target_view is not None,
    )


def tiny_run(experiment: Experiment) -> Run:
    return start_run(experiment, num_classes=CITYSCAPES.num_classes, device=CPU)


def batch_tensors(batch: Batch) -> dict[str, Tensor]:
    """Copies of every tensor of `batch`, by field."""
    names = ("source_images", "source_labels", "target_images", "target_pseudo_labels",
             "target_ground_truth", "target_second_images", "target_valid")  # fmt: skip
    tensors = {name: getattr(batch, name) for name in names}
    return {name: tensor.clone() for name, tensor in tensors.items() if tensor is not None}


def steps(run: Run, count: int) -> list[StepResult]:
    """`count` updates, each on the same random batch."""
    batch = batch_for(run.experiment)
    return [train_step(run, batch) for _ in range(count)]


def flat(values: object, path: str = "") -> dict[str, object]:
    """Every leaf of nested dicts and sequences by its dotted path."""
    if isinstance(values, Mapping):
        items = [(str(key), value) for key, value in values.items()]
    elif isinstance(values, (list, tuple)):
        items = [(str(index), value) for index, value in enumerate(values)]
    else:
        return {path: values}
    return {
        leaf: found for key, value in items for leaf, found in flat(value, f"{path}.{key}").items()
    }


def assert_same(ours: object, theirs: object) -> None:
    """Both trees hold the same leaves, tensors bit for bit."""
    left, right = flat(ours), flat(theirs)
    assert left.keys() == right.keys()
    for name, value in left.items():
        other = right[name]
        if isinstance(value, Tensor):
            assert isinstance(other, Tensor), name
            assert value.dtype == other.dtype, name
            assert torch.equal(value, other), f"{name} differs"
        else:
            assert value == other, f"{name} differs"


def assert_different(ours: object, theirs: object) -> None:
    """Both trees have the same leaves, but some tensor is another."""
    left, right = flat(ours), flat(theirs)
    assert left.keys() == right.keys()
    for name, value in left.items():
        other = right[name]
        if isinstance(value, Tensor) and isinstance(other, Tensor) and not value.equal(other):
            return
    raise AssertionError("every tensor is the same")


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what depends on the clock."""
    lines = [line_values(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("images_per_second", None)
    return lines


def tiny_options(root: Path | None) -> list[str]:
    """The options of train_uda.py that make a run of 3 steps of any toy preset with a target, on
    data below `root` or described by files."""
    overrides = {
        **({} if root is None else {"data.root": root}), "data.crop": "64,128", "data.workers": 0,
        "data.source.size": "64,128", "data.target.size": "64,128",
        "model.backbone_width": 8, "model.aspp_channels": 8, "model.decoder_channels": 8,
        "model.low_level_channels": 4, "train.precision": "float32", "train.batch_size": 2,
        "train.steps": 3, "train.warmup_steps": 1, "train.log_every": 1,
        "evaluation.input_size": "64,128",
    }  # fmt: skip
    sets = [part for name, value in overrides.items() for part in ("--set", f"{name}={value}")]
    return ["--device", "cpu", *sets]


def python_path(*folders: Path) -> str:
    """PYTHONPATH for a process that is to import from `folders` first."""
    return os.pathsep.join([*map(str, folders), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)


def start_process(cwd: Path, name: str, *arguments: str) -> "subprocess.Popen[str]":
    """The command `name` of the repository in a process of its own."""
    return subprocess.Popen(
        [sys.executable, str(REPOSITORY / name), *arguments],
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": python_path(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def interrupt(experiment: Experiment, folder: Path, *, at: int) -> None:
    """Runs `experiment` until step `at` is about to be made."""
    original = train_step

    def step(run: Run, batch: Batch) -> StepResult:
        if run.step == at:
            raise KeyboardInterrupt
        return original(run, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "train_step", step)
        with pytest.raises(KeyboardInterrupt):
            engine.train(experiment, folder, preset="tiny", device=CPU)
