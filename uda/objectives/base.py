"""The extension point: an objective adds views to a step and makes loss terms of views."""

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from uda.data.batch import Batch, View
from uda.models.segmenter import SegmentationOutput, Segmenter
from uda.objectives.counts import StepCounts
from uda.objectives.functional.pseudo_labels import PseudoLabels, pseudo_label
from uda.optim.optimizers import OptimizerConfig
from uda.utilities.distributed import rank
from uda.utilities.errors import InputError, require
from uda.utilities.slots import rebind_super

# What the rest of a preset may have to provide for an objective, see `validate`.
Need = Literal[
    "source",
    "target",
    "teacher",
    "pseudo_labels",
    "target_ground_truth",
    "second_target_view",
    "auxiliary_head",
    "queries",
    "mask_token",
    "equal_crops",  # source and target images of one size
]


class Teacher(Protocol):
    """A network that labels images and is not trained by gradients."""

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (N, C, H, W) float32 for images (N, 3, H, W), without gradient."""
        ...


@dataclass(frozen=True, slots=True)
class StepContext:
    """What an objective knows of the current step besides its views."""

    step: int  # 0-based number of the current optimizer update
    seed: int
    indices: tuple[int, ...]  # global number of each sample of the batch
    teacher: Teacher | None = None  # None if no objective of the preset needs one
    counts: StepCounts = field(default_factory=StepCounts)  # logged next to the losses
    target_images: Tensor | None = None  # the batch's; labels of other images are not counted
    # What the teacher made of images, by their identity and version. The images are kept, too, so
    # that no other tensor can have the same identity.
    _labeled: dict[tuple[int, int], "_Labeled"] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def teacher_labels(self, images: Tensor) -> PseudoLabels:
        """The teacher's labels of target images (N, 3, H, W) float RGB in [0, 1].

        They are computed once per step for the same tensor, even if several objectives ask.
        Raises InputError when the preset has no teacher.
        """
        return self._ask_teacher(images).pseudo

    def teacher_logits(self, images: Tensor) -> Tensor:
        """The logits (N, C, H, W) float32 that `teacher_labels` come from, without gradient."""
        return self._ask_teacher(images).logits

    def teacher_features(self, images: Tensor) -> Tensor:
        """The features (N, D, h, w) that the teacher's last layer classifies (see
        `SegmentationOutput.embedded`), of the pass that its labels come from."""
        features = self._ask_teacher(images).features
        assert features is not None, "a run's teacher has features"
        return features

    def _ask_teacher(self, images: Tensor) -> "_Labeled":
        if self.teacher is None:
            raise InputError(
                "an objective uses the teacher, but this preset has none: let needs() of the "
                'objective\'s config include "teacher"'
            )
        key = id(images), images._version
        if key not in self._labeled:
            logits = self.teacher(images)
            found = pseudo_label(logits)
            features = getattr(self.teacher, "embedded", None)  # any function can be a teacher
            self._labeled[key] = _Labeled(images, logits, found, features)
            if images is self.target_images:
                self.counts.teacher(found.labels)
        return self._labeled[key]

    def batch_generator(self, purpose: str) -> torch.Generator:
        """The generator of the first sample of the whole batch, the same on all processes."""
        return self._generator(purpose, self.indices[0] - rank() * len(self.indices))

    def generators(self, purpose: str) -> list[torch.Generator]:
        """One CPU generator per sample, a function of (seed, global sample number, purpose) only.

        So the random numbers of a sample do not depend on its place in the batch, on the other
        objectives, or on whether the run was interrupted.
        """
        return [self._generator(purpose, index) for index in self.indices]

    def _generator(self, purpose: str, index: int) -> torch.Generator:
        state = np.random.SeedSequence((self.seed, zlib.crc32(purpose.encode()), index))
        return torch.Generator().manual_seed(int(state.generate_state(1, np.uint64)[0]) >> 1)


class _Labeled(NamedTuple):
    """Images, and what the teacher made of them."""

    images: Tensor
    logits: Tensor
    pseudo: PseudoLabels
    features: Tensor | None


@dataclass(kw_only=True, slots=True)
class ObjectiveConfig:
    """Settings of one objective; `build()` makes it. Subclasses add the idea's own fields.

    The declarations below may depend on the fields, and are all that `validate` and the training
    step know of an objective before its first step. A subclass extends a method with `super()`:
    `super().check(path)`, `super().needs() | {"teacher"}`.
    """

    weight: float = 1.0  # factor of all the objective's terms
    start_step: int = 0  # the objective takes no part in earlier steps

    def __init_subclass__(cls) -> None:
        rebind_super(cls)

    def needs(self) -> frozenset[Need]:
        """What the rest of the preset must provide."""
        return frozenset()

    def adds(self) -> frozenset[str]:
        """The names of the views that `Objective.views` may return."""
        return frozenset()

    def reads(self) -> frozenset[str]:
        """The names of the views that `Objective.terms` gets: "source", "target", its own views
        or those of other objectives."""
        return frozenset()

    def joint(self) -> frozenset[str]:
        """The names of the views whose outputs `Objective.joint_terms` gets together."""
        return frozenset()

    def learns_fixed_labels(self) -> bool:
        """Whether its terms compare the student with labels that do not change during the run.
        They then fall as long as the student learns. Only such terms are the loss that
        TrainConfig.plateau watches."""
        return False

    def first_batches(self) -> int:
        """The number of batches that `Objective.before_first_step` looks at."""
        return 0

    def frozen_snapshot(self) -> str | None:
        """The file whose network `Objective.attach` gets in place of the student."""
        return None

    def check(self, path: str) -> None:
        """Raises InputError, naming the field below `path`, when a value is out of its range. What
        is nested is checked here for all."""
        require(self.weight > 0, f"{path}.weight is {self.weight}; it must be above 0")
        require(self.start_step >= 0, f"{path}.start_step is {self.start_step}; 0 is the first")
        for nested in fields(self):
            check = getattr(getattr(self, nested.name), "check", None)
            if check is not None:
                check(f"{path}.{nested.name}")

    def check_crop(self, path: str, crop: tuple[int, int]) -> None:
        """Raises InputError, naming the field below `path`, when a value does not suit the source's
        crops of that size, pixels (height, width)."""

    def idle(self) -> dict[str, str]:
        """The fields that change nothing as the others are set, each with the reason."""
        return {}

    def build(self, num_classes: int) -> "Objective":
        """The objective, for predictions of `num_classes` classes."""
        raise NotImplementedError


class Objective(nn.Module):
    """The idea of a paper: the views it adds to a step and the loss terms it makes of views.

    An objective never calls backward and never changes a tensor that it gets. It takes random
    numbers from `context.generators` only, and keeps what a resumed run needs in parameters and
    buffers. Its config declares the views that it adds and reads.
    """

    optimizer: OptimizerConfig | None = None  # for the objective's own networks, if it has any
    config: ObjectiveConfig

    def __init__(self, config: ObjectiveConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def reads(self) -> frozenset[str]:
        """The names of the views that `terms` gets."""
        return self.config.reads()

    @property
    def joint(self) -> frozenset[str]:
        """The names of the views that `joint_terms` gets."""
        return self.config.joint()

    def attach(self, student: Segmenter) -> None:
        """Called before the first step, with the initial weights in the student: here an objective
        copies what it needs of the student as it is then, such as a frozen encoder, into modules
        and buffers of its own. In a run that is resumed, the copies are then filled from
        resume.pth; the student that is passed has other weights. An objective whose config names a
        `frozen_snapshot` gets that file's network instead."""

    def before_first_step(self, student: Segmenter, batches: Iterable[Batch]) -> None:
        """Called once in the life of a run, after `attach`, with the batches of its first
        `config.first_batches()` steps on the device, if that is above 0."""

    def restore_beside(self, path: Path, *, auxiliary_head: bool) -> str:
        """Called when a run starts from another project's network in the file `path`, with or
        without an `auxiliary_head`. Loads the objective's own networks from the files next to it.

        Returns where their weights came from, for the run's records; "" when the objective has no
        networks. Raises InputError when files are missing or do not fit.
        """
        return ""

    def views(self, batch: Batch, context: StepContext) -> tuple[View, ...]:
        """The views to add to this step; batch is on the device."""
        return ()

    def terms(
        self, view: View, output: SegmentationOutput, context: StepContext
    ) -> dict[str, Tensor]:
        """Scalar losses of the student on `view`, by name; they are multiplied by
        `config.weight` and added up."""
        return {}

    def joint_terms(
        self, outputs: Mapping[str, SegmentationOutput], context: StepContext
    ) -> dict[str, Tensor]:
        """Scalar losses that compare several views, by name, from the student's output on each
        view that `config.joint()` names."""
        return {}

    def after_backward(self, context: StepContext) -> dict[str, Tensor]:
        """Scalar losses of the objective's own networks, by name; the step calls backward."""
        return {}

    def after_step(self, context: StepContext) -> None:
        """Called after the optimizers have stepped."""
