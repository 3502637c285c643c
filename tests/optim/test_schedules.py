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


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 6.0e-11),
        (1, 4.00590e-8),
        (750, 2.943753e-5),
        (1499, 5.771300e-5),
        (1500, 5.775e-5),
        (20_000, 3e-5),
        (39_999, 1.5e-9),
    ],
)
def test_a_warmup_of_the_decay(step: int, rate: float) -> None:
    """DAFormer's: no jump at its end."""
    factor = learning_rate_factor(
        step, steps=40_000, warmup_steps=1500, warmup_start=1e-6, warmup="of_decay", power=1.0
    )
    assert 6e-5 * factor == pytest.approx(rate, rel=1e-6)


@pytest.mark.parametrize(
    ("step", "factor"),
    [
        (0, 0.001),
        (1, 0.00166644),
        (1499, 1.0),
        (1500, 0.9625),
        (20_000, 0.5),
        (39_999, 2.5e-5),
    ],
)
def test_a_warmup_that_ends_at_1(step: int, factor: float) -> None:
    """VFM-UDA's: a jump at its end."""
    found = learning_rate_factor(
        step, steps=40_000, warmup_steps=1500, warmup_start=1e-3, warmup="up_to_1", power=1.0
    )
    assert found == pytest.approx(factor, rel=1e-5)


def test_a_warmup_of_one_step_that_ends_at_1_has_the_start() -> None:
    found = learning_rate_factor(0, steps=9, warmup_steps=1, warmup_start=0.5, warmup="up_to_1")
    assert found == 0.5


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
