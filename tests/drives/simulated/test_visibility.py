import numpy as np
import pytest

from perception.drives.simulated.plans import usual_plan
from perception.drives.simulated.roads import Lot, Plan
from perception.drives.simulated.visibility import is_in_sight, visible_fraction

EYE = np.zeros(2)
CAR = (4.0, 2.0, 1.6)
VAN = (5.0, 2.5, 2.4)


def boxes(*rows):
    """Rows are x, y, size, yaw."""
    return np.array([[x, y, *size, yaw] for x, y, size, yaw in rows])


@pytest.mark.parametrize(
    ("row", "other", "fraction"),
    [
        # the line of sight over the nearer car falls from 1.84 m to 1.6 m in 10 m, so to 1.36 m in 20 m: 0.24 of 1.6 m are free
        pytest.param((20.0, 0.0, CAR, 0.0), (10.0, 0.0, CAR, 0.0), 0.15, id="behind a nearer car"),
        pytest.param((20.0, 0.0, CAR, 0.0), (10.0, 0.0, VAN, 0.0), 0.0, id="behind a van that is higher than the eye"),
        pytest.param((20.0, 0.0, CAR, 0.0), (30.0, 0.0, VAN, 0.0), 1.0, id="in front of a van"),
        pytest.param((20.0, 0.0, CAR, 0.0), (10.0, 5.0, VAN, 0.0), 1.0, id="beside"),
        # 1.84 - 2 * (1.84 - 1.1) = 0.36 m are hidden
        pytest.param((20.0, 0.0, CAR, 0.0), (10.0, 0.0, (0.5, 2.5, 1.1), 0.0), 0.775, id="behind a barrier"),
        pytest.param((20.0, 0.0, CAR, 0.0), (5.0, 0.0, (0.5, 2.5, 0.8), 0.0), 1.0, id="a cone nearby hides the ground only"),
        pytest.param((-20.0, 0.0, CAR, 0.0), (-10.0, 0.0, VAN, 0.0), 0.0, id="behind the ego vehicle, where angles wrap"),
        # the car spans +-1 m around y = 0, the van begins at y = 0
        pytest.param((20.0, 0.0, CAR, 0.0), (10.0, 2.0, (1.4, 4.0, 2.4), 0.0), 0.5, id="half hidden"),
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


@pytest.mark.parametrize(
    ("place", "is_seen"),
    [
        pytest.param((30.0, -5.0), True, id="down the same road"),
        pytest.param((0.0, -15.0), True, id="just round the corner"),
        pytest.param((0.0, -60.0), False, id="far down the other road"),
        pytest.param((-50.0, -21.0), True, id="before the fronts"),
        pytest.param((-50.0, -40.0), False, id="behind the fronts"),
        pytest.param((-50.0, 40.0), True, id="on a parking lot"),
    ],
)
def test_houses_along_the_roads_are_in_the_way(place, is_seen):
    plan = Plan(usual_plan().roads, lots=(Lot(0, 1, 30.0, 70.0, 25.0),))
    assert is_in_sight(plan, np.array([place]), np.array([[-50.0, -2.0]])).tolist() == [is_seen]
