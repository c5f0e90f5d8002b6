"""Other systems' boxes: the devkit for nuScenes, conversions written out by hand for the rest, both directions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nuscenes.eval.common.utils import quaternion_yaw
from nuscenes.utils.data_classes import Box
from pyquaternion import Quaternion

from perception.core import Boxes3D, DataError
from perception.core.borders import (
    CAMERA_TO_FORWARD,
    boxes_from_det3d,
    boxes_from_kitti,
    boxes_from_kitti_tracklets,
    boxes_from_mmdet3d,
    boxes_from_nuscenes,
    boxes_from_openpcdet,
    boxes_to_det3d,
    boxes_to_kitti,
    boxes_to_kitti_tracklets,
    boxes_to_mmdet3d,
    boxes_to_nuscenes,
    boxes_to_openpcdet,
    wrap_angle,
    yaw_of_quaternions,
)


def some_boxes(count: int = 12) -> Boxes3D:
    rng = np.random.default_rng(5)
    velocity = rng.normal(0, 5, (count, 2))
    velocity[1::4] = np.nan  # unknown
    yaw = np.linspace(-np.pi, np.pi, count, endpoint=False)
    return Boxes3D(rng.uniform(-50, 50, (count, 3)), rng.uniform(0.3, 12, (count, 3)), yaw, velocity)


def assert_same_boxes(a: Boxes3D, b: Boxes3D) -> None:
    assert len(a) == len(b)
    np.testing.assert_allclose(a.center, b.center, atol=1e-12)
    np.testing.assert_array_equal(a.size, b.size)
    np.testing.assert_allclose(np.exp(1j * a.yaw), np.exp(1j * b.yaw), atol=1e-12)
    np.testing.assert_array_equal(a.velocity, b.velocity)  # NaN equals NaN here


def by_hand(system: str, box: Boxes3D) -> list[float]:
    """One box as a row of `system`, number by number."""
    (x, y, z), (length, width, height), yaw, (vx, vy) = box.center[0], box.size[0], box.yaw[0], box.velocity[0]
    if system == "det3d":  # x y z w l h vx vy r, with r = -yaw - pi/2
        return [x, y, z, width, length, height, vx, vy, -yaw - np.pi / 2]
    if system == "openpcdet":  # x y z l w h yaw vx vy
        return [x, y, z, length, width, height, yaw, vx, vy]
    if system == "mmdet3d":  # the same with z of the bottom
        return [x, y, z - height / 2, length, width, height, yaw, vx, vy]
    raise AssertionError(system)


SYSTEMS = {
    "det3d": (boxes_from_det3d, boxes_to_det3d),
    "openpcdet": (boxes_from_openpcdet, boxes_to_openpcdet),
    "mmdet3d": (boxes_from_mmdet3d, boxes_to_mmdet3d),
}
YAW_COLUMN = {"det3d": 8, "openpcdet": 6, "mmdet3d": 6}


@pytest.mark.parametrize("system", SYSTEMS)
def test_rows_are_what_the_table_says(system):
    read, write = SYSTEMS[system]
    boxes = some_boxes()
    expected = np.array([by_hand(system, boxes[i]) for i in range(len(boxes))])
    got = write(boxes)
    column = YAW_COLUMN[system]
    np.testing.assert_allclose(np.exp(1j * got[:, column]), np.exp(1j * expected[:, column]), atol=1e-12)
    np.testing.assert_allclose(np.delete(got, column, axis=1), np.delete(expected, column, axis=1), atol=1e-12)
    assert (np.abs(got[:, column]) <= np.pi).all()
    assert_same_boxes(read(expected), boxes)  # the other direction, from rows written by hand


@pytest.mark.parametrize("system", SYSTEMS)
def test_round_trip_in_both_directions(system):
    read, write = SYSTEMS[system]
    boxes = some_boxes()
    assert_same_boxes(read(write(boxes)), boxes)
    rows = write(boxes)
    np.testing.assert_allclose(write(read(rows)), rows, atol=1e-12)


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("empty", [[], np.zeros((0, 9)), np.zeros((0, 9), np.float32)], ids=["list", "float64", "float32"])
def test_no_boxes_stay_no_boxes(system, empty):
    read, write = SYSTEMS[system]
    assert len(read(empty)) == 0
    assert write(Boxes3D.empty()).shape == (0, 9)


def test_one_box_by_eye():
    # A car heading left (+y): 4 m long, 2 m wide, 1.5 m high, driving at 3 m/s, middle at 1 m
    box = Boxes3D([[10, 5, 1]], [[4, 2, 1.5]], [np.pi / 2], [[0, 3]])
    np.testing.assert_allclose(boxes_to_det3d(box), [[10, 5, 1, 2, 4, 1.5, 0, 3, -np.pi]], atol=1e-12)  # -pi/2 - pi/2
    np.testing.assert_allclose(boxes_to_openpcdet(box), [[10, 5, 1, 4, 2, 1.5, np.pi / 2, 0, 3]], atol=1e-12)
    np.testing.assert_allclose(boxes_to_mmdet3d(box), [[10, 5, 0.25, 4, 2, 1.5, np.pi / 2, 0, 3]], atol=1e-12)


def test_det3d_heading_channels_are_minus_cos_and_minus_sin():
    # The network predicts (sin r, cos r); both peers document them as functions of yaw.
    boxes = some_boxes()
    r = boxes_to_det3d(boxes)[:, 8]
    np.testing.assert_allclose(np.sin(r), -np.cos(boxes.yaw), atol=1e-12)
    np.testing.assert_allclose(np.cos(r), -np.sin(boxes.yaw), atol=1e-12)


@pytest.mark.parametrize("read", [boxes_from_openpcdet, boxes_from_mmdet3d])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64])
def test_rows_of_seven_have_an_unknown_velocity(read, dtype):
    boxes = read(np.array([[1, 2, 3, 4, 5, 6, 1], [1, 2, 3, 4, 5, 6, -1]], dtype=dtype))
    assert np.isnan(boxes.velocity).all()
    np.testing.assert_array_equal(boxes.size, [[4, 5, 6], [4, 5, 6]])
    assert len(read(np.zeros((0, 7), dtype=dtype))) == 0


@pytest.mark.parametrize(
    ("read", "name"), [(boxes_from_det3d, "det3d"), (boxes_from_openpcdet, "OpenPCDet"), (boxes_from_mmdet3d, "mmdetection3d")]
)
@pytest.mark.parametrize("rows", [np.ones((2, 8)), np.ones(9), np.ones((1, 2, 9))], ids=["8 columns", "one row flat", "3 dimensions"])
def test_bad_rows_are_refused_under_the_name_of_their_system(read, name, rows):
    with pytest.raises(DataError, match=rf"{name} boxes: expected shape \(N, 9\), got"):
        read(rows)


@pytest.mark.parametrize("read", [pair[0] for pair in SYSTEMS.values()])
def test_rows_with_nan_outside_of_the_velocity_are_refused(read):
    rows = np.ones((2, 9))
    rows[1, 2] = np.nan
    with pytest.raises(DataError, match=r"expected finite numbers, got .* in row 1"):
        read(rows)


def random_quaternions(count: int) -> np.ndarray:
    return np.random.default_rng(2).normal(size=(count, 4))


def test_yaw_agrees_with_the_devkit_for_any_tilt():
    rotation = random_quaternions(200)
    expected = [quaternion_yaw(Quaternion(*q)) for q in rotation]
    np.testing.assert_allclose(yaw_of_quaternions(rotation), expected, atol=1e-9)
    np.testing.assert_allclose(yaw_of_quaternions(7 * rotation), expected, atol=1e-9)  # of any length
    assert np.isnan(yaw_of_quaternions(np.zeros((1, 4)))).all()


def test_nuscenes_boxes_have_the_devkits_corners():
    boxes = some_boxes()
    translation, size, rotation, velocity = boxes_to_nuscenes(boxes)
    np.testing.assert_array_equal(velocity, boxes.velocity)
    for i in range(len(boxes)):
        theirs = Box(translation[i].tolist(), size[i].tolist(), Quaternion(*rotation[i])).corners().T  # (8, 3)
        # The devkit: front face first, top left, top right, bottom right, bottom left; then the rear face.
        np.testing.assert_allclose(boxes.corners[i], theirs[[3, 7, 6, 2, 0, 4, 5, 1]], atol=1e-9)


def test_boxes_from_nuscenes_have_the_devkits_corners():
    rng = np.random.default_rng(1)
    translation, size, yaw = rng.uniform(-9, 9, (8, 3)), rng.uniform(1, 5, (8, 3)), rng.uniform(-3, 3, 8)
    rotation = np.array([Quaternion(axis=[0, 0, 1], radians=a).elements for a in yaw])
    boxes = boxes_from_nuscenes(translation, size, rotation)
    assert np.isnan(boxes.velocity).all()
    for i in range(8):
        theirs = Box(translation[i].tolist(), size[i].tolist(), Quaternion(*rotation[i])).corners().T
        np.testing.assert_allclose(boxes.corners[i], theirs[[3, 7, 6, 2, 0, 4, 5, 1]], atol=1e-9)


def test_nuscenes_round_trip():
    boxes = some_boxes()
    assert_same_boxes(boxes_from_nuscenes(*boxes_to_nuscenes(boxes)), boxes)
    assert len(boxes_from_nuscenes([], [], [], [])) == 0
    assert [column.shape for column in boxes_to_nuscenes(Boxes3D.empty())] == [(0, 3), (0, 3), (0, 4), (0, 2)]


@pytest.mark.parametrize(
    ("rotation", "message"),
    [
        pytest.param([[1, 0, 0, 0], [0, 0, 0, 0]], r"rotation: expected quaternions .* zero, got \[0\. 0\. 0\. 0\.\] in row 1", id="zero"),
        pytest.param([[1, 0, 0, 0], [np.nan, 0, 0, 0]], "rotation: expected finite numbers, got .* in row 1", id="NaN"),
        pytest.param([[1, 0, 0, 0], [np.inf, 0, 0, 0]], "rotation: expected finite numbers, got .* in row 1", id="infinite"),
        pytest.param([[1, 0, 0], [1, 0, 0]], r"rotation: expected shape \(2, 4\), got \(2, 3\)", id="three numbers"),
    ],
)
def test_bad_nuscenes_rotations_are_refused(rotation, message):
    with pytest.raises(DataError, match=message):
        boxes_from_nuscenes(np.zeros((2, 3)), np.ones((2, 3)), rotation)


@settings(max_examples=200, deadline=None)
@given(st.floats(-1e4, 1e4))
def test_wrapped_angles_lie_in_the_half_open_turn(angle):
    wrapped = wrap_angle(np.array([angle]))[0]
    assert -np.pi <= wrapped < np.pi
    assert np.exp(1j * wrapped) == pytest.approx(np.exp(1j * angle), abs=1e-9)


def test_wrapping_on_the_border():
    below = np.nextafter(-np.pi, -4)  # just below -pi: its remainder rounds up to a whole turn
    np.testing.assert_array_equal(wrap_angle(np.array([np.pi, -np.pi, below, 0.0])), [-np.pi, -np.pi, -np.pi, 0.0])
    assert wrap_angle(np.zeros(0)).shape == (0,)


@pytest.mark.parametrize("length", [1e-300, 1e-20, 3.0, 1e160, 1e300])
def test_the_length_of_a_quaternion_does_not_matter(length):
    unit = np.array([[0.5, 0.1, -0.2, 0.8], [0.0, 0.0, 0.0, 1.0], [-1.0, 0.0, 0.0, 0.0]])
    with np.errstate(all="raise", under="ignore"):
        np.testing.assert_allclose(yaw_of_quaternions(unit * length), yaw_of_quaternions(unit), rtol=1e-14)


@pytest.mark.parametrize(
    ("rotation_y", "yaw"),
    [
        pytest.param(-np.pi / 2, 0, id="looks ahead, along the camera's z"),
        pytest.param(0, -np.pi / 2, id="looks right, along the camera's x"),
        pytest.param(np.pi / 2, -np.pi, id="looks at the camera"),
        pytest.param(-3.0, 3.0 - np.pi / 2, id="looks left and a little ahead"),
    ],
)
def test_kitti_boxes_by_eye(rotation_y, yaw):
    # 20 m ahead, 3 m to the right, its bottom 1.65 m under the camera: the middle is half of 1.5 m higher
    boxes = boxes_from_kitti([[1.5, 1.6, 3.9]], [[3.0, 1.65, 20.0]], [rotation_y])
    np.testing.assert_allclose(boxes.center, [[20, -3, -0.9]])
    np.testing.assert_allclose(boxes.size, [[3.9, 1.6, 1.5]])  # the columns are h w l
    np.testing.assert_allclose(boxes.yaw, [yaw])
    assert np.isnan(boxes.velocity).all()
    # the same by the corners: the front right one at the bottom, turned about the camera's y by KITTI's own matrix
    c, s = np.cos(rotation_y), np.sin(rotation_y)
    corner = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) @ [3.9 / 2, 0, -1.6 / 2] + [3.0, 1.65, 20.0]
    np.testing.assert_allclose(np.abs(CAMERA_TO_FORWARD.apply(corner) - boxes.corners[0]).sum(axis=1).min(), 0, atol=1e-9)
    length_axis = CAMERA_TO_FORWARD.rotate([c, 0, -s])
    np.testing.assert_allclose(length_axis, [np.cos(boxes.yaw[0]), np.sin(boxes.yaw[0]), 0], atol=1e-12)


def test_kitti_tracklets_by_eye():
    boxes = boxes_from_kitti_tracklets([[1.5, 1.6, 3.9]], [[20.0, -3.0, -1.73]], [0.3])
    np.testing.assert_allclose(boxes.center, [[20, -3, -0.98]])
    np.testing.assert_allclose(boxes.size, [[3.9, 1.6, 1.5]])
    np.testing.assert_allclose(boxes.yaw, [0.3])
    assert np.isnan(boxes.velocity).all()


@pytest.mark.parametrize(
    ("read", "write"),
    [
        pytest.param(boxes_from_kitti, boxes_to_kitti, id="labels"),
        pytest.param(boxes_from_kitti_tracklets, boxes_to_kitti_tracklets, id="tracklets"),
    ],
)
def test_kitti_round_trip_in_both_directions(read, write):
    boxes = some_boxes()
    boxes = Boxes3D(boxes.center, boxes.size, boxes.yaw, np.full((len(boxes), 2), np.nan))  # they hold none
    assert_same_boxes(read(*write(boxes)), boxes)
    columns = write(boxes)
    for once, twice in zip(columns, write(read(*columns)), strict=True):
        np.testing.assert_allclose(once, twice, atol=1e-12)
    assert (np.abs(columns[2]) <= np.pi).all()
    assert len(read(*write(Boxes3D.empty()))) == 0
    with pytest.raises(DataError, match=r"dimensions: expected shape \(2, 3\), got \(1, 3\)"):
        read([[1, 1, 1]], np.zeros((2, 3)), [0, 0])
    with pytest.raises(DataError, match=r"Boxes3D\.size: expected length, width, height > 0"):
        read([[0, 1, 1]], np.zeros((1, 3)), [0])
