"""Online hard example mining by confidence: only pixels that are not yet learned count.

Source: Shrivastava et al., CVPR 2016, arXiv 1604.03540, in the form that segmentation uses
(UniMatch V2, arXiv 2410.10777, LiheYoung/UniMatch-V2@f6afb4df).
"""

import math
from dataclasses import dataclass

from torch import Tensor

from uda.utilities.distributed import of_all_ranks
from uda.utilities.errors import require, require_share


@dataclass(kw_only=True, slots=True)
class OhemConfig:
    """Which pixels count: those whose class has a probability below `below`, and at least the
    `at_least` with the lowest ones in the batch of all processes."""

    below: float = 0.7
    at_least: int = 100_000

    def check(self, path: str) -> None:
        """Raises InputError, naming the field below `path`, when a value is out of its range."""
        require_share(f"{path}.below", self.below)
        require(self.below > 0, f"{path}.below is {self.below}; allowed: above 0 and up to 1")
        require(self.at_least >= 1, f"{path}.at_least is {self.at_least}; allowed: 1 pixel or more")

    def easy(self, losses: Tensor) -> Tensor:
        """Where (N, H, W) the cross-entropy (N, H, W) is too low to count; 0 where ignored."""
        every = of_all_ranks(losses.flatten())
        kept = min(self.at_least, len(every))
        # The limit stays on the device: reading it would synchronize.
        limit = every.topk(kept, sorted=False).values.amin().clamp(max=-math.log(self.below))
        return losses < limit
