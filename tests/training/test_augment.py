"""Augmentation: truth moves with the points, points are counted anew, the generator alone decides."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from perception.core.borders import boxes_from_det3d
from perception.core.config import parse_config
from perception.core.errors import UsageError
from perception.training.augment import augment
from perception.training.augment_settings import AugmentSettings
from perception.training.placement import draw_placement
from tests.training.scenes import boxes_at, crowded, in_boxes, rng_of, sample_with, settings_of

MOVED = {
    "flip_x": 0.5,
    "flip_y": 0.5,
    "rotation": np.pi,
    "scale": (0.8, 1.25),
    "translation": (0.5, 0.7, 0.2),
    "height": 0.3,
}


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


EVERYTHING = MOVED | {
    "tilt": 0.026,
    "object_scale": (0.9, 1.1),
    "object_stretch": ((0.9, 1.1), (0.8, 1.0), (1.0, 1.2)),
    "object_drop": {"chance": 1.0},
    "sweeps": {"count": [1, 10]},
    "beams": {"chance": 1.0},
    "point_drop": {"chance": 1.0},
    "sector": {"chance": 1.0},
    "intensity": {},
    "jitter": 0.01,
    "shuffle": True,
}
PARTS = [{name: value} for name, value in EVERYTHING.items()]
TENSORS = ("points", "boxes", "labels", "num_points", "origin")


@pytest.mark.parametrize("values", [*PARTS, EVERYTHING], ids=[*EVERYTHING, "everything"])
def test_the_generator_alone_decides_and_the_sample_is_left_as_it_was(values):
    sample, settings = crowded(), settings_of(**values)
    before = {name: getattr(sample, name).clone() for name in TENSORS}
    found, again = (augment(sample, settings, rng_of(4)) for _ in range(2))
    others = [augment(sample, settings, rng_of(seed)) for seed in range(5, 10)]
    for name in TENSORS:
        torch.testing.assert_close(getattr(sample, name), before[name], rtol=0, atol=0)
        torch.testing.assert_close(getattr(found, name), getattr(again, name), rtol=0, atol=0, equal_nan=True)
        assert getattr(found, name).dtype == before[name].dtype
        assert getattr(found, name).is_contiguous()
    assert any(not torch.equal(other.points, found.points) or not torch.equal(other.boxes, found.boxes) for other in others)
    assert len(found.boxes) == len(found.labels) == len(found.num_points)


@pytest.mark.parametrize("values", [*PARTS, EVERYTHING], ids=[*EVERYTHING, "everything"])
@pytest.mark.parametrize(("points", "boxes"), [(0, 0), (0, 2), (1, 0)])
def test_empty_clouds_and_scenes_stay_empty(values, points, boxes):
    sample = sample_with([(30, 0, 0)] * points, boxes_at(*[(5, 5, 0)] * boxes))
    found = augment(sample, settings_of(**values), rng_of())
    assert found.points.shape[1] == 5
    assert found.boxes.shape[1] == 9
    assert len(found.points) <= points
    assert len(found.boxes) <= boxes


@pytest.mark.parametrize("seed", range(6))
def test_returns_of_the_key_sweep_are_counted_anew(seed):
    sample = crowded(seed, num_points=20000)
    values = {"sweeps": {"count": [1, 4]}, "point_drop": {"chance": 1.0, "near": [0.2, 0.2], "far": [0.9, 0.9]}, "min_points": 3}
    found = augment(sample, settings_of(**values), rng_of(seed))
    key = found.points[found.points[:, 4] == 0]
    assert found.num_points.tolist() == in_boxes(key, found.boxes).sum(axis=1).tolist()
    enough = np.flatnonzero(in_boxes(key, sample.boxes).sum(axis=1) >= 3)
    assert 0 < len(enough) < len(sample.boxes)
    assert found.labels.tolist() == sample.labels[enough].tolist()
    torch.testing.assert_close(found.boxes[:, :6], sample.boxes[enough, :6], rtol=0, atol=0)


def test_boxes_without_returns_go_and_counts_stay_where_no_point_was_touched():
    sample = sample_with([(5, 0, 0)], boxes_at((5, 0, 0), (30, 0, 0)))
    assert augment(sample, settings_of(**MOVED), rng_of()).num_points.tolist() == [7, 7]
    assert augment(sample, settings_of(**MOVED, min_points=8), rng_of()).num_points.tolist() == []
    lost = {"near": [0, 0], "far": [0, 0], "chance": 1.0}
    assert augment(sample, settings_of(point_drop=lost), rng_of()).num_points.tolist() == [1]
    assert augment(sample, settings_of(point_drop=lost, min_points=0), rng_of()).num_points.tolist() == [1, 0]


def test_returns_are_counted_before_a_tilt_that_boxes_do_not_follow():
    # 3 m high, 40 m off: a tilt of 1.5 degrees moves the top by 8 cm against the bottom, and points on the faces out of the box.
    boxes = boxes_at((40, 0, 0), size=(4, 2, 3), yaw=0)
    corners_in = [(40 + x, y, z) for x in (-2, 2) for y in (-1, 1) for z in (-1.5, 1.5)]
    lost = {"near": [0, 0], "far": [0, 0], "chance": 1.0}
    for seed in range(5):
        found = augment(sample_with(corners_in, boxes), settings_of(tilt=0.026, point_drop=lost), rng_of(seed))
        assert found.num_points.tolist() == [8]


def test_each_object_is_scaled_by_itself_with_its_points_and_stays_on_the_ground():
    boxes = boxes_at((10, 0, 1), (20, 5, 1), size=(4, 2, 2), yaw=0.3)
    box = boxes_from_det3d(boxes.double().numpy())
    turn = np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])

    def point(box, along, across, above):
        """In a box, as shares of its half sizes, from the middle of its bottom face."""
        half = box.size[0] / 2
        x, y = turn @ (along * half[0], across * half[1]) + box.center[0, :2]
        return x, y, box.center[0, 2] - half[2] + above * half[2]

    shares = [(0.9, -0.9, 0.1), (-0.5, 0.2, 1.9), (0, 0, 1)]
    outside = [(10, 0, 3), (14, 0, 1), (-3, 2, 0.5)]
    points = [point(box[i], *share) for i in range(2) for share in shares] + outside
    found = augment(sample_with(points, boxes), settings_of(object_scale=(0.5, 0.9)), rng_of(1))
    scaled = boxes_from_det3d(found.boxes.double().numpy())
    factors = scaled.size / box.size
    assert (factors >= 0.5).all()
    assert (factors <= 0.9).all()
    np.testing.assert_allclose(factors, factors[:, :1].repeat(3, axis=1), rtol=1e-6)
    assert abs(factors[0, 0] - factors[1, 0]) > 0.01
    np.testing.assert_allclose(scaled.center[:, :2], box.center[:, :2], atol=1e-6)
    np.testing.assert_allclose(scaled.center[:, 2] - scaled.size[:, 2] / 2, 0, atol=1e-6)
    expected = [point(scaled[i], *share) for i in range(2) for share in shares]
    np.testing.assert_allclose(found.points[:6, :3].numpy(), expected, atol=1e-5)
    torch.testing.assert_close(found.points[6:, :3], torch.tensor(outside, dtype=torch.float32), rtol=0, atol=0)
    assert found.num_points.tolist() == [3, 3]
    torch.testing.assert_close(found.boxes[:, 6:], boxes[:, 6:], rtol=0, atol=0)


def test_objects_are_stretched_along_their_own_axes():
    size, yaw = np.array([4.0, 2.0, 2.0]), 0.4
    boxes = boxes_at((20, 5, 1), size=size, yaw=yaw)
    turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
    shares = np.array([(0.9, -0.9, 0.1), (-0.5, 0.2, 1.9), (0.3, 0.9, 1)])  # of half the size, from the middle of the bottom face

    def points(size):
        local = shares * size / 2
        return np.column_stack([local[:, :2] @ turn.T + (20, 5), local[:, 2]])

    stretch = {"object_scale": (0.9, 0.9), "object_stretch": ((0.8, 0.8), (1.0, 1.0), (1.25, 1.25))}
    found = augment(sample_with(points(size), boxes), settings_of(**stretch), rng_of())
    after = size * 0.9 * (0.8, 1.0, 1.25)
    np.testing.assert_allclose(found.points[:, :3].numpy(), points(after), atol=1e-5)
    np.testing.assert_allclose(boxes_from_det3d(found.boxes.double().numpy()).size, [after], rtol=1e-6)
    np.testing.assert_allclose(found.boxes[:, [0, 1, 2, 8]].numpy(), [[20, 5, after[2] / 2, boxes[0, 8]]], rtol=1e-6)
    sample, settings = sample_with([(20, 5, 1)], boxes), settings_of(object_stretch=((0.9, 1.1),) * 3)
    free = [augment(sample, settings, rng_of(seed)).boxes for seed in range(40)]
    factors = (torch.cat(free)[:, [4, 3, 5]] / torch.tensor(size, dtype=torch.float32)).numpy()
    assert np.abs(np.corrcoef(factors.T) - np.eye(3)).max() < 0.5  # each by itself
    assert factors.min() >= 0.9 - 1e-6
    assert factors.max() <= 1.1 + 1e-6


def test_objects_lose_their_own_share_of_points():
    rng = np.random.default_rng(3)
    boxes = boxes_at((10, 0, 0), (20, 5, 0), size=(4, 2, 2), yaw=0)
    inside = [(x + dx, y + dy, 0) for x, y in ((10, 0), (20, 5)) for dx, dy in rng.uniform((-1.9, -0.9), (1.9, 0.9), (4000, 2))]
    sample = sample_with([*inside, *[(30, 0, 0)] * 500], boxes)
    settings = settings_of(
        object_drop={"chance": 1.0, "share": [0.2, 0.8]}, point_drop={"chance": 1.0, "near": [0.5, 0.5], "far": [0.5, 0.5]}
    )
    shares = []
    for seed in range(12):
        found = augment(sample, settings, rng_of(seed))
        x = found.points[:, 0].numpy()
        assert 190 < (x > 29).sum() < 310  # half of what is in no box, lost for itself
        kept = np.array([((x > low) & (x < low + 4)).sum() for low in (8, 18)])
        assert found.num_points.tolist() == kept.tolist()
        shares.append(1 - kept / 4000 / 0.5)
    shares = np.array(shares)
    assert 0.15 < shares.min() < 0.35
    assert 0.65 < shares.max() < 0.85
    assert (np.abs(shares[:, 0] - shares[:, 1]) > 0.1).mean() > 0.3  # each object its own
    some = settings_of(object_drop={"chance": 0.5, "share": [1.0, 1.0]}, min_points=0)
    empty = torch.cat([augment(sample, some, rng_of(seed)).num_points == 0 for seed in range(40)])
    assert 0.3 < empty.float().mean() < 0.7


def test_an_object_that_grows_takes_in_what_it_covers():
    boxes = boxes_at((10, 0, 1), size=(4, 2, 2), yaw=0)
    sample = sample_with([(11.9, 0, 1), (12.1, 0, 1)], boxes)  # 10 +- 2 m becomes 10 +- 2.2
    found = augment(sample, settings_of(object_scale=(1.1, 1.1)), rng_of())
    assert found.num_points.tolist() == [2]
    assert found.points[:, 0].tolist() == pytest.approx([12.09, 12.1])


def test_intensities_follow_gain_and_gamma():
    sample = sample_with([(1, 1, 1, value) for value in (0, 51, 255)])
    # 255 * 0.5 * (51 / 255) ** 2 = 5.1
    found = augment(sample, settings_of(intensity={"gain": [0.5, 0.5], "gamma": [2, 2]}), rng_of())
    assert found.points[:, 3].tolist() == pytest.approx([0, 5.1, 127.5])
    found = augment(sample, settings_of(intensity={"gain": [3, 3], "gamma": [1, 1]}), rng_of())
    assert found.points[:, 3].tolist() == pytest.approx([0, 153, 255])


def test_a_share_of_the_samples_has_no_intensity():
    sample, settings = sample_with([(1, 1, 1, 100)]), settings_of(intensity={"zero": 0.3})
    values = np.array([augment(sample, settings, rng_of(seed)).points[0, 3].item() for seed in range(400)])
    assert 0.2 < (values == 0).mean() < 0.4  # 0.3 +- 4 deviations
    rest = values[values > 0] / 255
    # (100 / 255) ** 1.4 * 0.7 to (100 / 255) ** 0.7 * 1.4
    assert 0.188 < rest.min() < 0.23
    assert 0.65 < rest.max() < 0.728


def test_jitter_has_its_deviation_and_leaves_the_rest():
    sample = crowded()
    found = augment(sample, settings_of(jitter=0.02), rng_of())
    offset = found.points[:, :3] - sample.points[:, :3]
    assert offset.std(dim=0).tolist() == pytest.approx([0.02] * 3, rel=0.05)
    assert offset.mean(dim=0).tolist() == pytest.approx([0] * 3, abs=0.002)
    torch.testing.assert_close(found.points[:, 3:], sample.points[:, 3:], rtol=0, atol=0)


def test_shuffling_keeps_every_point():
    sample = crowded()
    found = augment(sample, settings_of(shuffle=True), rng_of())
    assert not torch.equal(found.points, sample.points)
    assert sorted(found.points.tolist()) == sorted(sample.points.tolist())


def test_further_columns_travel_with_their_points():
    sample = crowded()
    tagged = torch.cat([sample.points, torch.arange(len(sample.points), dtype=torch.float32)[:, None]], dim=1)
    sample = replace(sample, points=tagged)
    found = augment(sample, settings_of(**(EVERYTHING | {"intensity": None, "jitter": 0.0})), rng_of(3))
    rows = found.points[:, 5].long()
    assert found.points.shape[1] == 6
    assert 0 < len(rows) < len(tagged)
    torch.testing.assert_close(found.points[:, 3:5], tagged[rows, 3:5], rtol=0, atol=0)


def test_no_gradient_is_kept():
    sample = crowded()
    sample.points.requires_grad_()
    assert not augment(sample, settings_of(**EVERYTHING), rng_of()).points.requires_grad


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scale": [1.1, 0.9]}, r"scale: expected the lower number first, got \[1.1, 0.9\]"),
        ({"flip_z": 0.5}, "flip_z: unknown key, .*did you mean 'flip_[xy]'"),
        ({"rotation": 45}, "rotation: .*less than or equal to 3.14.*, got 45"),
        ({"point_drop": {"chance": 2}}, "point_drop.chance: .*less than or equal to 1, got 2"),
        ({"sweeps": {"count": [0, 3]}}, "sweeps.count.*greater than or equal to 1, got 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values, message):
    with pytest.raises(UsageError, match=message):
        parse_config(values, AugmentSettings, where="train.yaml")
