"""Whether a translation learns what it should: figures of some steps, and warnings."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

_IN_A_ROW = 10  # records, before a warning
_SURE = 0.98  # share of patches told apart
_UNCHANGED = 2 / 255  # mean difference of output and input
_FLAT = 0.02  # standard deviation of the output
_BEGIN = 0.1  # share of the run that a generator has to become different from its random start


def figures(told_apart: Tensor, images: Tensor, made: Tensor) -> dict[str, Tensor]:
    """Scalars on the device: the share of patches that the discriminator tells apart, how much the
    generator changes images in the mean, and how much its output varies within an image."""
    flat = made.detach().flatten(1)
    return {
        "figure/told_apart": told_apart,
        "figure/change": (made.detach() - images).abs().mean(),
        "figure/contrast": flat.std(1).mean(),
    }


class Watch:
    """Warns once of each fault that lasts, and again when it returns."""

    def __init__(self, *, steps: int) -> None:
        self._steps = steps
        self._lasting: dict[int, int] = {}  # records in a row, of each fault

    def warnings(self, step: int, values: Mapping[str, float]) -> Sequence[str]:
        """What to say of the figures of `step`; mostly nothing."""
        told = 100 * values["figure/told_apart"]
        present = {
            f"the discriminator tells {told:.0f} % of the patches apart, and the generator learns "
            "little from it: lower method.discriminator_width": told > 100 * _SURE,
            "the generator hardly changes its input (identity): lower method.identity, or train "
            "longer": values["figure/change"] < _UNCHANGED,
            "the generator's output is nearly of one color: start again with another train.seed "
            "or a lower train.lr": values["figure/contrast"] < _FLAT,
        }
        said = []
        for place, (text, lasts) in enumerate(present.items()):
            late = step > _BEGIN * self._steps
            self._lasting[place] = self._lasting.get(place, 0) + 1 if lasts and late else 0
            if self._lasting[place] == _IN_A_ROW:
                said.append(text)
        return said


def panel(pictures: Sequence[Tensor]) -> Tensor:
    """Images (3, H, W) next to each other, as wide as all of them; those of other heights are cut
    to the lowest."""
    height = min(picture.shape[1] for picture in pictures)
    parts = [picture[:, :height].detach().float().cpu().clamp(0, 1) for picture in pictures]
    return torch.cat(parts, dim=2)
