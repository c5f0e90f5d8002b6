"""The picture of what a detector found, missed and made up, checked on its pixels."""

import numpy as np
import pytest

from perception.core import NUSCENES_DETECTION, Boxes3D, Detections
from perception.visual import Judged, draw_outcomes
from perception.visual.canvas import HEADER_PX
from perception.visual.outcomes import FALSE, HIT, MISSED, NEITHER
from perception.visual.palette import PAPER

NO_POINTS = np.zeros((0, 3))


def car(x, y, **columns):
    return Detections(Boxes3D([[x, y, 1]], [[4, 2, 1.5]], [0.0], [[0.0, 0.0]]), [0], [0.5], NUSCENES_DETECTION, **columns)


def none():
    return Detections.empty(NUSCENES_DETECTION)


def group(**objects):
    return Judged(**{name: objects.get(name, none()) for name in ("hits", "false", "neither", "missed", "truth")})


def pixels(*groups, points=NO_POINTS):
    """(500, 500, 3) the map of 25 m around: 10 px a metre, the ego vehicle in the middle."""
    return np.asarray(draw_outcomes(groups, points, radius=25.0, size_px=500))[HEADER_PX:].astype(int)


@pytest.mark.parametrize(
    ("name", "color"),
    [
        pytest.param("hits", HIT, id="found"),
        pytest.param("false", FALSE, id="false"),
        pytest.param("missed", MISSED, id="missed"),
        pytest.param("neither", NEITHER, id="does not count"),
    ],
)
def test_each_kind_is_drawn_in_its_colour_where_it_is(name, color):
    picture = pixels(group(**{name: car(10, -15, num_points=np.array([3]))}))
    side = picture[125:176, 388:413]  # x 7.5 .. 12.5 m, y -13.8 .. -16.2 m: around the box
    assert (np.abs(side - color).max(axis=2) < 60).sum() > 20
    mirrored = picture[125:176, 88:113]
    assert (np.abs(mirrored - color).max(axis=2) < 60).sum() == 0


def test_only_false_ones_are_filled():
    for name, is_filled in (("hits", False), ("false", True), ("missed", False), ("neither", False), ("truth", False)):
        inside = pixels(group(**{name: car(10, -15)}))[155:158, 394:398]  # off the line that shows the front
        assert (np.abs(inside - PAPER).max() > 20) == is_filled


def test_points_and_groups_are_drawn_together():
    points = np.column_stack([np.full(50, -10.0), np.linspace(-20, -10, 50), np.zeros(50)])
    picture = pixels(group(hits=car(10, -15)), group(false=car(-20, 10)), points=np.concatenate([points, [[np.nan, 0, 0]]]))
    assert (picture[350:352, 350:450].mean(axis=2) < 230).any()
    assert (np.abs(picture[430:471] - FALSE).max(axis=2) < 60).any()
    assert (np.abs(picture[125:176] - HIT).max(axis=2) < 60).any()


def test_nothing_gives_a_picture_with_the_ego_vehicle():
    assert (pixels()[240:260, 245:255].mean(axis=2) < 120).any()
