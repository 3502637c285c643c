"""Which of several data sets a sample is of, where these have weights (`DomainConfig.weights`)."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from uda.data.config import DomainConfig
from uda.data.registry import layout_named
from uda.data.samples import Sample
from uda.utilities.errors import require

_BLOCK = 4096  # samples whose data sets are chosen by one generator
_SETS = 3  # its place among the generators of a stream, see uda/data/sampling.py


class Chosen(NamedTuple):
    """The data set of a sample."""

    place: int  # of the set among those of its domain
    before: int  # samples before it that are of the same set


class SetChoice:
    """The data set of each sample: a function of (seed, k) alone.

    Those of 4096 samples at a time are chosen, each by the weights, by a generator that is seeded
    with their number.
    """

    def __init__(
        self,
        weights: Sequence[float],
        members: Sequence[npt.NDArray[np.int64]],
        *,
        seed: int,
        stream: int,
    ) -> None:
        self.shares = tuple(weight / sum(weights) for weight in weights)  # of samples, by set
        self.members = tuple(members)  # by set, the numbers of its images among the domain's
        self.seed, self.stream = seed, stream
        self._before = [(0,) * len(self.shares)]  # by block: earlier samples of each set

    def of(self, k: int) -> Chosen:
        """The data set of sample k."""
        block, place = divmod(k, _BLOCK)
        while len(self._before) <= block:
            counts = np.bincount(self._sets(len(self._before) - 1), minlength=len(self.shares))
            self._before.append(tuple(int(n) for n in self._before[-1] + counts))
        sets = self._sets(block)
        chosen = int(sets[place])
        before = self._before[block][chosen] + int(np.count_nonzero(sets[:place] == chosen))
        return Chosen(chosen, before)

    def _sets(self, block: int) -> npt.NDArray[np.int64]:
        return _sets(self.shares, (self.seed, self.stream, _SETS, block))


@lru_cache(maxsize=4)
def _sets(shares: tuple[float, ...], seeds: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """The sets of the samples of one block."""
    numbers = np.random.default_rng(seeds).random(_BLOCK)
    return np.searchsorted(np.cumsum(shares[:-1]), numbers, side="right")


def members_of_sets(domain: DomainConfig, samples: Sequence[Sample]) -> list[npt.NDArray[np.int64]]:
    """For each data set of a domain, the numbers of its images among the `samples`.

    Raises InputError when one has none.
    """
    names = [layout_named(name).name for name in domain.datasets]
    datasets = np.array([sample.dataset for sample in samples])
    members = [np.flatnonzero(datasets == name) for name in names]
    for name, numbers in zip(names, members, strict=True):
        require(
            len(numbers) > 0,
            f"{name} has a weight, but no image of it is left: omit it and its weight, or keep "
            "more than the first images",
        )
    return members


def set_choice(
    domain: DomainConfig | None, samples: Sequence[Sample], *, seed: int, stream: int
) -> SetChoice | None:
    """What `weights` make of a domain with these `samples`; None without weights."""
    if domain is None or domain.weights is None:
        return None
    return SetChoice(domain.weights, members_of_sets(domain, samples), seed=seed, stream=stream)
