import numpy as np
import pytest

from perception.drives.simulated.visibility import visible_fraction

EYE = np.zeros(2)
CAR = (4.0, 2.0, 1.6)


def boxes(*rows):
    """Rows are x, y, size, yaw."""
    return np.array([[x, y, *size, yaw] for x, y, size, yaw in rows])


@pytest.mark.parametrize(
    ("row", "other", "fraction"),
    [
        pytest.param((20.0, 0.0, CAR, 0.0), (10.0, 0.0, CAR, 0.0), 0.0, id="behind a nearer car"),
        pytest.param((20.0, 0.0, CAR, 0.0), (30.0, 0.0, CAR, 0.0), 1.0, id="in front of a car"),
        pytest.param((20.0, 0.0, CAR, 0.0), (10.0, 5.0, CAR, 0.0), 1.0, id="beside"),
        pytest.param((20.0, 0.0, CAR, 0.0), (10.0, 0.0, (0.5, 2.5, 1.1), 0.0), 1.0, id="a barrier hides nothing"),
        pytest.param((-20.0, 0.0, CAR, 0.0), (-10.0, 0.0, CAR, 0.0), 0.0, id="behind the ego vehicle, where angles wrap"),
        # seen at 20 m - 2 m the car spans +-1 m; the van's edge runs from y = 0 to far left: half is hidden
        pytest.param((20.0, 0.0, CAR, 0.0), (10.0, 2.0, (0.2 + 1.2, 4.0, 2.0), 0.0), 0.5, id="half hidden"),
    ],
)
def test_a_box_is_hidden_by_what_stands_before_it(row, other, fraction):
    assert visible_fraction(boxes(row, other), EYE)[0] == pytest.approx(fraction, abs=0.06)  # bins of a quarter degree


def test_the_order_of_boxes_does_not_matter():
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.uniform(-30, 30, (25, 2)), np.tile(CAR, (25, 1)), rng.uniform(-3, 3, 25)])
    order = rng.permutation(25)
    np.testing.assert_array_equal(visible_fraction(rows[order], EYE), visible_fraction(rows, EYE)[order])


def test_no_boxes():
    assert visible_fraction(np.zeros((0, 6)), EYE).shape == (0,)
