"""Rigid transforms and the interpolation of poses."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from perception.core.errors import DataError
from perception.core.expect import expect_array


@dataclass(frozen=True, eq=False, repr=False)
class Transform:
    """Maps points of frame `a` into frame `b` (name it `a_to_b`): p_b = rotation @ p_a + translation.

    rotation     (3, 3) float64  proper rotation (orthonormal to 1e-6, determinant +1)
    translation  (3,)   float64  metres, the origin of `a` seen from `b`
    """

    rotation: np.ndarray
    translation: np.ndarray

    def __post_init__(self) -> None:
        rotation = expect_array("Transform.rotation", self.rotation, (3, 3), "float64", finite=True)
        error = float(np.abs(rotation @ rotation.T - np.eye(3)).max())
        if error > 1e-6 or np.linalg.det(rotation) < 0:
            raise DataError(
                f"Transform.rotation: expected a rotation matrix, got determinant {np.linalg.det(rotation):.4g} and "
                f"{error:.2g} away from orthonormal; normalise it first"
            )
        object.__setattr__(self, "rotation", rotation)
        object.__setattr__(self, "translation", expect_array("Transform.translation", self.translation, (3,), "float64", finite=True))

    @classmethod
    def identity(cls) -> "Transform":
        return cls(np.eye(3), np.zeros(3))

    @classmethod
    def from_yaw(cls, yaw: float, translation: Any = (0.0, 0.0, 0.0)) -> "Transform":
        """Rotation by `yaw` radians about z, then `translation` (3,)."""
        c, s = np.cos(yaw), np.sin(yaw)
        return cls(np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]]), translation)

    @classmethod
    def from_quaternion(cls, quaternion: Any, translation: Any = (0.0, 0.0, 0.0)) -> "Transform":
        """From a quaternion (w, x, y, z) of any length but zero, as nuScenes writes it, and a translation (3,)."""
        return cls(quaternions_to_matrices(quaternion), translation)

    @property
    def quaternion(self) -> np.ndarray:
        """(4,) unit quaternion w, x, y, z with w >= 0."""
        return _matrix_to_quaternion(self.rotation)

    @property
    def yaw(self) -> float:
        """Heading of a's x axis in b's ground plane, radians."""
        return float(np.arctan2(self.rotation[1, 0], self.rotation[0, 0]))

    @property
    def matrix(self) -> np.ndarray:
        """(4, 4) homogeneous matrix."""
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = self.rotation, self.translation
        return matrix

    def apply(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 3) of `a`, in `b`, float64."""
        return np.asarray(points, dtype=np.float64) @ self.rotation.T + self.translation

    def rotate(self, vectors: np.ndarray) -> np.ndarray:
        """Directions or velocities (..., 3) of `a`, in the axes of `b`."""
        return np.asarray(vectors, dtype=np.float64) @ self.rotation.T

    def __matmul__(self, other: "Transform") -> "Transform":
        """`b_to_c @ a_to_b` is `a_to_c`."""
        return Transform(self.rotation @ other.rotation, self.rotation @ other.translation + self.translation)

    def inverse(self) -> "Transform":
        return Transform(self.rotation.T, -self.rotation.T @ self.translation)

    def __repr__(self) -> str:
        x, y, z = self.translation
        return f"Transform(x={x:.3f}, y={y:.3f}, z={z:.3f}, yaw={np.degrees(self.yaw):.2f} deg)"


def quaternions_to_matrices(quaternions: Any) -> np.ndarray:
    """Rotation matrices (..., 3, 3) of quaternions (..., 4) = w, x, y, z of any length but zero."""
    try:
        q = np.asarray(quaternions, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"quaternion: expected numbers w, x, y, z, got {quaternions!r}") from error
    if q.shape[-1:] != (4,):
        raise DataError(f"quaternion: expected shape (..., 4) = w, x, y, z, got {q.shape}")
    norm = np.linalg.norm(q, axis=-1, keepdims=True)
    is_bad = ~(np.isfinite(norm) & (norm > 1e-8))[..., 0]
    if is_bad.any():
        raise DataError(f"quaternion: expected finite numbers, not all zero, got {q[is_bad][0]}")
    w, x, y, z = np.moveaxis(q / norm, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def _matrix_to_quaternion(rotation: np.ndarray) -> np.ndarray:
    m = rotation
    # The largest of the four squared components is the safe divisor (Shepperd 1978).
    x, y, z = m[0, 0], m[1, 1], m[2, 2]
    squares = np.array([1 + x + y + z, 1 + x - y - z, 1 - x + y - z, 1 - x - y + z])  # 4 w^2, 4 x^2, 4 y^2, 4 z^2
    k = int(squares.argmax())
    a, b, c = m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]
    d, e, f = m[0, 1] + m[1, 0], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1]
    q = np.array([[squares[0], a, b, c], [a, squares[1], d, e], [b, d, squares[2], f], [c, e, f, squares[3]]][k])
    q /= np.linalg.norm(q)
    return -q if q[0] < 0 else q


def interpolate_pose(before: Transform, after: Transform, fraction: float) -> Transform:
    """The pose at `fraction` of the way: 0 gives `before`, 1 gives `after`; outside of [0, 1] the motion is continued.

    Translation is linear; rotation turns at a constant rate about one axis along the shorter way (slerp, Shoemake 1985).
    """
    translation = before.translation + fraction * (after.translation - before.translation)
    q0, q1 = before.quaternion, after.quaternion
    cosine = float(q0 @ q1)
    if cosine < 0:  # q and -q are the same rotation: take the shorter arc
        q1, cosine = -q1, -cosine
    angle = np.arccos(min(cosine, 1.0))
    if angle < 1e-6:  # sin(angle) underflows; linear is exact to float64 here
        q = q0 + fraction * (q1 - q0)
    else:
        q = (np.sin((1 - fraction) * angle) * q0 + np.sin(fraction * angle) * q1) / np.sin(angle)
    return Transform.from_quaternion(q, translation)


def interpolate_pose_at(timestamps_us: np.ndarray, poses: list[Transform], timestamp_us: int, *, max_gap: float = 1.0) -> Transform:
    """The pose at a time between recorded poses.

    timestamps_us  (N,) int64  increasing
    poses          N transforms, one a timestamp
    max_gap        seconds; the largest hole between two poses that is bridged
    Raises DataError outside of the recorded span, inside of a larger hole, or where times do not increase.
    """
    times = np.asarray(timestamps_us, dtype=np.int64)
    if len(times) != len(poses) or len(times) == 0:
        raise DataError(f"poses: expected one time a pose, at least one, got {len(times)} times and {len(poses)} poses")
    if (is_late := np.diff(times) <= 0).any():
        row = int(is_late.argmax())
        raise DataError(f"poses: expected increasing times, got {times[row]} us, then {times[row + 1]} us in row {row + 1}")
    after = int(np.searchsorted(times, timestamp_us))
    if after < len(times) and times[after] == timestamp_us:
        return poses[after]
    if after in (0, len(times)):
        raise DataError(f"poses: expected a time in {times[0]}..{times[-1]} us, got {timestamp_us} us")
    gap = int(times[after] - times[after - 1])
    if gap > max_gap * 1e6:
        raise DataError(f"poses: expected a pose at least every {max_gap} s, got a hole of {gap / 1e6:.3f} s around {timestamp_us} us")
    return interpolate_pose(poses[after - 1], poses[after], int(timestamp_us - times[after - 1]) / gap)
