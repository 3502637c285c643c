"""The mean teacher: a moving average of the student that labels images for it.

Source: Tarvainen and Valpola, NeurIPS 2017, arXiv 1703.01780.
"""

import copy
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from uda.labels.spaces import LabelSpace
from uda.models.segmenter import SegmentationOutput, Segmenter
from uda.optim.schedules import momentum_ramp
from uda.utilities.errors import require


@dataclass(kw_only=True, slots=True)
class TeacherConfig:
    """How the teacher follows the student."""

    momentum: float = 0.99  # share of its own weights that it keeps in an update, after the ramp
    # The statistics that normalize the images it labels: "batch": those of the current batch (in
    # pilot runs on the toy city, 5 to 8 mIoU better); "running": an average of the student's.
    batch_norm: Literal["batch", "running"] = "batch"
    # "copy": the first update makes it the student, as in DACS's and UniMatch V2's code; the ramp
    # then begins with the second.
    first_update: Literal["average", "copy"] = "average"
    # Its probabilities are the mean of those of an image and of its mirror image, as in VFM-UDA.
    mirrored: bool = False

    def check(self, path: str) -> None:
        """Raises InputError, naming the field below `path`, when a value is out of its range."""
        require(
            0 <= self.momentum < 1,
            f"{path}.momentum is {self.momentum}; allowed: 0 up to, not including, 1",
        )

    def check_classes(self, path: str, space: LabelSpace) -> None:
        """Raises InputError when a mirror image has other classes of this label space."""
        require(
            not (self.mirrored and space.mirror_swaps),
            f"{path}.mirrored is true, but classes of {space.name} change places in a mirror image "
            f"(left and right): add --set {path}.mirrored=false",
        )


class MeanTeacher(nn.Module):
    """A network whose parameters are the moving average of the student's."""

    def __init__(self, student: Segmenter, config: TeacherConfig) -> None:
        super().__init__()
        self.config = config
        self.network = copy.deepcopy(student).requires_grad_(False)
        # (N, D, h, w) features of the images that it has just labeled, not mirrored
        self.embedded: Tensor | None = None

    def restart(self, student: Segmenter) -> None:
        """The teacher becomes an exact copy of the student."""
        self.network.load_state_dict(student.state_dict())

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C, H, W) float32 of images (N, 3, H, W) float RGB in [0, 1]; if `mirrored`,
        the logarithms of the mean probabilities, which softmax gives back."""
        self.network.train(self.config.batch_norm == "batch")
        disable_dropout(self.network)
        output: SegmentationOutput = self.network(images)
        self.embedded = output.embedded
        if not self.config.mirrored:
            return output.logits
        mirrored = self.network(images.flip(3)).logits.flip(3)
        both = torch.logaddexp(output.logits.log_softmax(dim=1), mirrored.log_softmax(dim=1))
        return both - math.log(2)

    @torch.no_grad()
    def update(self, student: Segmenter, *, updates: int) -> None:
        """Moves toward the student; `updates` is the number of updates since the last restart."""
        copied = self.config.first_update == "copy"
        keep = momentum_ramp(updates - copied, momentum=self.config.momentum)
        for own, other in zip(self.network.parameters(), student.parameters(), strict=True):
            own.lerp_(other, 1 - keep)
        if self.config.batch_norm == "running":
            for mine, theirs in zip(self.network.buffers(), student.buffers(), strict=True):
                mine.lerp_(theirs, 1 - keep) if mine.is_floating_point() else mine.copy_(theirs)


def disable_dropout(network: nn.Module) -> None:
    """Puts every layer but normalization into evaluation mode, so that nothing is random: no
    dropout, no drop path, and nothing that attention or a user's layer does in training alone."""
    for layer in network.modules():
        if not isinstance(layer, _NormBase):
            layer.training = False  # eval() would reach the layers inside
