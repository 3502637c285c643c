"""The mean teacher: a moving average of the student that labels images for it.

Source: Tarvainen and Valpola, NeurIPS 2017, arXiv 1703.01780.
"""

import copy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from uda.models.segmenter import Segmenter, disable_dropout
from uda.optim.schedules import momentum_ramp
from uda.utilities.errors import require


@dataclass(kw_only=True, slots=True)
class TeacherConfig:
    """How the teacher follows the student."""

    momentum: float = 0.99  # share of its own weights that it keeps in an update, after the ramp
    # The statistics that normalize the images it labels: "batch": those of the current batch (in
    # pilot runs on the toy city, 5 to 8 mIoU better); "running": an average of the student's.
    batch_norm: Literal["batch", "running"] = "batch"

    def check(self, path: str) -> None:
        """Raises InputError, naming the field below `path`, when a value is out of its range."""
        require(
            0 <= self.momentum < 1,
            f"{path}.momentum is {self.momentum}; allowed: 0 up to, not including, 1",
        )


class MeanTeacher(nn.Module):
    """A network whose parameters are the moving average of the student's."""

    def __init__(self, student: Segmenter, config: TeacherConfig) -> None:
        super().__init__()
        self.config = config
        self.network = copy.deepcopy(student).requires_grad_(False)

    def restart(self, student: Segmenter) -> None:
        """The teacher becomes an exact copy of the student."""
        self.network.load_state_dict(student.state_dict())

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C, H, W) float32 of images (N, 3, H, W) float RGB in [0, 1]."""
        self.network.train(self.config.batch_norm == "batch")
        disable_dropout(self.network)
        return self.network(images).logits

    @torch.no_grad()
    def update(self, student: Segmenter, *, updates: int) -> None:
        """Moves toward the student; `updates` is the number of updates since the last restart."""
        keep = momentum_ramp(updates, momentum=self.config.momentum)
        for own, other in zip(self.network.parameters(), student.parameters(), strict=True):
            own.lerp_(other, 1 - keep)
        if self.config.batch_norm == "running":
            for mine, theirs in zip(self.network.buffers(), student.buffers(), strict=True):
                mine.lerp_(theirs, 1 - keep) if mine.is_floating_point() else mine.copy_(theirs)
