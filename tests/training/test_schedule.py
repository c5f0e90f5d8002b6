import math

import pytest

from perception.core.errors import UsageError
from perception.training.loop_settings import LoopSettings, OptimizerSettings
from perception.training.schedule import Length, one_cycle


@pytest.mark.parametrize(
    ("step", "rate", "momentum"),
    [(0, 1e-4, 0.95), (100, 2.31802e-4, 0.935355), (200, 5.5e-4, 0.9), (400, 1e-3, 0.85), (700, 5.00005e-4, 0.9), (999, 1.68538e-8, 0.95)],
)
def test_the_published_numbers_of_a_thousand_steps(step, rate, momentum):
    # Printed by the published code. Its momentum at 999 is 0.95 - 0.05 (1 + cos(599 pi / 600)) = 0.9499993.
    length, settings = Length(1000, None), OptimizerSettings()
    found = one_cycle(settings, length.progress(step, 0.0), length.rising(settings))
    assert found == (pytest.approx(rate, rel=2e-6), pytest.approx(momentum, abs=1e-6))


def test_the_peak_is_at_a_whole_step():
    # int(0.4 * 9) = 3
    length, settings = Length(9, None), OptimizerSettings()
    rates = [one_cycle(settings, length.progress(step, 0.0), length.rising(settings))[0] for step in range(9)]
    assert rates[3] == pytest.approx(1e-3)
    assert max(rates) == rates[3]


@pytest.mark.parametrize("steps", [1, 2])
def test_too_short_to_rise_begins_at_the_peak(steps):
    length, settings = Length(steps, None), OptimizerSettings()
    assert one_cycle(settings, 0.0, length.rising(settings)) == (1e-3, 0.85)


def test_the_clock_counts_where_it_is_ahead():
    length = Length(100, 60.0)
    assert length.progress(50, 12.0) == 0.5
    assert length.progress(50, 45.0) == 0.75
    assert length.progress(50, 61.0) == 1.0
    assert Length(None, 60.0).progress(10_000, 30.0) == 0.5
    assert Length(None, 60.0).rising(OptimizerSettings()) == 0.4


def test_the_end_is_the_last_rate():
    rate, momentum = one_cycle(OptimizerSettings(), 1.0)
    assert math.isclose(rate, 1e-8)
    assert math.isclose(momentum, 0.95)


def test_no_end_is_refused():
    with pytest.raises(UsageError, match="expected an end, got none"):
        Length(None, None)
    with pytest.raises(ValueError, match="expected steps or epochs, got 5 steps and 2"):
        LoopSettings(steps=5, epochs=2)
