"""Random numbers by counter: even, normal, and the same wherever a sample stands in a batch."""

import numpy as np
import pytest
import torch

from perception.training.point_noise import counters, evenly, normal_vectors, point_bits

COUNT = 1 << 18


def bits_of(seed, *, start=0, count=COUNT):
    rows = torch.arange(start, start + count, dtype=torch.int32)
    return point_bits(rows, torch.from_numpy(counters(np.array([seed]), np.array([start]))))


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**32 - 1])
def test_every_bit_is_as_often_set_as_not_and_changes_with_the_next_point(seed):
    bits = bits_of(seed)
    assert len(bits.unique()) == COUNT
    for k in range(32):
        is_set = ((bits >> k) & 1).double()
        assert is_set.mean() == pytest.approx(0.5, abs=0.005)  # 5 deviations
        assert (is_set[1:] != is_set[:-1]).double().mean() == pytest.approx(0.5, abs=0.005)


def test_neighbouring_seeds_have_nothing_in_common():
    one, other = evenly(bits_of(5)), evenly(bits_of(6))
    assert np.corrcoef(one, other)[0, 1] == pytest.approx(0, abs=0.01)
    assert np.corrcoef(one[1:], one[:-1])[0, 1] == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("start", [1, 12345, 2**31 - COUNT - 1])
def test_only_the_number_in_the_sample_counts(start):
    assert torch.equal(bits_of(7, start=start), bits_of(7))


def test_shares_are_even():
    share = evenly(bits_of(3))
    assert 0 <= share.min() < 1e-3
    assert 1 - 1e-3 < share.max() < 1
    for limit in (0.1, 0.5, 0.9):
        assert (share < limit).double().mean() == pytest.approx(limit, abs=0.004)


def test_vectors_are_normal_and_say_nothing_of_the_shares():
    bits = bits_of(11)
    vectors = normal_vectors(bits).double()
    assert vectors.mean(dim=1).tolist() == pytest.approx([0] * 3, abs=0.02)
    assert vectors.std(dim=1).tolist() == pytest.approx([1] * 3, abs=0.02)
    assert (vectors.abs() < 1).double().mean() == pytest.approx(0.683, abs=0.01)
    correlation = np.corrcoef(torch.cat([vectors, evenly(bits)[None].double()]))
    np.testing.assert_allclose(correlation, np.eye(4), atol=0.02)
