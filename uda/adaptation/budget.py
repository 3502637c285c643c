"""How many steps fit into the minutes that the user gives."""

import torch

from uda.adaptation.stage import Learning
from uda.training.preflight import measure_steps
from uda.utilities.errors import require

FEWEST_STEPS = 50  # of a stage that is to change anything
# A network that learns its own labels drifts: on the toy city the best of 300 steps were the first
# 200, whatever the rate.
MOST_STEPS = 500
_MEASURED = 2  # steps
_USED = 0.9  # of the time: saving, and steps slower than those measured


def steps_within(seconds: float, learning: Learning, *, device: torch.device) -> int:
    """The steps of the stage that fit into so many seconds, from a measurement on generated images.

    Raises InputError, with the minutes to ask for, when they are too few to learn anything.
    """
    experiment = learning.experiment(MOST_STEPS)
    experiment.train.initial_snapshot = None
    experiment.model = experiment.model.without_weights()
    found = measure_steps(
        experiment,
        num_classes=learning.snapshot.label_space.num_classes,
        device=device,
        measured=_MEASURED,
    )
    steps = int(_USED * (seconds - found.first) / found.step)
    needed = (FEWEST_STEPS * found.step / _USED + found.first) / 60
    require(
        steps >= FEWEST_STEPS,
        f"a step of this network takes {found.step:.1f} s here, and {max(seconds, 0) / 60:.1f} "
        f"minutes are left for fewer than {FEWEST_STEPS}: give --minutes {needed + 2:.0f} or more, "
        "or --method batch-norm, which needs no step",
    )
    return min(steps, MOST_STEPS)
