"""Parts of bodies: kept inside the box, made of spans; draws of styles and coats."""

import numpy as np
import pytest

from cuda_ops import Kind
from perception.drives.simulated.parts import BORDER, Parts, Surface, coat, pick

GRAY = Surface(10.0)


def test_spans_become_a_box():
    parts = Parts(np.array([4.0, 2.0, 1.5]))
    parts.box((-1.0, 0.0), 0.5, (0.2, 1.0), GRAY, taper=(0.1, 0.2, 0.3), passes=0.4)
    body = parts.matter()
    np.testing.assert_allclose(body.shapes.center, [[-0.5, 0.0, 0.6]], atol=1e-6)
    np.testing.assert_allclose(body.shapes.size, [[1.0, 1.0, 0.8]], atol=1e-6)
    np.testing.assert_allclose(body.shapes.taper, [[0.1, 0.2, 0.3]], atol=1e-6)
    assert body.shapes.kind[0] == Kind.BOX
    assert body.shapes.pass_chance[0] == pytest.approx(0.4)
    assert body.reflectivity[0] == 10


@pytest.mark.parametrize(
    ("x", "taper", "low", "high"),
    [
        pytest.param((1.5, 2.5), (0.0, 0.0, 0.0), 1.0, 2.0, id="moved back inside"),
        pytest.param((-9.0, 9.0), (0.0, 0.0, 0.0), -2.0, 2.0, id="shrunk to the box"),
        pytest.param((1.0, 1.8), (-0.5, 0.5, 0.0), 0.7, 1.5, id="its top leans 0.5 m ahead"),
        pytest.param((-1.8, -1.0), (0.5, -0.5, 0.0), -1.5, -0.7, id="its top leans 0.5 m back"),
    ],
)
def test_parts_outside_the_box_come_inside(x, taper, low, high):
    parts = Parts(np.array([4.0, 2.0, 1.0]))
    parts.box(x, 0.5, (0.0, 1.0), GRAY, taper=taper)
    s = parts.matter().shapes
    np.testing.assert_allclose([s.center[0, 0] - s.size[0, 0] / 2, s.center[0, 0] + s.size[0, 0] / 2], [low, high], atol=3 * BORDER)


def test_a_part_above_the_box_becomes_a_thin_one_under_its_top():
    parts = Parts(np.array([4.0, 2.0, 1.0]))
    parts.box((0.0, 1.0), 0.5, (2.0, 3.0), GRAY)
    s = parts.matter().shapes
    assert 0 < s.size[0, 2] < 0.01
    assert s.center[0, 2] + s.size[0, 2] / 2 < 1.0


def test_no_parts_are_empty_matter():
    assert len(Parts(np.array([1.0, 1.0, 1.0])).matter()) == 0


def test_leaning_bar_ends_as_far_ahead_as_asked():
    parts = Parts(np.array([4.0, 2.0, 2.0]))
    parts.leaning((0.0, 0.2), 0.1, (0.0, 1.0), GRAY, lean=0.5)
    front, rear, side = parts.matter().shapes.taper[0]
    assert (front, rear, side) == (-0.5, 0.5, 0.0)  # 0.5 m over 1 m of height, both faces


def test_pick_follows_the_weights():
    rng = np.random.default_rng(0)
    names = [pick(rng, {"a": 3.0, "b": 1.0, "never": 0.0}) for _ in range(2000)]
    assert names.count("a") == pytest.approx(1500, abs=80)
    assert "never" not in names


def test_coat_stays_within_its_limits():
    rng = np.random.default_rng(0)
    readings = np.array([coat(rng, 10.0, 1.0, (2.0, 40.0)).reflectivity for _ in range(500)])
    assert readings.min() == 2.0
    assert readings.max() == 40.0
    assert np.median(readings) == pytest.approx(10.0, rel=0.2)
