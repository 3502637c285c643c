"""A stage: a network goes in, an adapted one comes out."""

import statistics
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from uda.adaptation.method import Method, Subject
from uda.checkpoints.snapshots import Snapshot
from uda.data.config import DataConfig, DomainConfig
from uda.data.files import read_image
from uda.data.registry import layout_named
from uda.data.samples import Sample, evenly_spaced
from uda.data.transforms import Interpolation, resize_image
from uda.evaluation.batch_norm import BATCH_NORM_IMAGES, reestimate_batch_norm
from uda.evaluation.evaluate import EvaluationConfig
from uda.evaluation.views import view_sizes
from uda.experiment import Experiment
from uda.models.segmenter import Segmenter
from uda.objectives.base import ObjectiveConfig
from uda.objectives.supervised import SupervisedConfig
from uda.optim.optimizers import OptimizerConfig
from uda.optim.settings import TrainConfig
from uda.optim.teacher import TeacherConfig

Size = tuple[int, int]  # (height, width)

_COUNTED_TOGETHER = 8  # images whose statistics are one batch
_MULTIPLE = 32  # of a crop's sides
_CROP_PIXELS = {"cpu": 2**17, "cuda": 2**19}  # of a crop at most: 512x256, 1024x512
_BATCH = 4
# A trained network is moved gently: at a tenth of the rate that it was trained at or, where that is
# not known, at half of the rate at which SegFormer trains on a pretrained encoder. On the toy city,
# at the rate of its training a network gave up more than it learned.
_OF_TRAINED = 0.1
_UNKNOWN = OptimizerConfig(name="adamw", lr=3e-5, weight_decay=0.01)


@dataclass(frozen=True, slots=True)
class Images:
    """The images that a network is adapted to."""

    name: str  # of their data set: the folder as the user wrote it
    samples: tuple[Sample, ...]  # that can be read
    sizes: tuple[Size, ...]  # of each, as the network sees it
    unreadable: Mapping[str, str] = field(default_factory=dict)  # why, by the stem of the others


def reestimated(segmenter: Segmenter, images: Images, config: EvaluationConfig) -> str:
    """Re-estimates batch norm on the images; one sentence on how many.

    Images of one size are counted together, so that they may have any sizes.
    """
    known = dict(zip(images.samples, images.sizes, strict=True))
    chosen = evenly_spaced(images.samples, BATCH_NORM_IMAGES)
    device = next(segmenter.parameters()).device

    def batches() -> Iterator[Tensor]:
        by_size = sorted(chosen, key=lambda sample: known[sample])
        for size, group in groupby(by_size, key=lambda sample: known[sample]):
            alike = list(group)
            for first in range(0, len(alike), _COUNTED_TOGETHER):
                pixels = [
                    _pixels(sample, size, config)
                    for sample in alike[first : first + _COUNTED_TOGETHER]
                ]
                yield torch.stack(pixels).to(device).float().div_(255)

    reestimate_batch_norm(segmenter, batches())
    return f"Statistics of {len(chosen)} of {len(images.samples)} images."


def _pixels(sample: Sample, size: Size, config: EvaluationConfig) -> Tensor:
    """(3, h, w) uint8 of an image, as the network sees it."""
    image = read_image(sample.image, upright=bool(sample.upright), image_range=sample.image_range)
    return torch.from_numpy(resize_image(image, size, config.interpolation))


def seen_size(stored: Size, config: EvaluationConfig) -> Size:
    """At which size the network sees an image."""
    return view_sizes(stored, replace(config, scales=(1.0,)))[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class Learning:
    """A stage that learns: everything but how many steps."""

    stage: tuple[Method, ...]
    snapshot: Snapshot  # of the network that goes in
    first_weights: Path  # its file
    images: Images
    subject: Subject
    data_root: str
    seed: int
    workers: int
    device: torch.device
    trained_with: object = None  # `train` of the network's own run, where that is known

    def experiment(self, steps: int) -> Experiment:
        """What `uda.training.loop.train` is given."""
        objectives: dict[str, ObjectiveConfig] = {}
        for method in self.stage:
            assert method.objectives is not None, "checked by stages_named()"
            objectives |= method.objectives(self.subject)
        needs = {need for config in objectives.values() for need in config.needs()}
        source, name = None, layout_named(self.images.name).name
        size, crop = self._sizes()
        config = self.snapshot.evaluation
        target = DomainConfig(
            datasets=(self.images.name,),
            size=size,
            keep_ratio=len(set(self.images.sizes)) > 1,
            interpolation=_known_interpolation(config.interpolation),
            mirror=True,
        )
        if self.subject.source is not None and any(m.needs_source for m in self.stage):
            objectives = {"supervised": SupervisedConfig()} | objectives
            source = replace(target, datasets=(self.subject.source,))
        return Experiment(
            data=DataConfig(
                root=self.data_root,
                source=source,
                target=target,
                crop=crop,
                exclude=tuple(f"{name}/{stem}" for stem in self.images.unreadable),
                workers=self.workers,
            ),
            model=deepcopy(self.snapshot.model),
            objectives=objectives,
            teacher=TeacherConfig() if "teacher" in needs else None,
            train=TrainConfig(
                steps=steps,
                batch_size=min(_BATCH, len(self.images.samples)),
                seed=self.seed,
                optimizer=self._optimizer(),
                learned=self.stage[0].learned,
                head_lr_factor=1.0,
                warmup_steps=steps // 10,
                precision=self._precision(),
                initial_snapshot=str(self.first_weights),
                unlabeled_images=0,
                skip_nonfinite=10,
                snapshot_every=steps,
                resume_every=max(steps // 10, 20),
            ),
            evaluation=replace(config, every=0, heads="main"),
        )

    def _sizes(self) -> tuple[Size, Size]:
        """What the images are resized to, and the crop of them that fits into the memory."""
        short = statistics.median_low(min(size) for size in self.images.sizes)
        long = statistics.median_low(max(size) for size in self.images.sizes)
        lying = sum(width >= height for height, width in self.images.sizes)
        size = (short, long) if 2 * lying >= len(self.images.sizes) else (long, short)
        most = _CROP_PIXELS.get(self.device.type, 2**17)
        share = min((most / (size[0] * size[1])) ** 0.5, 1.0)
        if share == 1:
            return size, size
        height, width = (max(int(s * share) // _MULTIPLE, 1) * _MULTIPLE for s in size)
        return size, (min(height, size[0]), min(width, size[1]))

    def _optimizer(self) -> OptimizerConfig:
        """That of the network's own training, at a tenth of its rate, if it is known."""
        trained = self.trained_with
        factor = min(method.lr_factor for method in self.stage)
        if not isinstance(trained, dict) or not isinstance(trained.get("optimizer"), dict):
            return replace(_UNKNOWN, lr=_UNKNOWN.lr * factor)
        known = OptimizerConfig(**trained["optimizer"])
        return replace(known, lr=known.lr * _OF_TRAINED * factor)

    def _precision(self) -> Literal["float32", "bfloat16"]:
        """bfloat16 halves the time wherever it is supported, on CPUs too."""
        capable = self.device.type == "cpu" or torch.cuda.is_bf16_supported()
        return "bfloat16" if capable else "float32"


def _known_interpolation(
    name: Interpolation,
) -> Literal["bicubic", "bilinear", "bilinear_no_antialias"]:
    return "bilinear" if name == "nearest" else name
