"""Transforms and poses against pyquaternion and SciPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyquaternion import Quaternion
from scipy.spatial.transform import Rotation, Slerp

from perception.core import DataError, Transform, interpolate_pose
from perception.core.transform import interpolate_pose_at, quaternions_to_matrices

number = st.floats(-1.0, 1.0)
metres = st.floats(-1000.0, 1000.0)
quaternions = st.tuples(number, number, number, number).filter(lambda q: np.linalg.norm(q) > 0.1)
transforms = st.builds(Transform.from_quaternion, quaternions, st.tuples(metres, metres, metres))
quick = settings(max_examples=60, deadline=None)

# Half turns and other corners of the conversion from matrix to quaternion, where one divisor or another vanishes.
CORNERS = [
    pytest.param((1, 0, 0, 0), id="no turn"),
    pytest.param((0, 1, 0, 0), id="half turn about x"),
    pytest.param((0, 0, 1, 0), id="half turn about y"),
    pytest.param((0, 0, 0, 1), id="half turn about z"),
    pytest.param((0, 1, 1, 0), id="half turn about a diagonal"),
    pytest.param((1e-9, 0.6, 0, 0.8), id="almost a half turn"),
    pytest.param((-0.5, 0.5, 0.5, -0.5), id="negative w"),
    pytest.param((0.1, -0.9, 0.3, 0.2), id="x is the largest, and negative"),
    pytest.param((3.0, 0.0, 0.0, 4.0), id="length 5"),
]


def same(a: Transform, b: Transform, atol: float = 1e-9) -> bool:
    return np.allclose(a.matrix, b.matrix, rtol=0, atol=atol)


@pytest.mark.parametrize("quaternion", CORNERS)
def test_quaternion_to_matrix_and_back_agrees_with_pyquaternion(quaternion):
    expected = Quaternion(*quaternion).normalised
    ours = Transform.from_quaternion(quaternion)
    np.testing.assert_allclose(ours.rotation, expected.rotation_matrix, atol=1e-12)
    assert np.linalg.norm(ours.quaternion) == pytest.approx(1)
    assert ours.quaternion[0] >= 0
    assert abs(ours.quaternion @ expected.elements) == pytest.approx(1)  # q and -q are the same rotation


@quick
@given(quaternions)
def test_quaternion_to_matrix_and_back_agrees_with_scipy(quaternion):
    w, x, y, z = quaternion
    expected = Rotation.from_quat([x, y, z, w])  # SciPy puts w last
    ours = Transform.from_quaternion(quaternion)
    np.testing.assert_allclose(ours.rotation, expected.as_matrix(), atol=1e-12)
    assert ours.quaternion[0] >= 0
    back = Rotation.from_quat(np.roll(ours.quaternion, -1))
    assert (back * expected.inv()).magnitude() < 1e-7


def test_many_quaternions_are_converted_row_by_row():
    q = np.random.default_rng(0).normal(size=(2, 3, 4))
    expected = Rotation.from_quat(np.roll(q, -1, axis=-1).reshape(-1, 4)).as_matrix().reshape(2, 3, 3, 3)
    np.testing.assert_allclose(quaternions_to_matrices(q), expected, atol=1e-12)
    assert quaternions_to_matrices(np.zeros((0, 4))).shape == (0, 3, 3)


def test_apply_moves_points_and_rotate_does_not():
    # A quarter turn to the left: forward becomes left, left becomes backward.
    turn = Transform.from_yaw(np.pi / 2, (10.0, 20.0, 1.0))
    np.testing.assert_allclose(turn.apply([[1, 0, 0], [0, 2, 0]]), [[10, 21, 1], [8, 20, 1]], atol=1e-12)
    np.testing.assert_allclose(turn.rotate([[1, 0, 0], [0, 2, 0]]), [[0, 1, 0], [-2, 0, 0]], atol=1e-12)
    assert turn.yaw == pytest.approx(np.pi / 2)
    assert repr(turn) == "Transform(x=10.000, y=20.000, z=1.000, yaw=90.00 deg)"


@pytest.mark.parametrize("shape", [(3,), (0, 3), (1, 3), (2, 5, 3)], ids=str)
def test_apply_keeps_the_leading_shape(shape):
    a_to_b = Transform.from_quaternion((0.3, -0.2, 0.5, 0.7), (1, 2, 3))
    points = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    got = a_to_b.apply(points)
    assert got.shape == shape
    assert got.dtype == np.float64
    homogeneous = np.concatenate([points.astype(np.float64), np.ones((*shape[:-1], 1))], axis=-1)
    np.testing.assert_allclose(got, (homogeneous @ a_to_b.matrix.T)[..., :3], atol=1e-12)


def test_nan_points_stay_nan_and_touch_no_other():
    got = Transform.from_yaw(0.3, (1, 1, 1)).apply([[np.nan, 0, 0], [0, 0, 0]])
    assert np.isnan(got[0]).any()
    np.testing.assert_array_equal(got[1], [1, 1, 1])


@quick
@given(transforms)
def test_inverse_undoes(a_to_b):
    assert same(a_to_b.inverse() @ a_to_b, Transform.identity(), atol=1e-8)
    assert same(a_to_b @ a_to_b.inverse(), Transform.identity(), atol=1e-8)


@quick
@given(transforms, transforms, transforms)
def test_composition_applies_the_right_one_first(c_to_d, b_to_c, a_to_b):
    point = np.array([[1.0, -2.0, 3.0]])
    np.testing.assert_allclose((b_to_c @ a_to_b).apply(point), b_to_c.apply(a_to_b.apply(point)), atol=1e-8)
    assert same((c_to_d @ b_to_c) @ a_to_b, c_to_d @ (b_to_c @ a_to_b), atol=1e-8)
    assert np.allclose((b_to_c @ a_to_b).matrix, b_to_c.matrix @ a_to_b.matrix, atol=1e-9)


@quick
@given(transforms, transforms, st.floats(0.0, 1.0))
def test_interpolation_agrees_with_scipys_slerp(before, after, fraction):
    keys = Rotation.from_matrix(np.stack([before.rotation, after.rotation]))
    if (keys[1] * keys[0].inv()).magnitude() > np.pi - 1e-3:
        return  # a half turn has two shorter ways
    got = interpolate_pose(before, after, fraction)
    np.testing.assert_allclose(got.rotation, Slerp([0, 1], keys)(fraction).as_matrix(), atol=1e-7)
    np.testing.assert_allclose(got.translation, (1 - fraction) * before.translation + fraction * after.translation, atol=1e-9)


@pytest.mark.parametrize("fraction", [-0.5, 0.0, 0.25, 1.0, 1.5])
@pytest.mark.parametrize("angle", [1e-9, 1e-5, 0.02, 2.0])
def test_interpolation_turns_at_a_constant_rate_also_outside(angle, fraction):
    before, after = Transform.from_yaw(-0.5), Transform.from_yaw(-0.5 + angle, (2, 0, 0))
    got = interpolate_pose(before, after, fraction)
    assert got.yaw == pytest.approx(-0.5 + fraction * angle, abs=1e-12)
    assert got.translation[0] == pytest.approx(2 * fraction)


def test_interpolation_takes_the_shorter_way_through_the_back():
    # 170 to -170 degrees is 20 degrees through 180, not 340 through 0
    got = interpolate_pose(Transform.from_yaw(np.radians(170)), Transform.from_yaw(np.radians(-170)), 0.5)
    assert abs(got.yaw) == pytest.approx(np.pi)


def test_interpolation_agrees_with_pyquaternions_slerp():
    one, two = Quaternion(0.9, 0.1, -0.2, 0.3).normalised, Quaternion(0.2, 0.4, 0.1, -0.9).normalised
    got = interpolate_pose(Transform.from_quaternion(one.elements), Transform.from_quaternion(two.elements), 0.3)
    np.testing.assert_allclose(got.rotation, Quaternion.slerp(one, two, 0.3).rotation_matrix, atol=1e-9)


TIMES = np.array([1_000_000, 1_100_000, 1_300_000, 4_000_000])
POSES = [Transform.from_yaw(yaw, (x, 0, 0)) for yaw, x in ((0.0, 0.0), (0.1, 1.0), (0.1, 2.0), (0.2, 9.0))]


@pytest.mark.parametrize(
    ("time", "x", "yaw"), [(1_000_000, 0.0, 0.0), (1_050_000, 0.5, 0.05), (1_150_000, 1.25, 0.1), (4_000_000, 9.0, 0.2)]
)
def test_pose_at_a_time_between_poses(time, x, yaw):
    got = interpolate_pose_at(TIMES, POSES, time)
    assert got.translation[0] == pytest.approx(x)
    assert got.yaw == pytest.approx(yaw)


def test_a_single_pose_is_known_at_its_own_time_only():
    assert interpolate_pose_at(TIMES[:1], POSES[:1], 1_000_000) is POSES[0]
    with pytest.raises(DataError, match=r"expected a time in 1000000\.\.1000000 us, got 1000001 us"):
        interpolate_pose_at(TIMES[:1], POSES[:1], 1_000_001)


def test_a_hole_is_bridged_up_to_max_gap():
    assert interpolate_pose_at(TIMES, POSES, 2_650_000, max_gap=2.7).translation[0] == pytest.approx(5.5)
    with pytest.raises(DataError, match=r"expected a pose at least every 1\.0 s, got a hole of 2\.700 s around 2650000 us"):
        interpolate_pose_at(TIMES, POSES, 2_650_000)


@pytest.mark.parametrize(
    ("times", "count", "message"),
    [
        pytest.param([], 0, "expected one time a pose, at least one, got 0 times and 0 poses", id="no poses"),
        pytest.param([1, 2], 1, "expected one time a pose, at least one, got 2 times and 1 poses", id="counts differ"),
        pytest.param([1, 3, 3], 3, "expected increasing times, got 3 us, then 3 us in row 2", id="repeated time"),
        pytest.param([1, 3, 2], 3, "expected increasing times, got 3 us, then 2 us in row 2", id="time goes back"),
    ],
)
def test_pose_tables_are_checked(times, count, message):
    with pytest.raises(DataError, match=message):
        interpolate_pose_at(np.array(times), POSES[:count], 1)


@pytest.mark.parametrize("time", [999_999, 4_000_001])
def test_poses_are_not_extrapolated(time):
    with pytest.raises(DataError, match=f"expected a time in 1000000..4000000 us, got {time} us"):
        interpolate_pose_at(TIMES, POSES, time)


@pytest.mark.parametrize(
    ("rotation", "translation", "message"),
    [
        pytest.param(np.eye(4), np.zeros(3), r"Transform\.rotation: expected shape \(3, 3\), got \(4, 4\)", id="matrix of four"),
        pytest.param(np.diag([1, 1, -1]), np.zeros(3), "expected a rotation matrix, got determinant -1 ", id="mirror"),
        pytest.param(np.eye(3) * 1.001, np.zeros(3), "expected a rotation matrix, got determinant 1.003", id="scaled"),
        pytest.param(np.zeros((3, 3)), np.zeros(3), "expected a rotation matrix, got determinant 0 ", id="zeros"),
        pytest.param(np.full((3, 3), np.nan), np.zeros(3), "expected finite numbers, got .*nan", id="NaN rotation"),
        pytest.param(np.eye(3), [0, np.inf, 0], r"Transform\.translation: expected finite numbers, got inf in row 1", id="infinite"),
        pytest.param(np.eye(3), [0, 0], r"Transform\.translation: expected shape \(3,\), got \(2,\)", id="two numbers"),
        pytest.param(np.eye(3), ["0", "0", "0"], "expected dtype float64, got <U1", id="text"),
        pytest.param([[1, 0, 0], [0, 1]], np.zeros(3), "expected rows of one length, got a ragged list", id="ragged"),
    ],
)
def test_bad_transforms_are_refused(rotation, translation, message):
    with pytest.raises(DataError, match=message):
        Transform(rotation, translation)


@pytest.mark.parametrize(
    ("quaternion", "message"),
    [
        pytest.param([0, 0, 0, 0], r"quaternion: expected finite numbers, not all zero, got \[0\. 0\. 0\. 0\.\]$", id="zeros"),
        pytest.param([[1, 0, 0, 0], [1, np.nan, 0, 0]], r"expected finite numbers, not all zero, got \[ 1\. nan  0\.  0\.\]$", id="NaN"),
        pytest.param([1, 0, 0], r"expected shape \(\.\.\., 4\) = w, x, y, z, got \(3,\)", id="three numbers"),
        pytest.param(["a", 0, 0, 0], "expected numbers w, x, y, z, got \\['a', 0, 0, 0\\]", id="text"),
        pytest.param(None, r"expected shape .* got \(\)", id="nothing"),
    ],
)
def test_bad_quaternions_are_refused(quaternion, message):
    with pytest.raises(DataError, match=message):
        quaternions_to_matrices(quaternion)


def test_a_transform_cannot_be_changed():
    with pytest.raises(AttributeError):
        Transform.identity().rotation = np.eye(3)  # type: ignore[misc]
