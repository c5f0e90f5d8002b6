"""Upright 3D boxes."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from perception.core.errors import DataError
from perception.core.expect import expect_array
from perception.core.rows import select_rows
from perception.core.transform import Transform

# Bottom face counter-clockwise from front left, then the top face, in units of half the size.
_CORNER_SIGNS = np.array(
    [[1, 1, -1], [-1, 1, -1], [-1, -1, -1], [1, -1, -1], [1, 1, 1], [-1, 1, 1], [-1, -1, 1], [1, -1, 1]], dtype=np.float64
)


@dataclass(frozen=True, eq=False, repr=False)
class Boxes3D:
    """N upright boxes that turn about z only, all in one frame.

    center    (N, 3) float64  middle of the box, metres
    size      (N, 3) float64  length along the heading, width, height; metres, all > 0
    yaw       (N,)   float64  heading, radians counter-clockwise from x
    velocity  (N, 2) float64  vx, vy in m/s over ground, in the axes of the frame; NaN where unknown
    """

    center: np.ndarray
    size: np.ndarray
    yaw: np.ndarray
    velocity: np.ndarray
    _has_rows = True

    def __post_init__(self) -> None:
        center = expect_array("Boxes3D.center", self.center, (None, 3), "float64", finite=True)
        count = len(center)
        size = expect_array("Boxes3D.size", self.size, (count, 3), "float64", finite=True)
        if count and size.min() <= 0:
            row = int(np.argwhere(size <= 0)[0][0])
            raise DataError(f"Boxes3D.size: expected length, width, height > 0, got {size[row]} in row {row}")
        object.__setattr__(self, "center", center)
        object.__setattr__(self, "size", size)
        object.__setattr__(self, "yaw", expect_array("Boxes3D.yaw", self.yaw, (count,), "float64", finite=True))
        object.__setattr__(self, "velocity", expect_array("Boxes3D.velocity", self.velocity, (count, 2), "float64"))

    @classmethod
    def empty(cls) -> "Boxes3D":
        return cls(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0), np.zeros((0, 2)))

    @property
    def corners(self) -> np.ndarray:
        """(N, 8, 3) metres: the bottom face counter-clockwise seen from above, starting front left; then the top face."""
        offsets = _CORNER_SIGNS * self.size[:, None] / 2  # (N, 8, 3) in the box's axes
        c, s = np.cos(self.yaw)[:, None], np.sin(self.yaw)[:, None]
        x, y = offsets[..., 0], offsets[..., 1]
        return np.stack([c * x - s * y, s * x + c * y, offsets[..., 2]], axis=-1) + self.center[:, None]

    @property
    def speed(self) -> np.ndarray:
        """(N,) m/s, NaN where the velocity is unknown."""
        return np.hypot(self.velocity[:, 0], self.velocity[:, 1])

    def transformed(self, a_to_b: Transform) -> "Boxes3D":
        """The boxes of frame `a`, in frame `b`.

        Boxes stay upright: the heading is turned in space and then laid into b's ground plane, the velocity's z part is dropped.
        With a rotation about z only this is exact and `inverse()` undoes it.
        """
        heading = np.stack([np.cos(self.yaw), np.sin(self.yaw), np.zeros(len(self))], axis=-1)
        # In one piece each: of columns NumPy's arctan2 rounds one way or the other, as their neighbours in memory happen to be.
        x, y, _ = np.ascontiguousarray(a_to_b.rotate(heading).T)
        velocity = np.concatenate([self.velocity, np.zeros((len(self), 1))], axis=1)
        return Boxes3D(a_to_b.apply(self.center), self.size, np.arctan2(y, x), a_to_b.rotate(velocity)[:, :2])

    def contains(self, points: np.ndarray) -> np.ndarray:
        """(N, M) bool: whether box n holds point m of `points` (M, 3), borders included."""
        offset = expect_array("points", np.asarray(points)[..., :3], (None, 3), "float64")[None] - self.center[:, None]  # (N, M, 3)
        c, s = np.cos(self.yaw)[:, None], np.sin(self.yaw)[:, None]
        along = c * offset[..., 0] + s * offset[..., 1]
        across = -s * offset[..., 0] + c * offset[..., 1]
        half = self.size[:, None] / 2
        return (np.abs(along) <= half[..., 0]) & (np.abs(across) <= half[..., 1]) & (np.abs(offset[..., 2]) <= half[..., 2])

    def __len__(self) -> int:
        return len(self.center)

    def __getitem__(self, index: Any) -> "Boxes3D":
        return select_rows(self, index)

    def __repr__(self) -> str:
        if not len(self):
            return "Boxes3D(0 boxes)"
        low, high = self.center.min(axis=0), self.center.max(axis=0)
        return f"Boxes3D({len(self)} boxes, x {low[0]:.1f}..{high[0]:.1f}, y {low[1]:.1f}..{high[1]:.1f})"
