"""Border functions: the only code that knows other systems' box conventions. Each has both directions.

Sources: nuScenes devkit (w l h, quaternion w x y z); det3d (CenterPoint: x y z w l h vx vy r, r = -yaw - pi/2);
OpenPCDet (x y z l w h yaw vx vy); mmdetection3d >= 1.0 (as OpenPCDet, z of the BOTTOM); KITTI object and raw development kits (h w l,
middle of the bottom face). Unknown velocity is NaN on both sides.
"""

import numpy as np

from perception.core.boxes import Boxes3D
from perception.core.errors import DataError
from perception.core.expect import expect_array, expect_finite
from perception.core.transform import Transform

# A camera's axes (x right, y down, z forward) into x forward, y left, z up at the same place: the frame of `boxes_from_kitti`.
CAMERA_TO_FORWARD = Transform(np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]), np.zeros(3))


def boxes_from_nuscenes(translation: np.ndarray, size: np.ndarray, rotation: np.ndarray, velocity: np.ndarray | None = None) -> Boxes3D:
    """From nuScenes columns: translation (N, 3), size (N, 3) = w l h, rotation (N, 4) = w x y z, velocity (N, 2) or None (unknown).

    Tilt is dropped: yaw is the direction of the turned x axis in the ground plane (the devkit's `quaternion_yaw`).
    """
    translation = expect_array("translation", translation, (None, 3), "float64")
    size = expect_array("size", size, (len(translation), 3), "float64")
    rotation = expect_array("rotation", rotation, (len(translation), 4), "float64")
    expect_finite("rotation", rotation)
    if (is_zero := (rotation == 0).all(axis=1)).any():
        raise DataError(f"rotation: expected quaternions of any length but zero, got {rotation[is_zero][0]} in row {int(is_zero.argmax())}")
    if velocity is None:
        velocity = np.full((len(translation), 2), np.nan)
    return Boxes3D(translation, size[:, [1, 0, 2]], yaw_of_quaternions(rotation), velocity)


def boxes_to_nuscenes(boxes: Boxes3D) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """translation (N, 3), size (N, 3) = w l h, rotation (N, 4) = w x y z unit quaternions, velocity (N, 2)."""
    half = boxes.yaw / 2
    zero = np.zeros_like(half)
    return boxes.center, boxes.size[:, [1, 0, 2]], np.stack([np.cos(half), zero, zero, np.sin(half)], axis=-1), boxes.velocity


def yaw_of_quaternions(rotation: np.ndarray) -> np.ndarray:
    """(N,) heading in the ground plane of quaternions (N, 4) = w x y z of any length but zero; NaN for a zero quaternion."""
    # By a power of two, which changes no digit: the squares of very long or short ones would leave the range of numbers.
    _, exponent = np.frexp(np.abs(rotation).max(axis=1, keepdims=True, initial=0.0))
    w, x, y, z = np.ldexp(rotation, -exponent).T
    forward_x, forward_y = w * w + x * x - y * y - z * z, 2 * (x * y + w * z)
    yaw = np.arctan2(forward_y, forward_x)
    return np.where((rotation == 0).all(axis=1), np.nan, yaw)


def boxes_from_det3d(rows: np.ndarray) -> Boxes3D:
    """From det3d rows (N, 9) = x y z w l h vx vy r."""
    rows = expect_array("det3d boxes", rows, (None, 9), "float64")
    return Boxes3D(rows[:, :3], rows[:, [4, 3, 5]], wrap_angle(-rows[:, 8] - np.pi / 2), rows[:, 6:8])


def boxes_to_det3d(boxes: Boxes3D) -> np.ndarray:
    """det3d rows (N, 9) = x y z w l h vx vy r."""
    return np.column_stack([boxes.center, boxes.size[:, [1, 0, 2]], boxes.velocity, wrap_angle(-boxes.yaw - np.pi / 2)])


def det3d_to_nuscenes(rows: np.ndarray, lidar_to_global: Transform) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """det3d rows (N, 9) in the lidar's frame straight to nuScenes columns in the global one, as `boxes_to_nuscenes` gives them.

    Boxes keep the tilt of lidar and car, as in published submissions; `Boxes3D` are upright and have lost it.
    """
    rows = expect_array("det3d boxes", rows, (None, 9), "float64")
    half = (-rows[:, 8] - np.pi / 2) / 2
    cosine, sine = np.cos(half), np.sin(half)
    w, x, y, z = lidar_to_global.quaternion
    rotation = np.stack([w * cosine - z * sine, x * cosine + y * sine, y * cosine - x * sine, w * sine + z * cosine], axis=-1)
    velocity = lidar_to_global.rotate(np.column_stack([rows[:, 6:8], np.zeros(len(rows))]))[:, :2]
    return lidar_to_global.apply(rows[:, :3]), rows[:, 3:6], rotation, velocity


def boxes_from_openpcdet(rows: np.ndarray) -> Boxes3D:
    """From OpenPCDet rows (N, 9) = x y z l w h yaw vx vy, or (N, 7) without velocity."""
    rows = _rows_of_nine("OpenPCDet boxes", rows)
    return Boxes3D(rows[:, :3], rows[:, 3:6], wrap_angle(rows[:, 6]), rows[:, 7:9])


def boxes_to_openpcdet(boxes: Boxes3D) -> np.ndarray:
    """OpenPCDet rows (N, 9) = x y z l w h yaw vx vy."""
    return np.column_stack([boxes.center, boxes.size, boxes.yaw, boxes.velocity])


def boxes_from_mmdet3d(rows: np.ndarray) -> Boxes3D:
    """From mmdetection3d >= 1.0 rows (N, 9) = x y z_bottom l w h yaw vx vy, or (N, 7) without velocity."""
    boxes = boxes_from_openpcdet(_rows_of_nine("mmdetection3d boxes", rows))
    return Boxes3D(boxes.center + boxes.size * (0, 0, 0.5), boxes.size, boxes.yaw, boxes.velocity)


def boxes_to_mmdet3d(boxes: Boxes3D) -> np.ndarray:
    """mmdetection3d >= 1.0 rows (N, 9) = x y z_bottom l w h yaw vx vy."""
    rows = boxes_to_openpcdet(boxes)
    rows[:, 2] -= boxes.size[:, 2] / 2
    return rows


def boxes_from_kitti(dimensions: np.ndarray, location: np.ndarray, rotation_y: np.ndarray) -> Boxes3D:
    """From KITTI label columns: dimensions (N, 3) = h w l, location (N, 3) of the middle of the bottom face, rotation_y (N,).

    The columns are in the rectified camera frame (x right, y down, z forward), rotation_y turns about its y axis and 0 looks right.
    The boxes are at the same place in axes x forward, y left, z up (`CAMERA_TO_FORWARD`); their velocity is unknown.
    """
    location = expect_array("location", location, (None, 3), "float64")
    size, rotation_y = _kitti_size(dimensions, len(location)), expect_array("rotation_y", rotation_y, (len(location),), "float64")
    center = CAMERA_TO_FORWARD.apply(location) + size * (0, 0, 0.5)
    return Boxes3D(center, size, wrap_angle(-rotation_y - np.pi / 2), np.full((len(size), 2), np.nan))


def boxes_to_kitti(boxes: Boxes3D) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dimensions (N, 3) = h w l, location (N, 3), rotation_y (N,) in [-pi, pi) of boxes in the frame of `boxes_from_kitti`; no velocity."""
    location = CAMERA_TO_FORWARD.inverse().apply(boxes.center - boxes.size * (0, 0, 0.5))
    return boxes.size[:, ::-1].copy(), location, wrap_angle(-boxes.yaw - np.pi / 2)


def boxes_from_kitti_tracklets(dimensions: np.ndarray, translation: np.ndarray, rotation_z: np.ndarray) -> Boxes3D:
    """From tracklets of KITTI's raw recordings: dimensions (N, 3) = h w l, translation (N, 3) = tx ty tz of the middle of the bottom face,
    rotation_z (N,) = rz, all in the lidar frame (x forward, y left, z up), where the boxes stay. Their velocity is unknown.
    """
    translation = expect_array("translation", translation, (None, 3), "float64")
    size, rotation_z = _kitti_size(dimensions, len(translation)), expect_array("rotation_z", rotation_z, (len(translation),), "float64")
    return Boxes3D(translation + size * (0, 0, 0.5), size, wrap_angle(rotation_z), np.full((len(size), 2), np.nan))


def boxes_to_kitti_tracklets(boxes: Boxes3D) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dimensions (N, 3) = h w l, translation (N, 3), rotation_z (N,) in [-pi, pi) of boxes in the lidar frame; no velocity."""
    return boxes.size[:, ::-1].copy(), boxes.center - boxes.size * (0, 0, 0.5), wrap_angle(boxes.yaw)


def wrap_angle(angle: np.ndarray) -> np.ndarray:
    """Angles in radians, moved into [-pi, pi)."""
    wrapped = (np.asarray(angle) + np.pi) % (2 * np.pi) - np.pi
    return np.where(wrapped >= np.pi, -np.pi, wrapped)  # the remainder of a tiny negative number rounds up to 2 pi


def _rows_of_nine(name: str, rows: np.ndarray) -> np.ndarray:
    """Rows (N, 9) float64 of rows (N, 9), or of (N, 7) with an unknown velocity behind them."""
    if np.ndim(rows) == 2 and np.shape(rows)[1] == 7:
        rows = expect_array(name, rows, (None, 7), "float64")
        rows = np.column_stack([rows, np.full((len(rows), 2), np.nan)])
    return expect_array(name, rows, (None, 9), "float64")


def _kitti_size(dimensions: np.ndarray, count: int) -> np.ndarray:
    """(N, 3) l w h of KITTI's h w l."""
    return expect_array("dimensions", dimensions, (count, 3), "float64")[:, ::-1]
