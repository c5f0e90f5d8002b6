"""The grid: the published ones have their published shapes, and what is no grid is refused."""

import math

import pytest

from cuda_ops import Grid


@pytest.mark.parametrize(
    ("lower", "upper", "voxel_size", "shape"),
    [
        pytest.param((-54, -54, -5), (54, 54, 3), (0.075, 0.075, 0.2), (40, 1440, 1440), id="nuScenes, CenterPoint, 0.075 m"),
        pytest.param((-51.2, -51.2, -5), (51.2, 51.2, 3), (0.1, 0.1, 0.2), (40, 1024, 1024), id="nuScenes, CenterPoint, 0.1 m"),
        pytest.param((-51.2, -51.2, -5), (51.2, 51.2, 3), (0.2, 0.2, 8), (1, 512, 512), id="nuScenes, pillars"),
        pytest.param((-75.2, -75.2, -2), (75.2, 75.2, 4), (0.1, 0.1, 0.15), (40, 1504, 1504), id="Waymo, CenterPoint"),
        pytest.param((-74.88, -74.88, -2), (74.88, 74.88, 4), (0.32, 0.32, 6), (1, 468, 468), id="Waymo, pillars"),
        pytest.param((0, -40, -3), (70.4, 40, 1), (0.05, 0.05, 0.1), (40, 1600, 1408), id="KITTI, SECOND"),
        pytest.param((0, -39.68, -3), (69.12, 39.68, 1), (0.16, 0.16, 4), (1, 496, 432), id="KITTI, pillars"),
        pytest.param((0, 0, 0), (1, 1, 1), (0.3, 0.4, 1.5), (1, 2, 3), id="sizes that do not divide the range: rounded, half to even"),
        pytest.param((0, 0, 0), (2**31 - 1, 1, 1), (1, 1, 1), (1, 1, 2**31 - 1), id="as many cells as an axis may have"),
    ],
)
def test_shape(lower, upper, voxel_size, shape):
    assert Grid(lower, upper, voxel_size).shape == shape


def test_numbers_become_floats_and_equal_grids_are_equal():
    grid = Grid([0, 0, 0], (4, 2, 1), (1, 1, 1))
    assert grid == Grid((0.0, 0.0, 0.0), (4.0, 2.0, 1.0), (1.0, 1.0, 1.0))
    assert hash(grid) == hash(Grid((0, 0, 0), (4, 2, 1), (1, 1, 1)))
    assert all(type(number) is float for number in (*grid.lower, *grid.upper, *grid.voxel_size))
    with pytest.raises(AttributeError):
        grid.lower = (1, 1, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"lower": (0, 0)}, r"Grid.lower: expected three finite numbers x, y, z in metres, got \(0, 0\)", id="two numbers"),
        pytest.param({"upper": (1, math.inf, 1)}, r"Grid.upper: expected three finite numbers .* got \(1, inf, 1\)", id="infinite"),
        pytest.param({"voxel_size": (1, 1, math.nan)}, r"Grid.voxel_size: expected three finite numbers .* got \(1, 1, nan\)", id="NaN"),
        pytest.param({"voxel_size": (1, 0, 1)}, r"Grid.voxel_size: expected y > 0, got 0.0", id="no size"),
        pytest.param({"voxel_size": (-1, 1, 1)}, r"Grid.voxel_size: expected x > 0, got -1.0", id="negative size"),
        pytest.param({"upper": (4, 4, 0)}, r"Grid.upper: expected z > 0.0 \(Grid.lower\), got 0.0", id="empty range"),
        pytest.param({"upper": (-4, 4, 4)}, r"Grid.upper: expected x > 0.0 \(Grid.lower\), got -4.0", id="exchanged limits"),
        pytest.param({"voxel_size": (1, 9, 1)}, r"Grid.voxel_size: expected y <= 4, the length of the range, got 9.0", id="no cell"),
        pytest.param({"voxel_size": (1e-9, 1, 1)}, r"Grid.voxel_size: expected fewer than 2\^31 cells along x, got 4e\+09", id="too many"),
    ],
)
def test_errors_say_which_number_to_change(change, message):
    with pytest.raises(ValueError, match=message):
        Grid(**{"lower": (0, 0, 0), "upper": (4, 4, 4), "voxel_size": (1, 1, 1), **change})


@pytest.mark.parametrize(("limit", "size"), [(1e308, 1.0), (1.0, 1e-320), (1e300, 1e-300)])
def test_more_cells_than_a_float_counts_are_refused(limit, size):
    with pytest.raises(ValueError, match=r"Grid\.voxel_size: expected fewer than 2\^31 cells along x"):
        Grid((-limit,) * 3, (limit,) * 3, (size,) * 3)
