"""Schedules against values worked out by hand."""

import pytest

from uda.optim.schedules import learning_rate_factor, momentum_ramp
from uda.utilities.errors import InputError


@pytest.mark.parametrize(
    ("step", "factor"),
    [
        (0, 0.1),
        (2500, 0.55),  # halfway: 0.1 + 0.9 / 2
        (4999, 0.99982),  # 0.1 + 0.9 * 0.9998
        (5000, 0.9819818),  # 0.98 ** 0.9: the decay counts from step 0
        (125000, 0.5358867),  # 0.5 ** 0.9
        (250000, 0.0),
    ],
)
def test_warmup_then_polynomial_decay(step: int, factor: float) -> None:
    result = learning_rate_factor(step, steps=250000, warmup_steps=5000)
    assert result == pytest.approx(factor, abs=1e-6)


def test_without_warmup_the_first_step_has_the_base_rate() -> None:
    assert learning_rate_factor(0, steps=100) == 1
    assert learning_rate_factor(75, steps=100, power=0.5) == 0.5


@pytest.mark.parametrize("step", [-1, 101])
def test_steps_outside_the_schedule_are_refused(step: int) -> None:
    with pytest.raises(InputError, match=rf"step {step} is outside the schedule of 0 to 100 steps"):
        learning_rate_factor(step, steps=100)


def test_momentum_rises_to_its_limit() -> None:
    ramp = [momentum_ramp(updates, momentum=0.99) for updates in (0, 1, 8, 97, 98, 99, 10_000)]
    assert ramp == pytest.approx([1 / 2, 2 / 3, 0.9, 98 / 99, 0.99, 0.99, 0.99])


def test_the_decay_ends_at_its_final_factor() -> None:
    """mmsegmentation's: 0.01 down to 1e-4, (0.01 - 1e-4) * 0.5 ** 0.9 + 1e-4 halfway."""
    halfway = learning_rate_factor(80_000, steps=160_000, final=0.01)
    assert 0.01 * halfway == pytest.approx(0.0099 * 0.5358867 + 1e-4, abs=1e-9)
    assert learning_rate_factor(160_000, steps=160_000, final=0.01) == pytest.approx(0.01)
