"""The cloud that networks with virtual points read: real, painted and virtual points of all sweeps in 16 columns.

Source: MVP's public code, and its readers in CenterPoint's (det3d `pipelines/loading.py`).
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from perception.core.errors import UsageError
from perception.core.frame import Camera, Frame, Sweep
from perception.core.pointcloud import PointCloud
from perception.fusion.calibration import camera_views
from perception.fusion.instances import Instances
from perception.fusion.virtual_points import VirtualPoints, virtual_points

FUSED_COLUMNS = 16
REAL, PAINTED, VIRTUAL = 1.0, 0.0, -1.0  # column 14
_CLOSE = 1.0  # metres: half the side of the square around the lidar in which it sees the ego vehicle's own roof
_INTENSITY_TOP = 255.0


class VirtualPointsSettings(BaseModel, frozen=True, extra="forbid"):
    """How virtual points are made of instances."""

    num: int = Field(default=50, ge=1, le=1000, description="pixels drawn of each instance and sweep")
    seed: int = Field(default=0, ge=0, description="of the draw; each sweep has a draw of its own, by its time")
    sweeps: Literal["reuse", "key_only"] = Field(
        default="reuse",
        description="sweeps before the key sweep, which have no pictures of their own: the key frame's instances by pose, or none",
    )
    min_score: float = Field(default=0.0, ge=0, le=1, description="instances below it are left out")


def fused_rows(points: np.ndarray, found: VirtualPoints, age: float = 0.0) -> np.ndarray:
    """(N + F + V, 16) float32: all points of a sweep, the painted ones again, the virtual ones, in its own lidar frame.

    points  (N, 4 or more) float32, the cloud that `found` was made of

    ========  ====  =========  ===========  =====  ====  ===
    rows      0-2   3          4-12         13     14    15
    ========  ====  =========  ===========  =====  ====  ===
    real      xyz   intensity  1            1      1     age
    painted   xyz   is a car   nine others  score  0     age
    virtual   xyz   is a car   nine others  score  -1    age
    ========  ====  =========  ===========  =====  ====  ===
    """
    painted, virtual = found.painted, found.virtual
    rows = np.empty((len(points) + len(painted) + len(virtual), FUSED_COLUMNS), np.float32)
    real, seen, made = np.split(rows, [len(points), len(points) + len(painted)])
    real[:, :4], real[:, 4:14], real[:, 14] = points[:, :4], 1.0, REAL
    seen[:, :3], seen[:, 3:14], seen[:, 14] = painted[:, :3], painted[:, 4:], PAINTED
    made[:, :14], made[:, 14] = virtual, VIRTUAL
    rows[:, 15] = age
    return rows


def fused_cloud(
    frame: Frame,
    instances: Mapping[str, Instances],
    num_sweeps: int = 10,
    settings: VirtualPointsSettings | None = None,
    *,
    repeat_oldest: bool = True,
    within: float | None = None,
) -> np.ndarray:
    """(P, 16) float32: the key sweep and the `num_sweeps - 1` before it, each fused with the instances, in the key sweep's lidar frame.

    instances      of the frame's cameras by name; one without an entry adds nothing
    repeat_oldest  as `accumulate_sweeps` has it, and so are `within`, order, ages and what is left out near the lidar, painted and virtual
                   points included; intensities are on the scale 0..255
    Raises UsageError for a wrong number of sweeps, DataError for a cloud that cannot be read and for instances that do not fit.
    """
    settings = settings or VirtualPointsSettings()
    if not isinstance(num_sweeps, (int, np.integer)) or isinstance(num_sweeps, bool) or num_sweeps < 1:
        raise UsageError(f"num_sweeps: expected 1 or more, the key sweep included, got {num_sweeps!r}")
    if settings.min_score > 0:
        instances = {name: shown[shown.score >= settings.min_score] for name, shown in instances.items()}
    key = _fused(frame, frame.cloud, instances, frame.cameras, settings, frame.intensity_top)
    parts, global_to_key = [key], frame.lidar_to_global.inverse()
    previous = frame.previous_sweeps(num_sweeps - 1)
    if within is not None:
        previous = [sweep for sweep in previous if (frame.timestamp_us - sweep.timestamp_us) * 1e-6 <= within]
    for sweep in previous:
        of_sweep = instances if settings.sweeps == "reuse" else {}
        rows = _fused(sweep, sweep.cloud, of_sweep, frame.cameras, settings, frame.intensity_top)
        rows = _without_roof(rows)
        _move(rows, (global_to_key @ sweep.lidar_to_global).matrix)
        rows[:, 15] = (frame.timestamp_us - sweep.timestamp_us) * 1e-6
        parts.append(rows)
    if repeat_oldest and within is None and len(previous) < num_sweeps - 1:
        parts += [parts[-1] if previous else _without_roof(key)] * (num_sweeps - 1 - len(previous))
    return np.concatenate(parts)


def _fused(
    moment: Frame | Sweep,
    cloud: PointCloud,
    instances: Mapping[str, Instances],
    cameras: Mapping[str, Camera],
    settings: VirtualPointsSettings,
    intensity_top: float,
) -> np.ndarray:
    """One sweep in its own lidar frame, age 0."""
    points = cloud.points
    if intensity_top != _INTENSITY_TOP:
        points = points.copy()
        points[:, 3] *= np.float32(_INTENSITY_TOP / intensity_top)
    views = camera_views(moment, cameras)
    found = virtual_points(points, instances, views, settings.num, seed=[settings.seed, moment.timestamp_us])
    return fused_rows(points, found)


def _without_roof(rows: np.ndarray) -> np.ndarray:
    is_on_roof = (np.abs(rows[:, 0]) < _CLOSE) & (np.abs(rows[:, 1]) < _CLOSE)
    return rows[~is_on_roof]


def _move(rows: np.ndarray, a_to_b: np.ndarray) -> None:
    """Move points, in place; term by term, as sweeps without cameras are moved: the same bits, as a product of matrices is not."""
    x, y, z = rows[:, :3].astype(np.float64).T
    for axis, (a, b, c, d) in enumerate(a_to_b[:3]):
        rows[:, axis] = a * x + b * y + c * z + d
