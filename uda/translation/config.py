"""Translation: everything that decides how a translation is trained, as a tree of dataclasses."""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from uda.data.config import DataConfig
from uda.translation.cyclegan import CycleGanConfig
from uda.translation.generators import GeneratorConfig
from uda.translation.method import MethodConfig
from uda.utilities.config_tree import check_types, default_of
from uda.utilities.errors import Problems, require
from uda.utilities.idle import Idle, idle_fields, switch_off

# Of uda.data.config.DataConfig: what only training on labels uses.
_NO_LABELS = ("pseudo_labels", "target_ground_truth", "second_target_view", "rare_classes",
              "pseudo_labels_mapped_twice", "target.ignored_borders")  # fmt: skip
_CROP_RULES = ("crop_label_values", "crop_max_share")  # of the source: ask its labels
_SMALLEST_CROP = 32  # pixels, that a discriminator can judge


@dataclass(kw_only=True, slots=True)
class TrainingConfig:
    """How long, and how fast. The learning rate is constant for `epochs` and falls for
    `decay_epochs`, from one epoch to the next, as in CycleGAN's released code."""

    epochs: int = 100
    decay_epochs: int = 100
    epoch_images: int | None = None  # pairs in an epoch; none: the images of the larger domain
    steps: int | None = None  # stop after so many; none: at the end of the last epoch
    batch_size: int = 1  # pairs in a step
    seed: int = 0
    lr: float = 2e-4  # of Adam
    betas: tuple[float, float] = (0.5, 0.999)
    precision: Literal["float32", "bfloat16"] = "float32"  # bfloat16: autocast
    log_every: int = 50  # steps, as all that follow
    picture_every: int = 1000
    snapshot_every: int = 5000
    resume_every: int = 1000

    def check(self, path: str) -> None:
        """Raises InputError, naming the field below `path`, when a value is out of its range."""
        for name in ("epochs", "batch_size", "log_every", "picture_every", "snapshot_every",
                     "resume_every"):  # fmt: skip
            value = getattr(self, name)
            require(value > 0, f"{path}.{name} is {value}; allowed: 1 or more")
        for name in ("epoch_images", "steps"):
            value = getattr(self, name)
            require(
                value is None or value > 0, f"{path}.{name} is {value}; allowed: none, 1 or more"
            )
        for name in ("decay_epochs", "seed"):
            value = getattr(self, name)
            require(value >= 0, f"{path}.{name} is {value}; allowed: 0 or more")
        require(
            0 < self.lr < math.inf and all(0 <= beta < 1 for beta in self.betas),
            f"{path}.lr is {self.lr}, its betas are {self.betas}; allowed: above 0, and 0 up to, "
            "not including, 1",
        )

    def check_steps(self, path: str, images: int) -> None:
        """Raises InputError, naming the field below `path`, when the epochs, of as many `images`,
        end before the last step."""
        last = self.last_step(images)
        require(
            self.steps is None or self.steps == last,
            f"{path}.steps is {self.steps}, but {path}.epochs and {path}.decay_epochs, "
            f"{self.epochs} + {self.decay_epochs}, end after {last} steps: raise {path}.epochs, or "
            f"omit --set {path}.steps",
        )

    def steps_in_epoch(self, images: int) -> int:
        """`images`: those of the larger domain."""
        return max((self.epoch_images or images) // self.batch_size, 1)

    def last_step(self, images: int) -> int:
        """The number of steps of a run."""
        whole = (self.epochs + self.decay_epochs) * self.steps_in_epoch(images)
        return whole if self.steps is None else min(whole, self.steps)

    def lr_factor(self, step: int, images: int) -> float:
        """Of the update after `step` updates: 1 - max(0, e + 2 - epochs) / (decay_epochs + 1) in
        epoch e = 0, 1, ... The last epoch has 0, as in the released code."""
        epoch = step // self.steps_in_epoch(images)
        if not self.decay_epochs:
            return 1.0
        return max(1 - max(0, epoch + 2 - self.epochs) / (self.decay_epochs + 1), 0.0)


@dataclass(kw_only=True, slots=True)
class Translation:
    """A preset of `uda train-translation`."""

    data: DataConfig
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    method: MethodConfig = field(default_factory=CycleGanConfig)
    train: TrainingConfig = field(default_factory=TrainingConfig)


def validate(translation: Translation) -> None:
    """Raises InputError with all problems of a preset at once."""
    problems = Problems()
    with problems.part():
        check_types(translation, origin="translation")
    problems.raise_all()
    data = translation.data
    with problems.part():
        data.check("data")
    for name in ("source", "target"):
        with problems.part():
            domain = getattr(data, name)
            require(
                domain is not None,
                f"data.{name} is none, but a translation leads from the source to the target: add "
                f"--set data.{name}=NAME",
            )
            crop = data.crop_of(domain)
            require(
                min(crop) >= _SMALLEST_CROP,
                f"the crops of data.{name} are {crop} (height, width), but a discriminator needs "
                f"{_SMALLEST_CROP} pixels or more: raise data.crop",
            )
    for idle in _unused(translation):
        with problems.part():
            said, _ = switch_off(copy.deepcopy(translation), idle, [idle.path])
            require(False, said)
    with problems.part():
        translation.generator.check("generator")
    with problems.part():
        translation.method.check("method")
    with problems.part():
        translation.train.check("train")
    problems.raise_all()


def _unused(translation: Translation) -> Iterator[Idle]:
    """The fields that are not at their default and change nothing."""
    yield from idle_fields(translation)
    data = translation.data
    names = [f"data.{name}" for name in _NO_LABELS]
    if not translation.method.reads_labels:
        names += [f"data.source.{name}" for name in _CROP_RULES]
    for path in names:
        owner, _, name = path.rpartition(".")
        domain = data if owner == "data" else getattr(data, owner.removeprefix("data."))
        if domain is not None and getattr(domain, name) != (off := default_of(type(domain), name)):
            yield Idle(path, "a translation does not read the labels for it", off)
