import pytest

from perception.core.errors import UsageError
from perception.detection.build import build_network, grid_of
from perception.detection.config import CenterPointSettings, load_detector_config
from tests.detection.small import small_config


@pytest.mark.parametrize(
    ("name", "voxels", "map_shape", "cell"),
    [
        ("centerpoint_pillar02", (1, 512, 512), (128, 128), 0.8),
        ("centerpoint_voxel0100", (40, 1024, 1024), (128, 128), 0.8),
        ("centerpoint_voxel0075", (40, 1440, 1440), (180, 180), 0.6),
        ("centerpoint_pillar02_virtual", (1, 512, 512), (128, 128), 0.8),
        ("centerpoint_voxel0075_virtual", (40, 1440, 1440), (180, 180), 0.6),
    ],
)
def test_shapes_of_the_shipped_detectors(name, voxels, map_shape, cell):
    grid = grid_of(load_detector_config(name).detector)
    assert grid.voxels.shape == voxels
    assert grid.map_shape == map_shape
    assert grid.cell_size == pytest.approx((cell, cell))


def test_the_map_has_the_shape_that_the_grid_says():
    import torch

    for kind in ("pillar", "voxel"):
        settings = small_config(kind).detector
        maps = build_network(settings).eval()([torch.zeros((0, 5))])
        assert tuple(maps.shared.shape[2:]) == grid_of(settings).map_shape


def changed(kind: str, **grid: list[float]) -> CenterPointSettings:
    values = small_config(kind).detector.model_dump()
    values["grid"] |= grid
    return CenterPointSettings.model_validate(values)


@pytest.mark.parametrize(
    ("kind", "grid", "message"),
    [
        ("pillar", {"voxel_size": [0.3, 0.4, 8]}, r"grid.voxel_size: expected x to divide .* got 0.3 \(85.33 voxels\); 0.301176 does"),
        ("pillar", {"upper": [13.2, 12.8, 3]}, r"expected a multiple of 2 voxels along x .* got 65; change grid.upper x to 12.8 \(64"),
        ("voxel", {"upper": [6.4, 5.6, 3]}, r"expected a multiple of 16 voxels along y .* got 120; .*y to 4.8 \(112 voxels\) or 6.4 \(128"),
        ("pillar", {"voxel_size": [0.4, 0.4, 4]}, r"expected 1 voxel along z with pillars, got 2; change grid.voxel_size z to 8"),
        ("voxel", {"voxel_size": [0.1, 0.1, 1]}, r"grid.voxel_size: expected z small enough for the encoder, got 8 voxels"),
        ("pillar", {"upper": [-12.8, 12.8, 3]}, r"grid.upper: expected x > -12.8"),
        ("pillar", {"voxel_size": [80, 0.4, 8]}, r"grid.voxel_size: expected x <= 25.6, the length of the range, got 80"),
        ("pillar", {"voxel_size": [40, 0.4, 8]}, r"grid.voxel_size: expected x to divide .* got 40 \(0.64 voxels\); 25.6 does"),
        (
            "pillar",
            {"voxel_size": [0.001, 0.001, 8]},
            r"grid.voxel_size: expected at most 67108864 voxels seen from above, got 25600 x 25600",
        ),
    ],
)
def test_an_impossible_grid_says_which_number_to_change(kind, grid, message):
    with pytest.raises(UsageError, match=message):
        build_network(changed(kind, **grid))


def test_a_grid_of_few_cells_is_told_what_fits():
    with pytest.raises(UsageError, match=r"change grid.upper x to -11.2 \(16 voxels\)"):
        build_network(changed("voxel", lower=[-12.8, -6.4, -5], upper=[-12.3, 6.4, 3]))
