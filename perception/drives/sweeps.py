"""Sweeps of the lidar laid over each other: the points of the last half second in the frame of the key sweep.

Source: CenterPoint's loader (det3d `pipelines/loading.py`, `nusc_common.py`), but for its random order of the sweeps.
"""

import numpy as np

from perception.core.errors import UsageError
from perception.core.frame import Frame
from perception.core.pointcloud import PointCloud
from perception.core.transform import Transform


def accumulate_sweeps(frame: Frame, num_sweeps: int = 10, *, repeat_oldest: bool = True, within: float | None = None) -> PointCloud:
    """The key sweep and the `num_sweeps - 1` before it as one cloud in the key sweep's lidar frame, without rings.

    num_sweeps     1 or more, the key sweep included
    repeat_oldest  where the drive has fewer, the oldest one comes again until there are `num_sweeps`; the key sweep, where it has none.
                   False: they are left out, as the nuScenes devkit does
    within         seconds: older sweeps are left out, whatever the rate of the lidar, and none comes again. None: `num_sweeps` alone tells

    Order: the key sweep, then the others from the nearest to the oldest, in each the order of the file. Ages are seconds, positive into
    the past. Points with |x| < 1 m and |y| < 1 m, in their own lidar frame, are left out of all but the key sweep itself; its repetitions
    lose them. Every sweep passes through its own ego pose: what stands still lines up, what moves leaves a trail.
    Raises UsageError for a wrong number, DataError for a cloud that cannot be read.
    """
    from perception.drives.sweeps_kernel import move_points  # here, because numba takes half a second that opening a drive does not need

    if not isinstance(num_sweeps, (int, np.integer)) or isinstance(num_sweeps, bool) or num_sweeps < 1:
        raise UsageError(f"num_sweeps: expected 1 or more, the key sweep included, got {num_sweeps!r}")
    key, previous = np.ascontiguousarray(frame.cloud.points), frame.previous_sweeps(num_sweeps - 1)
    if within is not None:
        previous = [sweep for sweep in previous if (frame.timestamp_us - sweep.timestamp_us) * 1e-6 <= within]
    num_repeats = num_sweeps - 1 - len(previous) if repeat_oldest and within is None else 0
    parts_left = 1 + len(previous) + num_repeats
    points = _with_room(np.empty((0, 5), np.float32), 0, len(key), parts_left)
    points[: len(key)] = key
    start, end = 0, len(key)
    global_to_key = frame.lidar_to_global.inverse()
    for sweep in previous:
        seen, parts_left = np.ascontiguousarray(sweep.cloud.points), parts_left - 1
        points = _with_room(points, end, len(seen), parts_left)
        age = (frame.timestamp_us - sweep.timestamp_us) * 1e-6
        start, end = end, end + move_points(seen, (global_to_key @ sweep.lidar_to_global).matrix, age, points[end:])
    if num_repeats and not previous:
        start, end = end, end + move_points(key, Transform.identity().matrix, 0.0, points[end:])
        num_repeats -= 1
    oldest = points[start:end]
    for _ in range(num_repeats):
        points = _with_room(points, end, len(oldest), num_repeats)
        points[end : end + len(oldest)] = oldest
        end += len(oldest)
    return PointCloud(points[:end])


def _with_room(points: np.ndarray, end: int, count: int, parts_left: int) -> np.ndarray:
    """`points` (N, 5) if `count` rows fit in behind row `end`, else a larger copy with room for `parts_left` such parts."""
    if end + count <= len(points):
        return points
    larger = np.empty((end + count * parts_left * 9 // 8 + 1, 5), np.float32)  # an eighth more: sweeps are not of one size
    larger[:end] = points[:end]
    return larger
