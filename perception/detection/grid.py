"""The detector's grid: every shape follows from range and voxel size, and an impossible grid says which number to change."""

from dataclasses import dataclass

from cuda_ops import Grid
from perception.core.errors import UsageError

_MOST_CELLS = 2**26  # seen from above: 8192 x 8192
_AXES = "xyz"


@dataclass(frozen=True)
class BevGrid:
    """Voxels of the range that a detector looks at, and the cells of its bird's-eye maps.

    voxels   the voxels, metres, in the network's frame
    stride   voxels along x and y in one cell of the maps
    divisor  the number of voxels along x and y must be a multiple of it: the product of all strides of encoder and neck
    Raises UsageError for a range that voxels do not fill, and for a number of voxels that is no multiple of `divisor`.
    """

    voxels: Grid
    stride: int
    divisor: int

    def __post_init__(self) -> None:
        for axis, count in zip("yx", self.voxels.shape[1:], strict=True):
            _expect_multiple(self, axis, count)
        height, width = self.voxels.shape[1:]
        if height * width > _MOST_CELLS:
            raise UsageError(
                f"grid.voxel_size: expected at most {_MOST_CELLS} voxels seen from above, got {width} x {height}; enlarge x or y"
            )

    @property
    def map_shape(self) -> tuple[int, int]:
        """(height, width) of the maps: cells along y, x."""
        return self.voxels.shape[1] // self.stride, self.voxels.shape[2] // self.stride

    @property
    def cell_size(self) -> tuple[float, float]:
        """Metres along x, y of a cell of the maps."""
        return self.voxels.voxel_size[0] * self.stride, self.voxels.voxel_size[1] * self.stride


def build_grid(
    lower: tuple[float, float, float],
    upper: tuple[float, float, float],
    voxel_size: tuple[float, float, float],
    *,
    stride: int,
    divisor: int,
    layers: int | None = None,
) -> BevGrid:
    """The grid of a range in metres, x y z; see `BevGrid`. layers: how many voxels there must be along z (None: any number).

    Raises UsageError naming the number to change.
    """
    try:
        voxels = Grid(lower, upper, voxel_size)
    except ValueError as error:
        raise UsageError(str(error).replace("Grid.", "grid.")) from None
    for axis, low, high, size in zip(_AXES, voxels.lower, voxels.upper, voxels.voxel_size, strict=True):
        count = (high - low) / size
        if abs(count - round(count)) > 1e-3:
            raise UsageError(
                f"grid.voxel_size: expected {axis} to divide the range {low:g}..{high:g} m, got {size:g} ({count:.2f} voxels); "
                f"{(high - low) / round(count):.6g} does, or grid.upper {axis} = {low + round(count) * size:g}"
            )
    if layers is not None and voxels.shape[0] != layers:
        raise UsageError(
            f"grid.voxel_size: expected {layers} voxel along z with pillars, got {voxels.shape[0]}; "
            f"change grid.voxel_size z to {(voxels.upper[2] - voxels.lower[2]) / layers:g}"
        )
    return BevGrid(voxels, stride, divisor)


def _expect_multiple(grid: BevGrid, axis: str, count: int) -> None:
    if count % grid.divisor == 0:
        return
    i = _AXES.index(axis)
    low, size = grid.voxels.lower[i], grid.voxels.voxel_size[i]
    fits = [n for n in (count // grid.divisor * grid.divisor, -(-count // grid.divisor) * grid.divisor) if n]
    uppers = " or ".join(f"{low + n * size:g} ({n} voxels)" for n in fits)
    raise UsageError(
        f"grid.upper: expected a multiple of {grid.divisor} voxels along {axis} (the strides of encoder and neck), got {count}; "
        f"change grid.upper {axis} to {uppers}, or grid.voxel_size {axis}"
    )


def convolved_depth(depth: int, steps: tuple[tuple[int, int, int], ...]) -> int:
    """Cells along z after convolutions with (kernel, stride, padding) along z. UsageError where nothing is left."""
    left = depth
    for kernel, stride, padding in steps:
        left = (left + 2 * padding - kernel) // stride + 1
        if left < 1:
            raise UsageError(
                f"grid.voxel_size: expected z small enough for the encoder, got {depth - 1} voxels along z of which none is left"
            )
    return left
