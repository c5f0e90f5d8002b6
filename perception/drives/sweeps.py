"""Sweeps of the lidar laid over each other: the points of the last half second in the frame of the key sweep.

Source: CenterPoint's loader (det3d `pipelines/loading.py`, `nusc_common.py`), but for its random order of the sweeps.
"""

import numpy as np

from perception.core.errors import UsageError
from perception.core.frame import Frame
from perception.core.pointcloud import PointCloud
from perception.core.transform import Transform

CLOSE = 1.0  # metres: half the side of the square around the lidar whose points are the ego vehicle's own roof
_ROW = np.dtype((np.void, 5 * 4))


def accumulate_sweeps(frame: Frame, num_sweeps: int = 10, *, repeat_oldest: bool = True) -> PointCloud:
    """The key sweep and the `num_sweeps - 1` before it as one cloud in the key sweep's lidar frame, without rings.

    num_sweeps     1 or more, the key sweep included
    repeat_oldest  where the drive has fewer, the oldest one comes again until there are `num_sweeps`; the key sweep, where it has none.
                   False: they are left out, as the nuScenes devkit does

    Order: the key sweep, then the others from the nearest to the oldest, in each the order of the file. Ages are seconds, positive into
    the past. Points with |x| < 1 m and |y| < 1 m, in their own lidar frame, are left out of all but the key sweep itself; its repetitions
    lose them. Every sweep passes through its own ego pose: what stands still lines up, what moves leaves a trail.
    Raises UsageError for a wrong number, DataError for a cloud that cannot be read.
    """
    if not isinstance(num_sweeps, (int, np.integer)) or isinstance(num_sweeps, bool) or num_sweeps < 1:
        raise UsageError(f"num_sweeps: expected 1 or more, the key sweep included, got {num_sweeps!r}")
    key, previous = frame.cloud.points, frame.previous_sweeps(num_sweeps - 1)
    num_repeats = num_sweeps - 1 - len(previous) if repeat_oldest else 0
    parts_left = 1 + len(previous) + num_repeats
    points = _with_room(np.empty((0, 5), np.float32), 0, len(key), parts_left)
    points[: len(key)] = key
    oldest, end = _without_close(key) if num_repeats and not previous else key, len(key)
    global_to_key = frame.lidar_to_global.inverse()
    for sweep in previous:
        seen = _without_close(sweep.cloud.points)
        parts_left -= 1
        points = _with_room(points, end, len(seen), parts_left)
        start, end = end, end + len(seen)
        _move(seen, global_to_key @ sweep.lidar_to_global, points[start:end])
        points[start:end, 4] = (frame.timestamp_us - sweep.timestamp_us) * 1e-6
        oldest = points[start:end]
    for _ in range(num_repeats):
        points = _with_room(points, end, len(oldest), 1)
        start, end = end, end + len(oldest)
        points[start:end] = oldest
    return PointCloud(points[:end])


def _without_close(points: np.ndarray) -> np.ndarray:
    """The points (N, 5) that are not in the square around the lidar, whatever their height."""
    is_close = (np.abs(points[:, 0]) < CLOSE) & (np.abs(points[:, 1]) < CLOSE)
    whole_rows = np.ascontiguousarray(points).view(_ROW)[:, 0]  # picking among rows of five numbers takes eight times as long
    return whole_rows[~is_close].view(np.float32).reshape(-1, 5)


def _move(points: np.ndarray, transform: Transform, out: np.ndarray) -> None:
    """Points (N, 5) through `transform` into `out` (N, 5), both float32; computed in float64, the age is left to the caller."""
    # Column by column: NumPy takes three times as long to store a whole (N, 3) block into rows of five.
    xyz = np.empty((3, len(points)))
    for axis in range(3):
        xyz[axis] = points[:, axis]
    xyz = transform.rotation @ xyz
    for axis in range(3):
        np.add(xyz[axis], transform.translation[axis], out=out[:, axis], casting="same_kind")
    out[:, 3] = points[:, 3]


def _with_room(points: np.ndarray, end: int, count: int, parts_left: int) -> np.ndarray:
    """`points` (N, 5) if `count` rows fit in behind row `end`, else a larger copy with room for `parts_left` such parts."""
    if end + count <= len(points):
        return points
    larger = np.empty((end + count * parts_left * 9 // 8 + 1, 5), np.float32)  # an eighth more: sweeps are not of one size
    larger[:end] = points[:end]
    return larger
