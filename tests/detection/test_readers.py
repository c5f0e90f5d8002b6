import numpy as np
import pytest
import torch
from torch import nn

from cuda_ops import Grid
from perception.detection.encoders import PillarScatter
from perception.detection.fold import folded
from perception.detection.layers import ConvNormRelu
from perception.detection.pillar_readers import DynamicPillarReader, PillarReader
from perception.detection.pillar_stem import PillarStem
from perception.detection.pillar_summary import HeightBands, PillarSummaryReader
from perception.detection.readers import DynamicMeanReader, MeanReader, VirtualMeanReader, VoxelLimit
from perception.detection.voxels import HardVoxels, VoxelFeatures
from tests.conftest import SHARED
from tests.detection.small import padded_rows

GRID = Grid((0, 0, 0), (4, 4, 4), (1, 1, 4))
LIMIT = VoxelLimit(3, 5, 10)


def points(*rows: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32)


def test_mean_of_the_first_points_of_a_voxel():
    cloud = points((0.5, 0.5, 1, 10, 0), (0.5, 0.5, 3, 20, 0.2), (3.5, 0.5, 1, 7, 0), (0.5, 0.5, 2, 30, 0.1), (0.5, 0.5, 9, 99, 0))
    reader = MeanReader(GRID, VoxelLimit(2, 5, 10))
    found = reader(reader.voxelize([cloud]))
    assert found.coords.tolist() == [[0, 0, 0, 0], [0, 0, 0, 3]]
    torch.testing.assert_close(found.features, points((0.5, 0.5, 2, 15, 0.1), (3.5, 0.5, 1, 7, 0)))  # the third point is one too many
    reader = DynamicMeanReader(GRID)
    found = reader(reader.voxelize([cloud]))
    torch.testing.assert_close(found.features, points((0.5, 0.5, 2, 20, 0.1), (3.5, 0.5, 1, 7, 0)))  # the last point lies above the range


@pytest.mark.parametrize("kind", [MeanReader, PillarReader])
def test_limits_of_voxels_are_those_of_each_sample(kind):
    rng = np.random.default_rng(0)
    clouds = [torch.from_numpy(rng.uniform(0, 4, (100, 5)).astype(np.float32)) for _ in range(3)]
    reader = kind(GRID, LIMIT) if kind is MeanReader else kind(GRID, LIMIT, (4, 4))
    count = lambda voxels: np.bincount(voxels.coords[:, 0].numpy(), minlength=3).tolist()  # noqa: E731
    assert count(reader.train().voxelize(clouds)) == [5, 5, 5]
    assert count(reader.eval().voxelize(clouds)) == [10, 10, 10]
    assert count(reader.voxelize(clouds, [2, 30, 4])) == [2, 16, 4]


def readers():
    return [
        MeanReader(GRID, LIMIT),
        DynamicMeanReader(GRID),
        PillarReader(GRID, LIMIT, (4, 6)),
        DynamicPillarReader(GRID, (4, 6)),
        VirtualMeanReader(GRID),
        PillarReader(GRID, LIMIT, (4, 6), point_columns=16, virtual=True),
        PillarSummaryReader(GRID, 6, directions=4, bands=HeightBands(0, 4, 2)),
        PillarSummaryReader(GRID, 6, directions=4, bands=HeightBands(0, 4, 2), virtual=True),
    ]


@pytest.mark.parametrize("number", range(8))
@torch.no_grad()
def test_clouds_without_points_in_range(number):
    reader = readers()[number].eval()
    none, far = torch.zeros((0, reader.point_columns)), torch.full((4, reader.point_columns), 100.0)
    one = torch.full((1, reader.point_columns), 1.5)
    found = reader(reader.voxelize([none, one, far]))
    assert found.coords.tolist() == [[1, 0, 1, 1]]
    assert found.features.shape == (1, reader.out_channels)
    assert found.features.isfinite().all()
    found = reader(reader.voxelize([none, far]))
    assert found.features.shape == (0, reader.out_channels)


def padded(reader: PillarReader, voxels: HardVoxels) -> torch.Tensor:
    """The published way: all slots of all pillars go through the layers, unused ones as zeros."""
    x = padded_rows(reader, voxels)  # (M, P, C)
    count, slots, _ = x.shape
    for number, layer in enumerate(reader.net.layers):
        x = layer.linear(x)
        x = torch.relu(layer.norm(x.flatten(0, 1)).view(count, slots, -1))
        best = x.max(dim=1, keepdim=True).values
        x = torch.cat([x, best.expand_as(x)], dim=2) if number + 1 < len(reader.net.layers) else best[:, 0]
    return x


@pytest.mark.parametrize("training", [False, True])
def test_pillars_are_those_of_padded_slots(training):
    """Values, and in training the statistics and gradients too, although unused slots are one row only."""
    rng = np.random.default_rng(1)
    clouds = [torch.from_numpy(rng.uniform(0, 4, (count, 5)).astype(np.float32)) for count in (12, 30)]
    ours, theirs = (PillarReader(GRID, VoxelLimit(3, 50, 50), (8, 6)) for _ in range(2))
    for layer in ours.net.layers:
        nn.init.normal_(layer.norm.weight)
        nn.init.normal_(layer.norm.bias)
        layer.norm.running_mean.normal_()
        layer.norm.running_var.uniform_(0.5, 2)
    for layer in (*ours.net.layers, *theirs.net.layers):
        layer.norm.momentum = 0.5  # so that a wrong statistic shows
    theirs.load_state_dict(ours.state_dict())
    ours.train(training), theirs.train(training)
    voxels = ours.voxelize(clouds)
    assert {1, 2, 3} <= set(voxels.num_points.tolist())
    found, expected = ours(voxels).features, padded(theirs, voxels)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    for name, buffer in ours.named_buffers():
        torch.testing.assert_close(buffer, theirs.get_buffer(name), rtol=1e-4, atol=1e-5)
    for features in (found, expected):
        (features * torch.linspace(-1, 1, features.numel()).view_as(features)).sum().backward()
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs.get_parameter(name).grad, rtol=1e-3, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("channels", [(6,), (8, 6), (8, 8, 6)])
def test_folded_pillars_are_the_same(channels):
    """The last folded layer adds after the maximum what all rows of a pillar have in common."""
    rng = np.random.default_rng(1)
    reader = PillarReader(GRID, VoxelLimit(3, 50, 50), channels).eval()
    for layer in reader.net.layers:
        nn.init.normal_(layer.norm.weight)  # also negative ones
        nn.init.normal_(layer.norm.bias)
        layer.norm.running_mean.normal_()
    voxels = reader.voxelize([torch.from_numpy(rng.uniform(0, 4, (30, 5)).astype(np.float32))])
    torch.testing.assert_close(folded(reader)(voxels).features, reader(voxels).features, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("shape", [(8, 12), (7, 9)])
@pytest.mark.parametrize("stride", [1, 2])
def test_pillar_stem_is_scatter_and_convolution(shape, stride):
    layer = ConvNormRelu(nn.Conv2d(4, 5, 3, stride, padding=1, bias=False), eps=1e-3, momentum=0.01).eval()
    layer.norm.running_mean.normal_()
    rng, (height, width) = np.random.default_rng(0), shape
    cells = np.sort(rng.choice(2 * height * width, 12, replace=False))
    b, y, x = np.unravel_index(cells, (2, height, width))
    coords = torch.from_numpy(np.stack([b, 0 * b, y, x], axis=1).astype(np.int32))
    scatter = PillarScatter(4, shape)
    for rows in (12, 0):
        pillars = VoxelFeatures(torch.randn(rows, 4), coords[:rows], 2)
        expected = layer(scatter(pillars))
        torch.testing.assert_close(PillarStem(scatter, folded(layer))(pillars), expected, rtol=1e-4, atol=1e-5)


def test_dynamic_pillars_take_points_above_and_below():
    reader = DynamicPillarReader(GRID, (4, 4)).eval()
    voxels = reader.voxelize([points((0.5, 0.5, -30, 1, 0), (0.5, 0.5, 30, 1, 0), (0.5, 0.5, float("nan"), 1, 0))])
    assert voxels.voxel_of_point.tolist() == [0, 0, -1]
    assert voxels.mean.shape == (1, 5)
    assert reader(voxels).features.isfinite().all()


@pytest.fixture(scope="module")
def virtual_cloud() -> torch.Tensor:
    """The oracle's cloud: raw points, painted ones, virtual ones, 16 columns."""
    folder = SHARED / "fixtures" / "mvp"
    raw, virtual = np.load(folder / "inputs.npz")["points"], np.load(folder / "virtual_points.npz")
    painted, drawn = virtual["real_points"], virtual["virtual_points"]

    def kind(value: int, columns: np.ndarray) -> np.ndarray:
        return np.concatenate([columns, np.full((len(columns), 1), value)], axis=1)

    real = kind(1, np.concatenate([raw[:, :4], np.ones((len(raw), 10))], axis=1))
    rows = np.concatenate([real, kind(0, np.delete(painted, 3, axis=1)), kind(-1, drawn)])
    age = np.where(np.arange(len(rows)) % 2 == 0, 0.05, 0.0)[:, None]
    return torch.from_numpy(np.concatenate([rows, age], axis=1).astype(np.float32))


@pytest.mark.shared
def test_voxels_with_virtual_points_are_the_published_ones(virtual_cloud):
    arrays = np.load(SHARED / "fixtures" / "mvp" / "detector_inputs.npz")
    np.testing.assert_array_equal(virtual_cloud[:4].numpy(), arrays["assembled_head"])
    reader = VirtualMeanReader(Grid((-54, -54, -5), (54, 54, 3), (0.075, 0.075, 0.2)))
    found = reader(reader.voxelize([virtual_cloud]))
    assert len(found.coords) == int(arrays["n_voxels"])
    rows = torch.from_numpy(arrays["voxel_rows"]).long()
    np.testing.assert_array_equal(found.coords[rows, 1:].numpy(), arrays["voxel_coords_zyx"])
    np.testing.assert_allclose(found.features[rows].numpy(), arrays["voxel_features"], rtol=1e-5, atol=1e-4)


@pytest.mark.shared
def test_pillars_with_virtual_points_are_the_published_ones(virtual_cloud):
    arrays = np.load(SHARED / "fixtures" / "mvp" / "detector_inputs.npz")
    grid = Grid((-51.2, -51.2, -5), (51.2, 51.2, 3), (0.2, 0.2, 8))
    reader = PillarReader(grid, VoxelLimit(20, 30000, 60000), (64, 64), point_columns=16, virtual=True).eval()
    voxels = reader.voxelize([virtual_cloud])
    assert len(voxels.coords) == int(arrays["n_pillars"])
    rows = torch.from_numpy(arrays["pillar_rows"]).long()
    np.testing.assert_array_equal(voxels.coords[rows, 1:].numpy(), arrays["pillar_coords_zyx"])
    np.testing.assert_array_equal(voxels.num_points[rows].numpy(), arrays["pillar_num"])
    np.testing.assert_array_equal(voxels.points[rows].numpy(), arrays["pillar_points"])
    np.testing.assert_allclose(padded_rows(reader, voxels)[rows].numpy(), arrays["pillar_decorated"], rtol=0, atol=1e-4)
