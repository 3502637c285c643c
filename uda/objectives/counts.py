"""What logged steps count next to their losses: pixels by class, and agreement.

These are integer counts on the step's device. Counting uses no random numbers, changes no network
and does not wait for the device.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from uda.labels.spaces import IGNORE_INDEX
from uda.models.upsampled import Logits, per_pixel
from uda.objectives.functional.losses import count_classes
from uda.objectives.functional.pseudo_labels import PseudoLabels
from uda.utilities.distributed import sum_over_ranks


class StepCounts:
    """The counts of one step. In a step that is not logged, it counts nothing and costs nothing.

    by_name: int64 on the device, of this process:
    "source" (C,): labeled source pixels by class;
    "predicted/target" or "predicted/source" (C,): pixels of that domain by predicted class;
    "agreement" (2,): target pixels on which teacher and student agree, and all;
    "kept/<objective>" (2, C): pixels by class that the objective learns from, and all;
    "discriminator/<objective>/<head>" (2, 2): source, target; correct scores, and all.
    """

    def __init__(
        self, names: Mapping[nn.Module, str] | None = None, *, num_classes: int = 0
    ) -> None:
        """`names`: those of the objectives; None in a step that is not logged."""
        self.active = names is not None
        self._names = dict(names or {})
        self._num_classes = num_classes
        self._teachers: Tensor | None = None  # labels (N, H, W) of the target images
        self.by_name: dict[str, Tensor] = {}

    @torch.no_grad()
    def source(self, labels: Tensor) -> None:
        """labels: (N, H, W) int64 of the source images, 255 ignored."""
        if self.active and len(labels):
            self.by_name["source"] = count_classes(labels, self._num_classes)

    @torch.no_grad()
    def teacher(self, labels: Tensor) -> None:
        """labels: (N, H, W) int64, the teacher's labels of the target images."""
        if self.active:
            self._teachers = labels

    @torch.no_grad()
    def student(self, domain: str, logits: Logits) -> None:
        """logits: (N, C, H, W) float of the plain images of `domain`, "source" or "target"."""
        if not self.active:
            return
        predictions = _most_probable(logits)
        self.by_name[f"predicted/{domain}"] = count_classes(predictions, self._num_classes)
        if domain == "target" and self._teachers is not None:
            same = (predictions == self._teachers).sum()
            self.by_name["agreement"] = torch.stack(
                [same, torch.full_like(same, predictions.numel())]
            )

    @torch.no_grad()
    def sure(self, objective: nn.Module, pseudo: PseudoLabels, threshold: float) -> None:
        """For an objective that learns the teacher's labels where their confidence is at least
        `threshold`: the number of these pixels by the teacher's class."""
        if self.active:
            self._kept(objective, pseudo.labels, pseudo.confidence >= threshold)

    @torch.no_grad()
    def labeled(self, objective: nn.Module, labels: Tensor, logits: Logits) -> None:
        """For an objective that learns labels (N, H, W) int64, 255 where a pixel has none: the
        number of labeled pixels by the class that the student's logits (N, C, H, W) predict, since
        unlabeled pixels have no other class."""
        if self.active:
            self._kept(objective, _most_probable(logits), labels != IGNORE_INDEX)

    @torch.no_grad()
    def discriminator(
        self,
        objective: nn.Module,
        head: str,
        source_maps: Sequence[Tensor],
        target_maps: Sequence[Tensor],
        source_label: float,
        boundary: float,
    ) -> None:
        """Raw scores (N, 1, h, w) float of each scale; those above `boundary` mean 1, others 0."""
        if not self.active:
            return
        rows = []
        for maps, label in ((source_maps, source_label), (target_maps, 1 - source_label)):
            right = torch.stack([((m > boundary) == (label > 0.5)).sum() for m in maps]).sum()
            rows.append(torch.stack([right, torch.full_like(right, sum(m.numel() for m in maps))]))
        self.by_name[f"discriminator/{self._names[objective]}/{head}"] = torch.stack(rows)

    def _kept(self, objective: nn.Module, classes: Tensor, kept: Tensor) -> None:
        of_kept = torch.where(kept, classes, IGNORE_INDEX)
        rows = [count_classes(each, self._num_classes) for each in (of_kept, classes)]
        self.by_name[f"kept/{self._names[objective]}"] = torch.stack(rows)


def _most_probable(logits: Logits) -> Tensor:
    """The most probable class (N, H, W) int64 of each pixel."""
    return per_pixel(lambda rows: rows.max(dim=1).indices, logits)


def of_all_processes(counts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The sums of the counts over all processes, on the host, in one message and one transfer."""
    if not counts:
        return {}
    flat = sum_over_ranks(torch.cat([count.flatten() for count in counts.values()])).cpu()
    parts = flat.split([count.numel() for count in counts.values()])
    shaped = zip(counts.items(), parts, strict=True)
    return {name: part.view(count.shape) for (name, count), part in shaped}
