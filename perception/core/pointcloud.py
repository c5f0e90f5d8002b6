"""Lidar points."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from perception.core.expect import expect_array
from perception.core.rows import select_rows


@dataclass(frozen=True, eq=False, repr=False)
class PointCloud:
    """Points of one or more sweeps, in the frame of the sensor that saw them.

    points  (N, 5) float32    x, y, z in metres; intensity as recorded; age in seconds, 0 for the key sweep
    ring    (N,) int64 or None  which laser saw the point
    """

    points: np.ndarray
    ring: np.ndarray | None = None
    _has_rows = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", expect_array("PointCloud.points", self.points, (None, 5), "float32"))
        if self.ring is not None:
            object.__setattr__(self, "ring", expect_array("PointCloud.ring", self.ring, (len(self.points),), "int64"))

    @property
    def xyz(self) -> np.ndarray:
        """(N, 3) float32 metres, a view."""
        return self.points[:, :3]

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: Any) -> "PointCloud":
        return select_rows(self, index)

    def __repr__(self) -> str:
        sweeps = len(np.unique(self.points[:, 4])) if len(self) else 0
        return f"PointCloud({len(self)} points, {sweeps} sweeps)"
