"""Augmentation: truth moves with the points, points are counted anew, the same state of the generator gives the same sample."""

import math

import numpy as np
import pytest
import torch

from perception.core.borders import boxes_from_det3d, boxes_to_det3d
from perception.core.boxes import Boxes3D
from perception.training.augment import augment
from perception.training.augment_settings import AugmentSettings
from perception.training.placement import draw_placement
from perception.training.sample import Sample

MOVED = {
    "flip_x": 0.5,
    "flip_y": 0.5,
    "rotation": np.pi,
    "scale": (0.8, 1.25),
    "translation": (0.5, 0.7, 0.2),
    "height": 0.3,
}


def settings_of(**values):
    return AugmentSettings.model_validate(values)


def rng_of(seed=0):
    return np.random.default_rng(seed)


def boxes_at(*centers, size=(4.0, 2.0, 1.5), yaw=0.3, velocity=(3.0, -1.0)):
    """det3d rows of boxes of one size."""
    count = len(centers)
    boxes = Boxes3D(np.array(centers, float).reshape(-1, 3), np.tile(size, (count, 1)), np.full(count, yaw), np.tile(velocity, (count, 1)))
    return torch.from_numpy(boxes_to_det3d(boxes).astype(np.float32))


def sample_with(points=(), boxes=None, labels=None, origin=(0.0, 0.0, 0.0)):
    """points: rows of x, y, z and perhaps intensity and age."""
    rows = torch.zeros(len(points), 5)
    for i, point in enumerate(points):
        rows[i, : len(point)] = torch.tensor(point)
    boxes = boxes_at() if boxes is None else boxes
    labels = torch.zeros(len(boxes), dtype=torch.int64) if labels is None else torch.tensor(labels)
    return Sample("token", rows, boxes, labels, torch.full((len(boxes),), 7), torch.tensor(origin))


def corners(rows):
    return boxes_from_det3d(rows.double().numpy()).corners


def test_nothing_is_changed_unless_asked_for():
    sample = sample_with([(1, 2, 3, 40, 0), (4, 5, 6, 70, 0.1)], boxes_at((30, 0, 0)))
    found = augment(sample, settings_of(), rng_of())
    for name in ("points", "boxes", "labels", "num_points", "origin"):
        torch.testing.assert_close(getattr(found, name), getattr(sample, name), rtol=0, atol=0)
    assert found.token == sample.token


@pytest.mark.parametrize("seed", range(20))
def test_corners_and_origin_move_like_points(seed):
    rng = rng_of(seed)
    centers, yaw = rng.uniform(-40, 40, (6, 3)), rng.uniform(-3, 3)
    boxes = boxes_at(*centers, yaw=yaw)
    before = corners(boxes).reshape(-1, 3)
    sample = sample_with([*before, (1.0, 2.0, 3.0)], boxes, origin=(1.0, 2.0, 3.0))
    found = augment(sample, settings_of(**MOVED), rng)
    moved = found.points[:-1, :3].double().numpy().reshape(-1, 8, 3)
    # Each corner is where the point went that lay on it; float32 at 60 m has steps of 4 micrometres.
    distance = np.linalg.norm(corners(found.boxes)[:, :, None] - moved[:, None], axis=-1)
    assert distance.min(axis=2).max() < 1e-4
    assert distance.min(axis=1).max() < 1e-4
    torch.testing.assert_close(found.points[-1, :3], found.origin)
    assert not np.allclose(moved, before.reshape(-1, 8, 3), atol=0.05)


@pytest.mark.parametrize("seed", range(20))
def test_heading_and_velocity_are_those_of_the_moved_object(seed):
    # The front of the box, and where it is a second later, as points of the scene.
    boxes = boxes_at((10.0, 5.0, 0.0), yaw=0.4, velocity=(6.0, 2.5))
    front = (10 + 2 * math.cos(0.4), 5 + 2 * math.sin(0.4), 0.0)
    sample = sample_with([(10.0, 5.0, 0.0), front, (16.0, 7.5, 0.0)], boxes)
    found = augment(sample, settings_of(**MOVED), rng_of(seed))
    center, front, later = found.points[:, :3].double().numpy()
    box = boxes_from_det3d(found.boxes.double().numpy())
    np.testing.assert_allclose(box.center[0], center, atol=1e-5)
    np.testing.assert_allclose([np.cos(box.yaw[0]), np.sin(box.yaw[0])], (front - center)[:2] / np.linalg.norm(front - center), atol=1e-5)
    np.testing.assert_allclose(box.velocity[0], (later - center)[:2], atol=1e-5)
    assert -np.pi - 1e-6 <= found.boxes[0, 8] <= np.pi + 1e-6


@pytest.mark.parametrize(
    ("name", "row"),
    [
        # x y z w l h vx vy r; det3d: y -> -y makes pi - r, x -> -x makes -r
        ("flip_y", [10, -5, 1, 2, 4, 1.5, 6, -2.5, np.pi - 0.4]),
        ("flip_x", [-10, 5, 1, 2, 4, 1.5, -6, 2.5, -0.4]),
    ],
)
def test_flips_are_those_of_the_published_code(name, row):
    boxes = torch.tensor([[10, 5, 1, 2, 4, 1.5, 6, 2.5, 0.4]])
    found = augment(sample_with([(1, 2, 3)], boxes), settings_of(**{name: 1.0}), rng_of())
    np.testing.assert_allclose(found.boxes[0].numpy(), row, rtol=1e-6, atol=1e-6)


def test_both_flips_are_half_a_turn():
    boxes = boxes_at((10, 5, 1), yaw=0.4)
    found = augment(sample_with([], boxes), settings_of(flip_x=1.0, flip_y=1.0), rng_of())
    box = boxes_from_det3d(found.boxes.double().numpy())
    assert np.angle(np.exp(1j * (box.yaw[0] - 0.4 - np.pi))) == pytest.approx(0, abs=1e-6)


def test_an_unknown_velocity_stays_unknown_and_alone():
    boxes = boxes_at((10, 5, 1), (20, 5, 1))
    boxes[0, 6:8] = math.nan
    found = augment(sample_with([], boxes), settings_of(**MOVED), rng_of())
    assert torch.isnan(found.boxes).tolist() == [[False] * 6 + [True] * 2 + [False], [False] * 9]


def test_ages_and_intensities_are_not_moved():
    sample = sample_with([(1, 2, 3, 40, 0.05)])
    found = augment(sample, settings_of(**MOVED), rng_of())
    assert found.points[0, 3:].tolist() == pytest.approx([40, 0.05])


def test_a_tilt_moves_points_and_middles_and_leaves_boxes_upright():
    boxes = boxes_at((40, 0, 0), (0, 40, 0))
    sample = sample_with([(40, 0, 0), (0, 40, 0), (0, 0, 10)], boxes)
    settings = settings_of(tilt=0.026)
    heights = []
    for seed in range(200):
        found = augment(sample, settings, rng_of(seed))
        torch.testing.assert_close(found.boxes[:, :3], found.points[:2, :3])
        torch.testing.assert_close(found.boxes[:, 3:], boxes[:, 3:], rtol=0, atol=1e-6)
        assert found.points[2, :3].norm() == pytest.approx(10, rel=1e-5)
        heights.append(found.boxes[:, 2].numpy())
    # 0.026 * 40 m = 1.04 m at the most, both ways, on either axis
    assert np.abs(heights).max(axis=0) == pytest.approx([1.04, 1.04], abs=0.1)
    assert np.mean(heights, axis=0) == pytest.approx([0, 0], abs=0.2)


def test_drawn_numbers_lie_in_their_ranges():
    settings = settings_of(rotation=0.5, scale=(0.9, 1.1), height=0.3)
    drawn = [draw_placement(settings, rng_of(seed)) for seed in range(300)]
    scales, heights = [p.scale for p in drawn], [p.shift[2] for p in drawn]
    angles = [math.atan2(p.plane[1, 0], p.plane[0, 0]) for p in drawn]
    for values, low, high in ((scales, 0.9, 1.1), (heights, -0.3, 0.3), (angles, -0.5, 0.5)):
        assert low <= min(values) < low + 0.05 * (high - low)
        assert high >= max(values) > high - 0.05 * (high - low)
    assert all(p.shift[:2].tolist() == [0, 0] for p in drawn)
