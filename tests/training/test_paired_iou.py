import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import example, given, settings

from cuda_ops import iou_3d
from perception.training.paired_iou import paired_iou_3d


def pair(a: list[float], b: list[float]) -> float:
    return paired_iou_3d(torch.tensor([a]), torch.tensor([b])).item()


CAR = [10.0, -3.0, 0.5, 4.0, 2.0, 1.5, 0.3]
DIAMOND = 4 - 2 * (math.sqrt(2) - 1) ** 2  # a square of 2 m less the two corners that stick out of the car by sqrt(2) - 1 m


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        pytest.param(CAR, 1, id="the same"),
        pytest.param([*CAR[:6], 0.3 + math.pi], 1, id="turned around"),
        pytest.param([*CAR[:3], 2.0, 4.0, 1.5, 0.3 + math.pi / 2], 1, id="the same with length and width changed"),
        pytest.param([*CAR[:2], 1.25, *CAR[3:]], 1 / 3, id="half of it in height"),
        pytest.param([*CAR[:2], 2.5, *CAR[3:]], 0, id="above"),
        pytest.param([*CAR[:3], 2.0, 1.0, 1.5, 0.3], 1 / 4, id="inside"),
        pytest.param([*CAR[:3], 2.0, 2.0, 1.5, 0.3 + math.pi / 4], DIAMOND / (8 + 4 - DIAMOND), id="a square on its corner"),
        pytest.param([20.0, *CAR[1:]], 0, id="far away"),
        pytest.param([math.nan, *CAR[1:]], 0, id="NaN"),
        pytest.param([*CAR[:3], 0.0, *CAR[4:]], 0, id="no length"),
        pytest.param([*CAR[:5], math.inf, 0.3], 0, id="infinite"),
    ],
)
def test_cases_by_hand(other, expected):
    assert pair(CAR, other) == pytest.approx(expected, abs=1e-6)
    assert pair(other, CAR) == pytest.approx(expected, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([0.0, 1e-12, 0.1, 3.0]))
@example(0, 0.0)
def test_it_is_the_operator_s_diagonal(seed, spread):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(20, 7, generator=generator, dtype=torch.float64)
    a[:, 3:6] = a[:, 3:6].abs() + 0.2
    b = a + spread * torch.randn(20, 7, generator=generator, dtype=torch.float64)
    b[:, 3:6] = b[:, 3:6].abs() + 1e-3
    torch.testing.assert_close(paired_iou_3d(a, b), iou_3d(a, b).diagonal(), rtol=0, atol=1e-8)


def test_no_pairs():
    assert paired_iou_3d(torch.zeros(0, 7), torch.zeros(0, 7)).shape == (0,)
