"""Shares of a batch, and what is drawn for it."""

from collections import Counter

import numpy as np
import pytest

from perception.training.plan import Plan, draw


def test_ranks_take_turns():
    assert [Plan(6, rank, 3).own([10, 11, 12, 13, 14, 15]) for rank in range(3)] == [[10, 13], [11, 14], [12, 15]]
    assert Plan(6, 0, 3).share == 2


@pytest.mark.parametrize(
    ("fresh", "old", "count", "most_often", "least_often"),
    [
        pytest.param([7, 8], range(5), 4, 1, 0, id="enough: none twice"),
        pytest.param([7, 8], range(3), 5, 1, 1, id="just enough: each once"),
        pytest.param([7], range(3), 8, 3, 1, id="too few: none a third time before all were drawn twice"),
        pytest.param([7, 8], [], 5, 3, 2, id="fresh ones only: they come again"),
        pytest.param([], range(9), 3, 1, 0, id="nothing fresh"),
    ],
)
def test_fresh_ones_come_first_and_the_rest_in_turns(fresh, old, count, most_often, least_often):
    drawn = draw(fresh, old, count, np.random.default_rng(0))
    times = Counter(drawn)
    assert len(drawn) == count
    assert set(drawn) <= {*fresh, *old}
    assert all(times[number] >= 1 for number in fresh)
    assert max(times.values()) == most_often
    assert min(times[number] for number in [*fresh, *old]) == least_often


def test_the_draw_is_the_generators():
    first, again, other = (draw(range(3), range(3, 50), 16, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert first[:3] != [0, 1, 2]  # shuffled, so that no rank gets all that is fresh
