"""Clips in nine bytes a point: how they travel from the processes that make them to the device that trains. NumPy only."""

from dataclasses import dataclass

import numpy as np

from perception.core.detections import Detections
from perception.core.transform import Transform

STEP = 0.005  # metres between coordinates, as in the files of clips
MILLISECOND = 0.001
_LARGEST = 2**15 - 1


@dataclass(frozen=True, eq=False)
class PackedClip:
    """A cloud in integers, and its truth.

    token         names it in errors
    data          (9 N,) uint8: places (N, 3) int16 in steps of 5 mm in the lidar frame, ages (N,) int16 in milliseconds, intensities
                  (N,) uint8, one after the other
    lidar_to_ego  how the lidar is mounted
    truth         objects in the EGO frame, with the returns of the key sweep in each
    """

    token: str
    data: np.ndarray
    lidar_to_ego: Transform
    truth: Detections


@dataclass(frozen=True, eq=False)
class LabelledCloud:
    """A cloud as numbers, and its truth, both in the network's frame.

    token   of the frame
    points  (N, 5) float32 x, y, z, intensity 0..255, age in seconds; (N, 16) with virtual points, see `virtual_points`
    origin  (3,) where the lidar of the key sweep is
    """

    token: str
    points: np.ndarray
    truth: Detections
    origin: np.ndarray


def pack(token: str, points: np.ndarray, lidar_to_ego: Transform, truth: Detections, *, reach: float = np.inf) -> PackedClip:
    """Points (N, 5) in the lidar frame and truth in the ego frame as a clip.

    reach  metres from the ego frame's origin, seen from above: points farther away are left out, and so are those beyond 163 m of the lidar
    Numbers are rounded to the nearest step; intensities are cut at 0 and 255. Objects stay, wherever they are.
    """
    near = np.abs(points[:, :3]).max(axis=1, initial=0) < _LARGEST * STEP  # False for NaN
    if np.isfinite(reach):
        x, y = lidar_to_ego.apply(points[:, :3])[:, :2].T
        near &= x * x + y * y <= reach * reach
    points = points[near]
    place = np.round(points[:, :3] / np.float32(STEP)).astype("<i2")
    age = np.round(points[:, 4] / np.float32(MILLISECOND)).clip(0, _LARGEST).astype("<i2")
    intensity = points[:, 3].clip(0, 255).astype(np.uint8)
    data = np.concatenate([place.reshape(-1).view(np.uint8), age.view(np.uint8), intensity])
    return PackedClip(token, data, lidar_to_ego, truth)
