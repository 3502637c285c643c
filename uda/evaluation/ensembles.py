"""Several networks that predict as one: the mean of what they say of a pixel."""

from collections.abc import Sequence
from typing import Literal, get_args

from torch import nn

from uda.models.segmenter import Segmenter
from uda.utilities.errors import InputError, require

# "probabilities": FDA's three bands (arXiv 2004.05498); "logits": ADVENT's row of AdvEnt and MinEnt
# together (arXiv 1811.12833).
Average = Literal["probabilities", "logits"]


class Ensemble(nn.Module):
    """Networks of the same classes whose mean prediction counts; see `inference.predict`.

    It has no forward pass of its own: the mean is taken at the labels' size, strip by strip.
    """

    def __init__(self, members: Sequence[Segmenter], average: Average = "probabilities") -> None:
        """Raises InputError with fewer than two networks, and on an unknown `average`."""
        super().__init__()
        require(len(members) > 1, f"an ensemble of {len(members)} networks; allowed: 2 or more")
        if average not in get_args(Average):
            raise InputError(f"the average is {average!r}; allowed: {', '.join(get_args(Average))}")
        self.average: Average = average
        self.networks = nn.ModuleList(members)

    @property
    def members(self) -> list[Segmenter]:
        """The networks, in their order."""
        return [network for network in self.networks if isinstance(network, Segmenter)]

    def __str__(self) -> str:
        return f"mean of the {self.average} of {len(self.networks)} networks"


Network = Segmenter | Ensemble


def members_of(network: Network) -> list[Segmenter]:
    """The networks of an ensemble, or the one."""
    return network.members if isinstance(network, Ensemble) else [network]
