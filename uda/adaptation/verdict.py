"""Whether an adapted network is better than the one before: decided without labels.

Every criterion can be fooled (see `uda/evaluation/label_free.py`), and a network that learns its
own labels becomes sure of them whether they are right or not. So more than one has to agree, and
what no criterion sees, classes that vanish and knowledge that is given up, is watched on its own.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from uda.adaptation.criteria import CRITERIA, Look, given_up

BETTER, UNCLEAR, WORSE = "better", "unclear", "worse"
_RESAMPLES = 200  # of the images, to tell a change from chance
_VOTING = ("agreement", "information")
_LOST = 0.4  # of the effective number of classes: more is a collapse
# Of the pixels that the network before was sure of. On the toy city, adaptation that helped changed
# up to 14 % of them, self-training at ten times its rate, which harmed, 17 %.
_GIVEN_UP = 0.15
# Of soft neighborhood density, which learning one's own labels does not raise by itself. Where
# self-training helped, it rose or fell by up to 1.3 %; where it harmed, it fell by 3.9 % and more.
_THINNED = 0.02
# Agreement between views and distance of statistics on the toy city: its own images 0.80 and 0.04,
# those of the target 0.54 and 0.17, photographs of clothes 0.49 and 0.36, noise 0.16 and 0.46.
_DOUBTFUL, _FOREIGN, _FAR = 0.55, 0.3, 0.3
_SMALL = 1e-5


class Verdict(NamedTuple):
    """What is thought of a change, and why, in sentences."""

    word: str  # BETTER, UNCLEAR or WORSE
    reasons: tuple[str, ...]


def judge(before: Look, after: Look, *, self_taught: bool = False) -> Verdict:
    """Compares two networks on the same images.

    self_taught: whether it has learned from its own labels alone, which makes it sure of them

    Worse: classes vanish, much of what the network before was sure of has changed, the density of a
    self-taught network has fallen, or a voting criterion has fallen for certain without the other
    rising. Better: one has risen for certain and
    none has fallen. "For certain" is an interval of 95 % over resampled images that leaves out 0.
    """
    old, new = before.values(), after.values()
    reasons = []
    lost = 1 - new["classes"] / old["classes"]
    if lost > _LOST:
        reasons.append(
            f"classes vanish: their effective number fell from {old['classes']:.1f} to "
            f"{new['classes']:.1f}"
        )
    flipped = given_up(before, after)
    if flipped > _GIVEN_UP:
        reasons.append(
            f"{100 * flipped:.0f} % of the pixels that the network before was sure of have another "
            f"class now, more than {100 * _GIVEN_UP:.0f} %"
        )
    thinned = 1 - new["density"] / max(old["density"], _SMALL)
    if self_taught and thinned > _THINNED:
        reasons.append(
            f"{CRITERIA['density'].title} fell by {100 * thinned:.1f} %, from {old['density']:.3f} "
            f"to {new['density']:.3f}: predictions became sure, but not more alike"
        )
    if reasons:
        return Verdict(WORSE, tuple(reasons))
    rises, falls = [], []
    for name, (low, high) in _intervals(before, after).items():
        said = f"{CRITERIA[name].title}: {old[name]:.3f} before, {new[name]:.3f} after"
        if low > 0:
            rises.append(f"{said}, a rise")
        elif high < 0:
            falls.append(f"{said}, a fall")
        else:
            reasons.append(f"{said}, no clear change")
    word = UNCLEAR
    if rises and not falls:
        word = BETTER
    elif falls and not rises:
        word = WORSE
    return Verdict(word, (*rises, *falls, *reasons))


def is_foreign(look: Look, moved: float) -> str:
    """Why the images seem to be of another world than the network's, if they do.

    moved: see `statistics_moved`; 0 for a network without batch norm
    """
    agreement = look.values()["agreement"]
    if agreement >= _DOUBTFUL or (agreement >= _FOREIGN and moved < _FAR):
        return ""
    return (
        "these images seem to be of another world than those that the network was trained on: it "
        "gives an image, its mirror image and the same image made smaller the same classes only to "
        f"a mean IoU of {agreement:.2f}"
        + (f", and its statistics differ by {moved:.2f}" if moved >= _FAR else "")
    )


def statistics_moved(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> float:
    """How far batch norm's variances are from those before: the mean over layers and channels of
    the absolute logarithm of their quotient; 0 where there are none. Both are state dicts."""
    found = [
        (after[name].double() + _SMALL).log().sub((value.double() + _SMALL).log()).abs().mean()
        for name, value in before.items()
        if name.endswith("running_var")
    ]
    return float(torch.stack(found).mean()) if found else 0.0


def _intervals(before: Look, after: Look) -> dict[str, tuple[float, float]]:
    """Of the change of each voting criterion, 95 %, by a paired bootstrap over the images."""
    count = len(before.stems)
    generator = torch.Generator().manual_seed(0)
    changes: dict[str, list[float]] = {name: [] for name in _VOTING}
    for _ in range(_RESAMPLES):
        drawn: Tensor = torch.randint(0, count, (count,), generator=generator)
        old, new = before.of(drawn), after.of(drawn)
        for name in _VOTING:  # these two are cheap; the shares of classes ask every pixel
            changes[name].append(getattr(new, name)() - getattr(old, name)())
    return {
        name: (float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975)))
        for name, values in changes.items()
    }
