"""Boxes: corners and containment against shapely, transforms, rows."""

import numpy as np
import pytest
import shapely
import shapely.affinity
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.core import Boxes3D, DataError, Transform, concatenate

metres = st.floats(-500.0, 500.0)
angles = st.floats(-10.0, 10.0)
quick = settings(max_examples=50, deadline=None)


def random_boxes(count: int, seed: int = 0) -> Boxes3D:
    rng = np.random.default_rng(seed)
    velocity = rng.normal(0, 5, (count, 2))
    velocity[::3] = np.nan  # every third is unknown
    return Boxes3D(rng.uniform(-50, 50, (count, 3)), rng.uniform(0.3, 12, (count, 3)), rng.uniform(-4, 4, count), velocity)


boxes_strategy = st.builds(random_boxes, st.integers(0, 6), st.integers(0, 1000))
ground_transforms = st.builds(lambda yaw, x, y, z: Transform.from_yaw(yaw, (x, y, z)), angles, metres, metres, metres)


def assert_same_boxes(a: Boxes3D, b: Boxes3D, atol: float = 1e-8) -> None:
    assert len(a) == len(b)
    np.testing.assert_allclose(a.center, b.center, rtol=0, atol=atol)
    np.testing.assert_allclose(a.size, b.size, rtol=0, atol=atol)
    np.testing.assert_allclose(np.exp(1j * a.yaw), np.exp(1j * b.yaw), rtol=0, atol=atol)  # angles on the circle
    np.testing.assert_allclose(a.velocity, b.velocity, rtol=0, atol=atol, equal_nan=True)


def footprint(boxes: Boxes3D, i: int) -> shapely.Polygon:
    """Box i seen from above, turned and moved by shapely alone."""
    length, width, _ = boxes.size[i]
    flat = shapely.box(-length / 2, -width / 2, length / 2, width / 2)
    turned = shapely.affinity.rotate(flat, boxes.yaw[i], origin=(0, 0), use_radians=True)
    return shapely.affinity.translate(turned, *boxes.center[i, :2])


def test_corners_of_one_box_by_eye():
    # 4 m long, 2 m wide, 1 m high, heading left (+y): its front is at y = 2, its left side at x = -1
    box = Boxes3D([[0, 0, 0.5]], [[4, 2, 1]], [np.pi / 2], [[0, 0]])
    bottom = [[-1, 2, 0], [-1, -2, 0], [1, -2, 0], [1, 2, 0]]  # front left, rear left, rear right, front right
    np.testing.assert_allclose(box.corners[0, :4], bottom, atol=1e-12)
    np.testing.assert_allclose(box.corners[0, 4:], np.add(bottom, [0, 0, 1]), atol=1e-12)


def test_corners_agree_with_shapely():
    boxes = random_boxes(20)
    for i, corners in enumerate(boxes.corners):
        ours = shapely.Polygon(corners[:4, :2])
        assert ours.exterior.is_ccw
        assert ours.symmetric_difference(footprint(boxes, i)).area < 1e-9
        assert (corners[:4, 2] == boxes.center[i, 2] - boxes.size[i, 2] / 2).all()
        assert (corners[4:, 2] == boxes.center[i, 2] + boxes.size[i, 2] / 2).all()


def test_contains_agrees_with_shapely():
    boxes = random_boxes(20)
    around = np.random.default_rng(3).uniform(-1, 1, (20, 100, 3))
    points = (boxes.center[:, None] + around * boxes.size.max()).reshape(-1, 3)
    got = boxes.contains(points)
    assert got.shape == (20, 2000)
    for i in range(20):
        polygon = footprint(boxes, i)
        in_plan = shapely.contains_xy(polygon, points[:, 0], points[:, 1])
        in_height = np.abs(points[:, 2] - boxes.center[i, 2]) <= boxes.size[i, 2] / 2
        on_border = shapely.distance(polygon.exterior, shapely.points(points[:, :2])) < 1e-9
        np.testing.assert_array_equal(got[i][~on_border], (in_plan & in_height)[~on_border])
    assert got.any(axis=1).sum() > 10  # the comparison is not of nothing with nothing


@pytest.mark.parametrize(
    ("point", "is_inside"),
    [
        pytest.param([2, 1, 0.5], True, id="corner counts"),
        pytest.param([2, 0, 0], True, id="front face counts"),
        pytest.param([2.001, 0, 0], False, id="ahead"),
        pytest.param([0, -1.001, 0], False, id="right"),
        pytest.param([0, 0, 0.501], False, id="above"),
        pytest.param([np.nan, 0, 0], False, id="NaN is nowhere"),
    ],
)
def test_contains_includes_the_border(point, is_inside):
    box = Boxes3D([[0, 0, 0]], [[4, 2, 1]], [0.0], [[0, 0]])
    assert box.contains(np.array([point])).tolist() == [[is_inside]]


def test_contains_takes_clouds_with_more_columns_and_none():
    box = Boxes3D([[0, 0, 0]], [[4, 2, 1]], [0.0], [[0, 0]])
    assert box.contains(np.zeros((2, 5), np.float32)).tolist() == [[True, True]]
    assert box.contains(np.zeros((0, 3))).shape == (1, 0)
    assert box.contains([]).shape == (1, 0)
    assert Boxes3D.empty().contains(np.zeros((4, 3))).shape == (0, 4)
    with pytest.raises(DataError, match=r"points: expected shape \(N, 3\), got \(4, 2\)"):
        box.contains(np.zeros((4, 2)))


@quick
@given(boxes_strategy, ground_transforms)
def test_inverse_undoes_transformed(boxes, a_to_b):
    assert_same_boxes(boxes.transformed(a_to_b).transformed(a_to_b.inverse()), boxes)


@quick
@given(boxes_strategy, ground_transforms, ground_transforms)
def test_transformed_twice_is_transformed_by_the_composition(boxes, b_to_c, a_to_b):
    assert_same_boxes(boxes.transformed(a_to_b).transformed(b_to_c), boxes.transformed(b_to_c @ a_to_b))


@quick
@given(boxes_strategy, ground_transforms)
def test_corners_travel_with_the_box(boxes, a_to_b):
    np.testing.assert_allclose(boxes.transformed(a_to_b).corners, a_to_b.apply(boxes.corners), atol=1e-8)


@quick
@given(boxes_strategy, ground_transforms)
def test_speed_and_what_is_inside_do_not_depend_on_the_frame(boxes, a_to_b):
    points = boxes.center + 0.3 * boxes.size[:, [2, 1, 0]]
    moved = boxes.transformed(a_to_b)
    np.testing.assert_allclose(moved.speed, boxes.speed, atol=1e-9, equal_nan=True)
    distance = np.abs(np.abs(points[None] - boxes.center[:, None]) - boxes.size[:, None] / 2).min() if len(boxes) else 1.0
    if distance > 1e-6:
        np.testing.assert_array_equal(moved.contains(a_to_b.apply(points)), boxes.contains(points))


def test_transformed_with_tilt_keeps_boxes_upright():
    # Pitched by 10 degrees about y: the heading keeps its bearing, a vertical shift comes from the lever arm.
    pitch = Transform.from_quaternion([np.cos(np.radians(5)), 0, np.sin(np.radians(5)), 0])
    box = Boxes3D([[10, 0, 0]], [[4, 2, 1]], [0.0], [[5, 1]]).transformed(pitch)
    np.testing.assert_allclose(box.center, [[10 * np.cos(np.radians(10)), 0, -10 * np.sin(np.radians(10))]], atol=1e-12)
    np.testing.assert_allclose(box.yaw, [0.0], atol=1e-12)
    np.testing.assert_allclose(box.velocity, [[5 * np.cos(np.radians(10)), 1]], atol=1e-12)  # the vertical part is dropped
    np.testing.assert_array_equal(box.size, [[4, 2, 1]])


def test_transformed_turns_heading_and_velocity_together():
    box = Boxes3D([[1, 0, 0]], [[4, 2, 1]], [0.0], [[3, 0]]).transformed(Transform.from_yaw(np.pi / 2, (0, 0, 7)))
    np.testing.assert_allclose(box.center, [[0, 1, 7]], atol=1e-12)
    np.testing.assert_allclose(box.yaw, [np.pi / 2])
    np.testing.assert_allclose(box.velocity, [[0, 3]], atol=1e-12)


def test_unknown_velocity_is_nan_and_stays_nan():
    box = Boxes3D([[0, 0, 0]], [[1, 1, 1]], [0.0], [[np.nan, np.nan]])
    assert np.isnan(box.speed).all()
    assert np.isnan(box.transformed(Transform.from_yaw(0.3, (1, 2, 3))).velocity).all()


def test_empty_boxes_work_everywhere():
    empty = Boxes3D.empty()
    assert len(empty) == 0
    assert repr(empty) == "Boxes3D(0 boxes)"
    assert empty.corners.shape == (0, 8, 3)
    assert empty.speed.shape == (0,)
    assert_same_boxes(empty.transformed(Transform.identity()), empty)
    assert_same_boxes(Boxes3D([], [], [], []), empty)
    assert_same_boxes(concatenate([empty, random_boxes(2), empty]), random_boxes(2))


def test_repr_is_one_line_with_the_extent():
    boxes = Boxes3D([[0, -2, 0], [10.04, 3, 0]], np.ones((2, 3)), np.zeros(2), np.zeros((2, 2)))
    assert repr(boxes) == "Boxes3D(2 boxes, x 0.0..10.0, y -2.0..3.0)"


def box_with(**changes):
    columns = {"center": np.zeros((2, 3)), "size": np.ones((2, 3)), "yaw": np.zeros(2), "velocity": np.zeros((2, 2))}
    return Boxes3D(**{**columns, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"center": np.zeros((2, 2))}, r"Boxes3D\.center: expected shape \(N, 3\), got \(2, 2\)", id="flat centre"),
        pytest.param({"center": [[0, 0, 0], [0, np.nan, 0]]}, r"Boxes3D\.center: expected finite numbers, got .*nan.* in row 1", id="NaN"),
        pytest.param({"center": np.zeros((2, 0))}, r"Boxes3D\.center: expected shape \(N, 3\), got \(2, 0\)", id="no columns"),
        pytest.param({"size": np.ones((2, 4))}, r"Boxes3D\.size: expected shape \(2, 3\), got \(2, 4\)", id="velocity in size"),
        pytest.param({"size": [[1, 1, 1], [1, 0, 1]]}, r"expected length, width, height > 0, got \[1\. 0\. 1\.\] in row 1", id="flat box"),
        pytest.param({"size": [[1, 1, -1], [1, 1, 1]]}, r"expected length, width, height > 0, got .* in row 0", id="negative"),
        pytest.param({"yaw": np.zeros(3)}, r"Boxes3D\.yaw: expected shape \(2,\), got \(3,\)", id="one yaw too many"),
        pytest.param({"yaw": [0, np.inf]}, r"Boxes3D\.yaw: expected finite numbers, got inf in row 1", id="infinite yaw"),
        pytest.param({"yaw": ["a", "b"]}, r"Boxes3D\.yaw: expected dtype float64, got <U1", id="text"),
        pytest.param({"velocity": np.zeros((2, 3))}, r"Boxes3D\.velocity: expected shape \(2, 2\), got \(2, 3\)", id="three velocities"),
        pytest.param({"velocity": np.zeros((2, 2), complex)}, "expected dtype float64, got complex128", id="complex"),
    ],
)
def test_bad_boxes_are_refused(changes, message):
    with pytest.raises(DataError, match=message):
        box_with(**changes)


def test_narrower_numbers_are_widened():
    boxes = box_with(center=np.zeros((2, 3), np.float32), size=np.ones((2, 3), np.int8))
    assert boxes.center.dtype == boxes.size.dtype == np.float64


def test_transformed_boxes_have_the_same_bits_wherever_their_arrays_lie_in_memory():
    rng = np.random.default_rng(0)
    turn = Transform.from_quaternion(np.array([0.9, 0.02, -0.03, 0.4]), np.array([600.0, 1600.0, 1.0]))
    for count in (197, 253, 333):
        boxes = Boxes3D(rng.normal(0, 50, (count, 3)), np.ones((count, 3)), rng.uniform(-3, 3, count), rng.normal(0, 5, (count, 2)))
        seen = set()
        for _ in range(400):
            others = [np.empty(int(rng.integers(1, 4000))) for _ in range(4)]  # so that arrays get other places
            moved = boxes.transformed(turn)
            seen.add(moved.yaw.tobytes() + moved.center.tobytes() + moved.velocity.tobytes())
            del others
        assert len(seen) == 1
