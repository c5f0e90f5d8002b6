"""Many paths in one table: where all road users are, at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from perception.drives.simulated.roads import Path


@dataclass(frozen=True, eq=False)
class PathTable:
    """N paths of at most P pieces each, as in `Path`; pieces that a path does not have begin at infinity.

    start, x, y, yaw, curvature  (N, P)
    """

    start: np.ndarray
    x: np.ndarray
    y: np.ndarray
    yaw: np.ndarray
    curvature: np.ndarray

    @staticmethod
    def of(paths: Sequence[Path]) -> "PathTable":
        most = max((len(path.start) for path in paths), default=1)

        def table(name: str, beyond: float) -> np.ndarray:
            columns = np.full((len(paths), most), beyond)
            for row, path in zip(columns, paths, strict=True):
                values = getattr(path, name)
                row[: len(values)] = values
            return columns

        return PathTable(table("start", np.inf), *(table(name, 0.0) for name in ("x", "y", "yaw", "curvature")))

    def pose(self, path: np.ndarray, s: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x, y, yaw (K,) at s (K,) metres along paths number `path` (K,): what `Path.pose` of each gives."""
        piece = np.maximum((self.start[path] <= s[:, None]).sum(axis=1) - 1, 0)
        start, x, y, yaw, curvature = (column[path, piece] for column in (self.start, self.x, self.y, self.yaw, self.curvature))
        along = s - start
        turn = curvature * along
        chord = along * np.sinc(turn / (2 * np.pi))
        return x + chord * np.cos(yaw + turn / 2), y + chord * np.sin(yaw + turn / 2), yaw + turn
