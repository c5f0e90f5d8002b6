"""The grid that points are sorted into."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Grid:
    """Cells of one size over a box; the lower limit belongs to it, the upper one does not.

    lower       (x, y, z)  metres, the corner where cell 0, 0, 0 begins
    upper       (x, y, z)  metres
    voxel_size  (x, y, z)  metres
    The number of cells is (upper - lower) / voxel_size, rounded: where the size does not divide the range, the last cell ends beyond
    `upper` or before it, as in the published voxel generators.
    Raises ValueError where a number is not finite, where upper <= lower, or where there is no cell or more than 2^31 along an axis.
    """

    lower: tuple[float, float, float]
    upper: tuple[float, float, float]
    voxel_size: tuple[float, float, float]

    def __post_init__(self) -> None:
        for name in ("lower", "upper", "voxel_size"):
            value = tuple(float(v) for v in getattr(self, name))
            if len(value) != 3 or not all(math.isfinite(v) for v in value):
                raise ValueError(f"Grid.{name}: expected three finite numbers x, y, z in metres, got {getattr(self, name)}")
            object.__setattr__(self, name, value)
        for axis, low, high, size in zip("xyz", self.lower, self.upper, self.voxel_size, strict=True):
            if size <= 0:
                raise ValueError(f"Grid.voxel_size: expected {axis} > 0, got {size}")
            if high <= low:
                raise ValueError(f"Grid.upper: expected {axis} > {low} (Grid.lower), got {high}")
            cells = (high - low) / size
            if not cells < 2**31 - 0.5:  # also where it is infinite
                raise ValueError(f"Grid.voxel_size: expected fewer than 2^31 cells along {axis}, got {cells:.3g}")
            if round(cells) < 1:
                raise ValueError(f"Grid.voxel_size: expected {axis} <= {high - low:g}, the length of the range, got {size}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of cells along z, y, x: depth, height, width."""
        x, y, z = (round((high - low) / size) for low, high, size in zip(self.lower, self.upper, self.voxel_size, strict=True))
        return z, y, x
