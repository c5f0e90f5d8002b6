import math

import numpy as np
import pytest
import torch

from cuda_ops import Grid
from perception.detection.fold import folded
from perception.detection.pillar_summary import HeightBands, PillarSummaryReader

GRID = Grid((0, 0, -1), (4, 4, 3), (1, 1, 4))


def points(*rows: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32)


def random_cloud(count: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    columns = [
        rng.uniform(-0.5, 4.5, (count, 2)),
        rng.uniform(-1.5, 3.5, count),
        rng.integers(0, 256, count),
        rng.integers(0, 10, count) / 20,
    ]
    return torch.from_numpy(np.column_stack(columns).astype(np.float32))


def reader(directions: int = 10, channels: int = 6, *, virtual: bool = False) -> PillarSummaryReader:
    torch.manual_seed(0)
    return PillarSummaryReader(GRID, channels, directions=directions, bands=HeightBands(0.5, 2, 3), virtual=virtual)


def fused(rows: torch.Tensor, kind: int, label: int = 0, score: float = 1.0) -> torch.Tensor:
    """Points (N, 5) in the 16 columns of virtual points: returns (kind 1), or painted (0) and virtual ones (-1) of a class."""
    found = torch.zeros(len(rows), 16)
    found[:, :3], found[:, 14], found[:, 15] = rows[:, :3], kind, rows[:, 4]
    if kind == 1:
        found[:, 3], found[:, 4:14] = rows[:, 3], 1
    else:
        found[:, 3 + label], found[:, 13] = 1, score
    return found


def random_fused(count: int, seed: int = 0) -> torch.Tensor:
    """Returns, painted and virtual points in turns."""
    parts = [fused(random_cloud(count, seed=seed + kind + 1), kind, label=3 * (kind + 1), score=0.75) for kind in (-1, 0, 1)]
    return torch.stack(parts, dim=1).flatten(0, 1)


@torch.no_grad()
def test_statistics_of_a_pillar_by_hand():
    ours = reader().eval()
    cloud = points((2.5, 0.75, 1, 255, 0), (2.25, 0.25, 2, 0, 0.5), (0.5, 0.5, 5, 9, 0))  # the last one lies above the grid
    voxels = ours.voxelize([cloud])
    assert voxels.coords.tolist() == [[0, 0, 0, 2]]
    # The ten directions are x, y, z, intensity and age, then their opposites: half pillars from the middle (2.5, 0.5), metres, 64ths, half
    # seconds. Largest: x 0, y 0.5, z 2, 255 / 64, 1; of the opposites: x 0.5, y 0.5, z -1, 0, 0.
    reach = [0, 0.5, 2, 255 / 64, 1, 0.5, 0.5, -1, 0, 0]
    # Means: x -0.25 half pillars, y 0, z 1.5, square root of 127.5 / 64, age half of a half second; then ln(3) / 4 and distance / 50.
    rest = [-0.25, 0, 1.5, math.sqrt(127.5 / 64), 0.5, math.log(3) / 4, math.hypot(2.5, 0.5) / 50]
    # Bands from 0.5, 1 and 1.5 on: z = 1 is in the second, 2 in the third one, each ln(2) / 4.
    bands = [0, math.log(2) / 4, math.log(2) / 4]
    torch.testing.assert_close(ours._features(voxels), points((*reach, *rest[:5], *bands, *rest[5:])), rtol=0, atol=1e-6)


def test_both_ways_to_the_reach_are_the_largest_product_of_each_pillar():
    ours, cloud = reader(24), random_cloud(500)
    voxels = ours.voxelize([cloud])
    with torch.no_grad():
        quick = ours._features(voxels)
    plain = ours._features(voxels)  # with gradients
    torch.testing.assert_close(quick, plain, rtol=0, atol=1e-5)
    for row, (_, _, y, x) in enumerate(voxels.coords.tolist()):
        inside = cloud[(cloud[:, 0].floor() == x) & (cloud[:, 1].floor() == y) & (cloud[:, 2] >= -1) & (cloud[:, 2] < 3)]
        assert len(inside) == int(voxels.num_points[row])
        local = (inside - points((x + 0.5, y + 0.5, 0, 0, 0))) * points((2, 2, 1, 1 / 64, 2))
        bands = np.histogram(inside[:, 2], [-np.inf, 1, 1.5, np.inf])[0]
        np.testing.assert_allclose(plain[row, 29:32].detach(), np.log1p(bands) / 4, rtol=0, atol=1e-6)
        torch.testing.assert_close(plain[row, :24], (local @ ours.directions.T).amax(dim=0), rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_order_of_points_and_company_in_a_batch_change_nothing():
    ours = reader().eval()
    first, second = random_cloud(300), random_cloud(200, seed=1)
    together = ours(ours.voxelize([first, second[:0], second.flip(0)]))
    assert together.batch_size == 3
    for sample, cloud in ((0, first), (2, second)):
        alone, of_sample = ours(ours.voxelize([cloud])), together.coords[:, 0] == sample
        assert torch.equal(alone.coords[:, 1:], together.coords[of_sample, 1:])
        torch.testing.assert_close(alone.features, together.features[of_sample], rtol=0, atol=1e-5)


def test_gradients_against_differences():
    ours = reader().eval().double()  # no batch statistics: each weight by itself
    voxels = ours.voxelize([random_cloud(60)])
    voxels = voxels._replace(points=voxels.points.double(), mean=voxels.mean.double())
    voxels.points.mul_(1 + 1e-3 * torch.rand(60, 5, dtype=torch.float64)).add_(1e-3 * torch.rand(60, 5, dtype=torch.float64))  # no ties

    def run(directions: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(ours, {"directions": directions, "layer.linear.weight": weight}, (voxels,)).features

    inputs = [ours.directions.detach().clone().requires_grad_(), ours.layer.linear.weight.detach().clone().requires_grad_()]
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)


def test_points_outside_give_no_gradient_and_no_nan():
    ours, cloud = reader(), random_cloud(200)
    cloud = torch.cat([cloud, points((math.nan, 1, 1, 1, 0), (1, 1, 9, math.inf, math.nan), (-3, 1, 1, 1, 0))])
    ours(ours.voxelize([cloud])).features.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in ours.parameters())
    assert ours.directions.grad.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_leaves_it_in_float32(dtype):
    ours, cloud = reader(), random_cloud(200)
    expected = ours(ours.voxelize([cloud])).features
    with torch.autocast("cpu", dtype=dtype):
        assert torch.equal(ours(ours.voxelize([cloud])).features, expected)


@torch.no_grad()
def test_folding_changes_nothing_but_rounding():
    ours = reader().eval()
    ours.layer.norm.running_mean.normal_()
    ours.layer.norm.running_var.uniform_(0.5, 2)
    voxels = ours.voxelize([random_cloud(200)])
    torch.testing.assert_close(folded(ours)(voxels).features, ours(voxels).features, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_single_point_stays_as_it_is():
    cloud = points((1.5, 0.5, 1, 9, 0))
    ours = reader().eval()
    assert ours._features(ours.voxelize([cloud]))[0, 2] == 1  # the reach along z
    assert cloud.tolist() == [[1.5, 0.5, 1, 9, 0]]


def test_directions_come_in_opposites():
    ours = reader(16)
    assert torch.equal(ours.directions[:8], -ours.directions[8:])
    torch.testing.assert_close(ours.directions.norm(dim=1), torch.ones(16))
    assert torch.equal(reader(4).directions[:2], torch.eye(5)[:2])


# --- virtual points

BASE = 10 + 3 + 7  # directions, bands, statistics


@torch.no_grad()
def test_virtual_points_by_hand():
    """A pillar of one return, two painted and one virtual point; one of a virtual point alone; one of a return alone."""
    ours, plain = reader(virtual=True).eval(), reader().eval()
    returns = points((2.5, 0.75, 1, 255, 0), (0.5, 0.5, 2, 9, 0.5))
    seen = points((2.5, 0.75, 1, 0, 0), (2.5, 0.75, 1, 0, 0), (2.75, 0.5, 2.5, 0, 0))
    alone = points((1.25, 0.25, 0.5, 0, 0.5), (1.5, 0.5, 7, 0, 0))  # the last one lies above the grid
    cloud = torch.cat([
        fused(returns, 1), fused(seen[:1], 0, 2, 0.5), fused(seen[1:2], 0, 9, 1), fused(seen[2:], -1, 0, 0.75), fused(alone, -1, 4, 0.25)
    ])  # fmt: skip
    voxels = ours.voxelize([cloud])
    assert voxels.coords[:, 3].tolist() == [0, 1, 2]
    assert voxels.num_points.tolist() == [1, 0, 1]
    found = ours._features(voxels)
    # Returns alone are what they are without all others.
    assert torch.equal(found[[0, 2], :BASE], plain._features(plain.voxelize([returns])))
    # No return: nothing but the distance of the pillar at (1.5, 0.5).
    torch.testing.assert_close(found[1, :BASE], points((0,) * (BASE - 1) + (math.hypot(1.5, 0.5) / 50,))[0], rtol=0, atol=1e-6)
    # Mean z; car, truck, construction vehicle, bus, trailer, barrier, motorcycle, bicycle, pedestrian, cone; score; ln(1 + number) / 4.
    assert found[0, BASE:].tolist() == [0] * 13
    expected = points((0.5, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0.25, math.log(2) / 4))[0]
    torch.testing.assert_close(found[1, BASE:], expected, rtol=0, atol=1e-6)
    third = 1 / 3
    expected = points((1.5, third, 0, third, 0, 0, 0, 0, 0, 0, third, 0.75, math.log(4) / 4))[0]
    torch.testing.assert_close(found[2, BASE:], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("gradients", [True, False])
def test_of_returns_alone_the_features_are_the_plain_ones(gradients):
    ours, plain, cloud = reader(virtual=True), reader(), random_cloud(300)
    with torch.set_grad_enabled(gradients):
        found = ours._features(ours.voxelize([fused(cloud, 1), fused(cloud[:50], 1)]))
        expected = plain._features(plain.voxelize([cloud, cloud[:50]]))
    assert torch.equal(found[:, :BASE], expected)
    assert not found[:, BASE:].any()


def test_virtual_points_change_nothing_about_returns():
    ours, plain, cloud = reader(virtual=True), reader(), random_fused(300)
    voxels = ours.voxelize([cloud])
    returns = cloud[cloud[:, 14] == 1][:, [0, 1, 2, 3, 15]]
    alone = plain.voxelize([returns])
    expected = plain._features(alone)
    at = {tuple(row): number for number, row in enumerate(alone.coords.tolist())}
    rows = [at[tuple(row)] for row in voxels.coords.tolist()]  # each pillar has returns too
    assert torch.equal(ours._features(voxels)[:, :BASE], expected[rows])
    with torch.no_grad():
        torch.testing.assert_close(ours._features(voxels)[:, :BASE], expected[rows], rtol=0, atol=1e-5)


@pytest.mark.parametrize("last", [1.0, math.nan])
def test_pillars_without_returns_give_no_gradient_to_directions(last):
    ours = reader(virtual=True)
    cloud = torch.cat([fused(random_cloud(100), -1, 2), fused(points((9, last, 1, 5, 0)), 1)])  # the return lies outside
    features = ours._features(ours.voxelize([cloud]))
    assert features.isfinite().all()
    assert not features[:, : BASE - 1].any()
    features.sum().backward()
    assert ours.directions.grad.tolist() == torch.zeros(10, 5).tolist()


def test_bits_of_the_plain_reader_do_not_depend_on_the_other():
    assert reader().layer.linear.weight.shape == (6, BASE)
    assert reader(virtual=True).layer.linear.weight.shape == (6, BASE + 13)
    assert (reader().point_columns, reader(virtual=True).point_columns) == (5, 16)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("gradients", [True, False])
def test_a_gpu_reads_virtual_points_as_the_cpu_does(gradients):
    ours, clouds = reader(virtual=True), [random_fused(300), fused(random_cloud(50), -1, 2), random_fused(80, seed=5)]
    theirs = reader(virtual=True).cuda()
    with torch.set_grad_enabled(gradients):
        expected = ours._features(ours.voxelize(clouds))
        found = theirs._features(theirs.voxelize([cloud.cuda() for cloud in clouds]))
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-4)
    if gradients:
        for features in (expected, found):
            features.square().sum().backward()
        torch.testing.assert_close(theirs.directions.grad.cpu(), ours.directions.grad, rtol=1e-3, atol=1e-3)
