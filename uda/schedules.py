"""Numbers that change from step to step: learning rate and teacher momentum."""

from uda.errors import InputError


def learning_rate_factor(
    step: int,
    *,
    steps: int,
    warmup_steps: int = 0,
    warmup_start: float = 0.1,
    power: float = 0.9,
    final: float = 0.0,
) -> float:
    """The factor of the base learning rate at `step` (0-based) of a run of `steps`.

    Linear from `warmup_start` towards 1 during `warmup_steps`, then (1 - step / steps) ** power
    from 1 down to `final`.
    The decay counts from step 0, not from the end of the warm-up: with 5000 of 250000 steps of
    warm-up it sets in at 0.982, as in the experiment log.
    Raises InputError beyond the end of the schedule.
    Source: layumi/Seg-Uncertainty@6fce9ea.
    """
    if not 0 <= step <= steps:
        raise InputError(f"step {step} lies outside the schedule of 0..{steps} steps: raise steps")
    if step < warmup_steps:
        return warmup_start + (1 - warmup_start) * step / warmup_steps
    return float(final + (1 - final) * (1 - step / steps) ** power)


def momentum_ramp(updates: int, *, momentum: float) -> float:
    """The teacher's momentum after `updates` earlier updates: 1/2, 2/3, 3/4, ... up to `momentum`.

    So a young teacher follows its student fast instead of averaging in what it knew at the start.
    """
    return min(1 - 1 / (updates + 2), momentum)
