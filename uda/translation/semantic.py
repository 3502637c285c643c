"""CyCADA's semantic consistency: a frozen segmenter must see the same classes before and after.

Source: Hoffman et al., "CyCADA", ICML 2018, arXiv 1711.03213, equation 4. The released code of the
digits trains the classifier jointly; for street scenes it had no such term, for lack of memory.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uda.checkpoints import snapshots
from uda.labels.spaces import IGNORE_INDEX
from uda.utilities.errors import require


@dataclass(kw_only=True, slots=True)
class SemanticConfig:
    """Settings of `SemanticLoss`."""

    snapshot: str = ""  # of a network trained on the source
    weight: float = 1.0
    # What a translated source image must show: its labels, as CyCADA's code has it, or what the
    # segmenter sees in the original. Of target images, it is always the latter.
    labels: Literal["true", "predicted"] = "true"

    def check(self, path: str) -> None:
        """Raises InputError, naming the field below `path`, when a value is out of its range."""
        require(
            bool(self.snapshot),
            f"{path}.snapshot names no network: add --set {path}.snapshot=FILE, a snapshot that "
            "was trained on the source, or --set ...semantic=none",
        )
        require(self.weight > 0, f"{path}.weight is {self.weight}; allowed: above 0")


class SemanticLoss(nn.Module):
    """The cross-entropy of the frozen segmenter on translated images."""

    def __init__(self, config: SemanticConfig) -> None:
        super().__init__()
        self.config = config
        snapshot = snapshots.load(Path(config.snapshot))
        self.supervision = snapshot.supervision  # what its training saw of the target's labels
        self.classes = snapshot.label_space.classes
        self.segmenter = snapshot.build().eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "SemanticLoss":
        """The segmenter stays in evaluation mode."""
        super().train(mode)
        self.segmenter.eval()
        return self

    def forward(self, images: Tensor, translated: Tensor, labels: Tensor | None) -> Tensor:
        """For images (N, 3, H, W) and what became of them; labels (N, H, W), if they count."""
        if labels is None or self.config.labels == "predicted":
            with torch.no_grad():
                labels = self.segmenter(images).logits.argmax(1)
        logits = self.segmenter(translated).logits.float()
        summed = F.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX, reduction="sum")
        return self.config.weight * summed / (labels != IGNORE_INDEX).sum().clamp(min=1)
