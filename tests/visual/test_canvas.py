"""Where a point of the world lies in the picture, which steps the metres take, and the strokes."""

import math

import numpy as np
import pytest

from perception.core import Transform, UsageError
from perception.visual import View
from perception.visual.canvas import Canvas, nice_step

HERE = (411.0, 1180.0)


@pytest.mark.parametrize("yaw", [0.0, 0.7, math.pi / 2, -2.5])
def test_ten_metres_ahead_of_the_ego_lie_straight_above_it_whatever_its_heading(yaw):
    ego_to_global = Transform.from_yaw(yaw, (*HERE, 0.5))
    view = View.around_ego(ego_to_global, radius=50.0, size_px=900)
    ego, ahead, left = view.to_pixels(ego_to_global.apply(np.array([[0, 0, 0], [10, 0, 0], [0, 10, 0]])))
    np.testing.assert_allclose(ego, (450, 450), atol=1e-6)
    np.testing.assert_allclose(ahead - ego, (0, -90), atol=1e-6)  # 900 px show 100 m -> 9 px a metre, and y counts down
    np.testing.assert_allclose(left - ego, (-90, 0), atol=1e-6)


def test_a_fitting_view_has_global_x_right_and_y_up_and_holds_every_point():
    points = np.array([[400.0, 1000.0], [500.0, 1020.0], [450.0, 1010.0]])
    view = View.fitting(points)
    assert view.center == (450.0, 1010.0)
    assert view.sees(points).all()
    assert view.extent == pytest.approx(54.0)  # half of 100 m and 8 % of margin
    first, second, _ = view.to_pixels(points)
    assert second[0] > first[0]
    assert second[1] < first[1]


@pytest.mark.parametrize(
    "points", [np.zeros((0, 2)), np.array([[3.0, 4.0]]), np.full((5, 2), 7.0)], ids=["none", "one", "all in one place"]
)
def test_a_fitting_view_of_a_place_without_size_still_shows_some_metres(points):
    view = View.fitting(points)
    assert 1.0 <= view.extent <= 20.0
    assert view.sees(points).all()


def test_a_view_sees_what_is_inside_of_its_square_and_nothing_else():
    view = View.around_ego(Transform.from_yaw(math.pi / 4), radius=10.0)
    ego_frame = np.array([[9.9, 9.9, 0], [10.1, 0, 0], [0, -10.1, 0], [-9.9, 0, 0]])
    assert view.sees(Transform.from_yaw(math.pi / 4).apply(ego_frame)).tolist() == [True, False, False, True]


@pytest.mark.parametrize(
    ("center", "up", "extent"),
    [
        ((0.0, 0.0), 0.0, 0.0),
        ((0.0, 0.0), 0.0, -5.0),
        ((0.0, 0.0), 0.0, math.nan),
        ((math.nan, 0.0), 0.0, 5.0),
        ((0.0, 0.0), math.inf, 5.0),
    ],
)
def test_a_view_that_shows_nothing_is_refused(center, up, extent):
    with pytest.raises(UsageError, match=r"View: expected a finite centre and direction, and extent > 0, got"):
        View(center, up, extent)


@pytest.mark.parametrize("size_px", [0, 199, 100_000])
def test_a_picture_too_small_or_too_large_is_refused(size_px):
    with pytest.raises(UsageError, match=rf"View\.size_px: expected .* got {size_px}"):
        View((0.0, 0.0), 0.0, 50.0, size_px)


@pytest.mark.parametrize(
    ("rough", "step"),
    [(16.7, 10.0), (20.0, 20.0), (49.9, 20.0), (50.0, 50.0), (9.99, 5.0), (1.0, 1.0), (0.034, 0.02), (3333.0, 2000.0), (1e-3, 1e-3)],
)
def test_the_metres_go_in_steps_of_1_2_or_5(rough, step):
    assert nice_step(rough) == pytest.approx(step, rel=1e-12)


def drawn(canvas: Canvas) -> np.ndarray:
    """(side, side) bool: pixels of the map that are darker than paper; the map stands below the header, its frame is left out."""
    picture = np.asarray(canvas.finish("", "").convert("L"))
    is_dark = picture[picture.shape[0] - canvas.view.size_px :] < 200
    is_dark[[0, 1, -2, -1]] = is_dark[:, [0, 1, -2, -1]] = False
    return is_dark


def test_a_line_is_as_wide_as_asked_and_ends_where_asked():
    canvas = Canvas(View((0.0, 0.0), 0.0, 10.0, 200))
    canvas.line(np.array([[50.0, 100.0], [150.0, 100.0]]), (0, 0, 0), width=4)
    rows, columns = np.nonzero(drawn(canvas))
    assert len(set(rows.tolist())) == pytest.approx(4, abs=1)
    assert (columns.min(), columns.max()) == (pytest.approx(50, abs=1), pytest.approx(150, abs=1))


def test_a_dashed_line_has_gaps_that_a_solid_one_has_not():
    filled = {}
    for dashed in (False, True):
        canvas = Canvas(View((0.0, 0.0), 0.0, 10.0, 200))
        canvas.line(np.array([[40.0, 100.0], [160.0, 100.0]]), (0, 0, 0), width=2, dashed=dashed)
        row = drawn(canvas)[98:103].any(axis=0)[40:160]
        filled[dashed] = row.mean()
        changes = np.abs(np.diff(row.astype(int))).sum()
        assert (changes > 15) == dashed  # 120 px of 5 on, 4 off: 13 dashes with two ends each
    assert filled[False] > 0.97
    assert 0.4 < filled[True] < 0.75  # 5 of 9


def test_dots_land_on_their_pixel_in_their_colour_and_those_outside_are_left_out():
    canvas = Canvas(View((0.0, 0.0), 0.0, 10.0, 200))
    canvas.dots(np.array([[60.0, 80.0], [-5.0, 50.0], [1e7, 50.0]]), np.array([[255, 0, 0]] * 3, dtype=np.uint8))
    picture = np.asarray(canvas.finish("", ""))[-200:]
    assert picture[80, 60].tolist() == [255, 0, 0]
    assert (picture == (255, 0, 0)).all(axis=2).sum() == 1


def test_labels_never_lie_on_each_other_and_what_finds_no_room_is_left_out():
    canvas = Canvas(View((0.0, 0.0), 0.0, 10.0, 300))
    for number in range(20):  # twenty things in one place, around which eight labels have room
        canvas.label((150.0, 150.0), str(100 + number), (0, 0, 0))
    boxes = np.array(canvas.taken)
    assert 4 <= len(boxes) <= 8
    for i, a in enumerate(boxes):
        for b in boxes[i + 1 :]:
            assert a[0] >= b[2] or b[0] >= a[2] or a[1] >= b[3] or b[1] >= a[3]


def test_labels_stay_inside_of_the_picture():
    canvas = Canvas(View((0.0, 0.0), 0.0, 10.0, 300))
    for corner in ((1.0, 1.0), (299.0, 1.0), (1.0, 299.0), (299.0, 299.0)):
        canvas.label(corner, "12345", (0, 0, 0))
    boxes = np.array(canvas.taken)
    assert len(boxes) == 4
    assert boxes.min() >= 0
    assert boxes.max() <= 300
