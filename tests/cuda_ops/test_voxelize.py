"""Voxelization against the reference loop, the published generators' results and what must hold of any voxelization."""

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cuda_ops
from cuda_ops import Grid, reference, voxelize_hard, voxelize_mean

torch = pytest.importorskip("torch")

SMALL = Grid((-2, -2, -1), (2, 2, 1), (0.5, 0.5, 0.5))  # 8 x 8 x 4 cells
WIDE = Grid((-1e6, -1e6, -1e3), (1e6, 1e6, 1e3), (1, 1, 1))  # 8e15 cells: numbers above 32 bits

FINE = Grid((-2, -2, -1), (2, 2, 1), (0.01, 0.01, 0.01))  # 32 million cells


def fine_reference(points: np.ndarray, max_points: int, max_voxels: int) -> cuda_ops.HardVoxels:
    """reference.voxelize_hard in FINE for points inside of it, quickly: through np.unique."""
    lower, size = np.float32(FINE.lower), np.float32(FINE.voxel_size)
    cells = np.floor((points[:, :3] - lower) / size).astype(np.int32)[:, ::-1]
    _, first, voxel = np.unique(cells, axis=0, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))[voxel.ravel()]  # voxels by their first points
    order = np.argsort(rank, kind="stable")
    nth = np.empty(len(points), np.int64)
    nth[order] = np.arange(len(points)) - np.searchsorted(rank[order], rank[order])
    rows, kept = min(len(first), max_voxels), (nth < max_points) & (rank < max_voxels)
    voxels = np.zeros((rows, max_points, points.shape[1]), np.float32)
    voxels[rank[kept], nth[kept]] = points[kept]
    counters = np.array([rows, 0, 0, len(first) - rows, len(points) - kept.sum()])
    num_points = np.bincount(rank[kept], minlength=rows).astype(np.int32)
    return cuda_ops.HardVoxels(voxels, cells[np.sort(first)[:rows]], num_points, counters, np.where(kept, rank, -1).astype(np.int32))


def cloud(count: int, seed: int, columns: int = 5) -> np.ndarray:
    """Points in and around SMALL, many on its borders, some not finite."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-2.5, 2.5, (count, columns)).astype(np.float32)
    on_border = rng.random(count) < 0.3
    points[on_border] = np.round(points[on_border] * 2) / 2
    points[rng.random(count) < 0.05, rng.integers(0, columns)] = np.nan
    points[rng.random(count) < 0.02, rng.integers(0, 3)] = np.inf
    return points


def assert_same(ours, theirs) -> None:
    """Every array of the two results has the same bits (NaN like NaN)."""
    for name in ours._fields:
        mine, other = getattr(ours, name), getattr(theirs, name)
        if mine is not None:
            np.testing.assert_array_equal(np.asarray(mine), other, err_msg=name)
            assert np.asarray(mine).dtype == other.dtype, name


clouds = st.builds(cloud, st.integers(0, 300), st.integers(0, 10**6), st.sampled_from([3, 4, 5, 7]))


@given(clouds, st.integers(1, 6), st.integers(1, 80), st.booleans())
def test_hard_voxels_are_those_of_the_reference(points, max_points, max_voxels, is_batched):
    batch = np.arange(len(points), dtype=np.int32) % 4 - 1 if is_batched else None  # -1 and 2 are no samples
    limits = (max_points, max_voxels)
    ours = voxelize_hard(points, SMALL, *limits, batch_index=batch, batch_size=2, with_index=True)
    assert_same(ours, reference.voxelize_hard(points, SMALL, *limits, batch_index=batch, batch_size=2))


@given(clouds, st.integers(1, 80) | st.none(), st.booleans())
def test_mean_voxels_are_those_of_the_reference(points, max_voxels, is_batched):
    batch = np.arange(len(points), dtype=np.int32) % 4 - 1 if is_batched else None
    ours = voxelize_mean(points, SMALL, batch_index=batch, batch_size=2, max_voxels=max_voxels, with_index=True)
    assert_same(ours, reference.voxelize_mean(points, SMALL, batch_index=batch, batch_size=2, max_voxels=max_voxels))


def test_cells_beyond_32_bits_are_told_apart():
    rng = np.random.default_rng(0)
    points = (rng.uniform(-1, 1, (500, 4)) * [1e6, 1e6, 1e3, 1]).astype(np.float32)
    points = np.concatenate([points, points[::3]])
    batch = rng.integers(0, 3, len(points)).astype(np.int64)
    assert_same(
        voxelize_mean(points, WIDE, batch_index=batch, batch_size=3, with_index=True),
        reference.voxelize_mean(points, WIDE, batch_index=batch, batch_size=3),
    )
    assert_same(
        voxelize_hard(points, WIDE, 2, 400, batch_index=batch, batch_size=3, with_index=True),
        reference.voxelize_hard(points, WIDE, 2, 400, batch_index=batch, batch_size=3),
    )


@given(clouds)
def test_every_point_is_accounted_for(points):
    found = voxelize_hard(points, SMALL, 2, 10)
    assert found.num_points.sum() + found.num_outside + found.num_not_finite + found.num_points_over == len(points)
    found = voxelize_mean(points, SMALL)
    assert found.num_points.sum() + found.num_outside + found.num_not_finite == len(points)


@given(clouds, st.integers(0, 100))
def test_the_order_of_points_does_not_move_cells(points, seed):
    shuffled = points[np.random.default_rng(seed).permutation(len(points))]
    one, other = voxelize_mean(points, SMALL), voxelize_mean(shuffled, SMALL)
    np.testing.assert_array_equal(one.coords, other.coords)
    np.testing.assert_array_equal(one.num_points, other.num_points)
    np.testing.assert_allclose(one.features, other.features, rtol=1e-5, atol=1e-6)  # sums in another order


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_results_do_not_depend_on_the_number_of_threads(threads):
    points = np.concatenate([cloud(60_000, 1), cloud(40_000, 2) * 0.1])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        mean, hard = voxelize_mean(points, SMALL, with_index=True), voxelize_hard(points, SMALL, 5, 200, with_index=True)
        torch.set_num_threads(threads)
        assert_same(voxelize_mean(points, SMALL, with_index=True), mean)
        assert_same(voxelize_hard(points, SMALL, 5, 200, with_index=True), hard)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize(
    ("count", "spread"),
    [
        pytest.param(65_000, (4, 4, 2), id="nearly every point has a cell of its own"),  # more than 3/4 of 65,536: the table grows
        pytest.param(70_000, (0.2, 0.2, 0.2), id="some of many, some of one"),
        pytest.param(70_000, (0, 4, 0), id="one column of cells"),
        pytest.param(300, (4, 4, 2), id="few"),
    ],
)
def test_many_voxels_on_any_number_of_threads_are_those_of_the_reference(threads, count, spread):
    rng = np.random.default_rng(count)
    points = (rng.uniform(-0.5, 0.5, (count, 5)) * [*spread, 1, 1]).astype(np.float32)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        assert_same(voxelize_hard(points, FINE, 3, 50_000, with_index=True), fine_reference(points, 3, 50_000))
    finally:
        torch.set_num_threads(before)


def test_tensors_give_tensors_with_the_same_bits():
    points = cloud(5_000, 3)
    batch = np.arange(5_000) % 2
    for voxelize, limits in ((voxelize_mean, ()), (voxelize_hard, (3, 100))):
        ours = voxelize(torch.from_numpy(points), SMALL, *limits, batch_index=torch.from_numpy(batch), batch_size=2, with_index=True)
        assert all(isinstance(value, torch.Tensor) for value in ours)
        assert_same(ours, voxelize(points, SMALL, *limits, batch_index=batch, batch_size=2, with_index=True))


@pytest.mark.parametrize(("voxelize", "limits"), [(voxelize_mean, {}), (voxelize_hard, {"max_points": 3})])
def test_fixed_capacity_has_the_same_rows_in_front(voxelize, limits):
    points = cloud(500, 4)
    exact = voxelize(points, SMALL, **limits, max_voxels=1000)
    padded = voxelize(points, SMALL, **limits, max_voxels=1000, fixed_capacity=True)
    assert len(padded.coords) == 1000
    assert padded.num_voxels == exact.num_voxels == len(exact.coords) < 1000
    for padded_part, part in zip(padded[:3], exact[:3], strict=True):
        np.testing.assert_array_equal(padded_part[: len(part)], part)
    free = padded.num_voxels
    assert (padded.coords[free:] == -1).all()
    assert not padded[0][free:].any()
    assert not padded.num_points[free:].any()


@pytest.mark.parametrize(
    ("points", "num_voxels"),
    [
        pytest.param(np.zeros((0, 5), np.float32), 0, id="no points"),
        pytest.param(np.full((3, 4), np.nan, np.float32), 0, id="nothing finite"),
        pytest.param(np.float32([[2.0, 0, 0]]), 0, id="on the upper limit"),
        pytest.param(np.float32([[-2.0, -2, -1]]), 1, id="on the lower limit"),
        pytest.param(np.float32([[1e30, 0, 0], [3e38, -3e38, 0]]), 0, id="far away"),
        pytest.param(np.float32([[0, 0, 0, np.nan]]), 1, id="NaN in a further column stays"),
        pytest.param(np.zeros((10, 10), np.float32)[::2, ::2], 1, id="not contiguous"),
    ],
)
def test_small_clouds(points, num_voxels):
    assert voxelize_hard(points, SMALL, 5, 10).num_voxels == num_voxels
    found = voxelize_mean(points, SMALL)
    assert found.num_voxels == num_voxels
    assert found.features.shape == (num_voxels, points.shape[1])
    assert found.coords.shape == (num_voxels, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": np.zeros((3, 5))}, r"points: expected dtype float32, got float64"),
        ({"points": np.zeros(3, np.float32)}, r"points: expected shape \(N, C\), got \(3,\)"),
        ({"points": np.zeros((3, 2), np.float32)}, r"points: expected at least the columns x, y, z, got shape \(3, 2\)"),
        ({"batch_index": np.zeros(4, np.int32)}, r"batch_index: expected shape \(3,\), got \(4,\)"),
        ({"batch_index": np.zeros(3)}, r"batch_index: expected dtype int32 or int64, got float64"),
        ({"batch_size": 0}, r"batch_size: expected an integer from 1 to 2\^31 - 1, got 0"),
        ({"max_voxels": 2**31}, r"max_voxels: expected an integer from 1 to 2\^31 - 1, got 2147483648"),
        (
            {"points": torch.zeros(3, 5), "batch_index": np.zeros(3, np.int32)},
            r"batch_index: expected a torch tensor on cpu like points, got ndarray",
        ),
        ({"points": torch.zeros(3, 5).half()}, r"points: expected dtype float32, got float16"),
    ],
)
def test_wrong_arguments_say_expected_and_got(change, message):
    good = {"points": np.zeros((3, 5), np.float32), "max_voxels": 4}
    with pytest.raises(ValueError, match=message):
        voxelize_mean(grid=SMALL, **{**good, **change})
    with pytest.raises(ValueError, match=message):
        voxelize_hard(grid=SMALL, max_points=2, **{**good, **change})


def test_more_cells_than_can_be_counted_are_refused():
    huge = Grid((-1e9, -1e9, -1e9), (1e9, 1e9, 1e9), (1, 1, 1))
    with pytest.raises(ValueError, match=r"grid: expected fewer than 2\^62 cells in the batch, got 8e\+27"):
        voxelize_mean(np.zeros((1, 3), np.float32), huge)


def test_a_capacity_needs_a_number():
    with pytest.raises(ValueError, match="max_voxels: expected a number with fixed_capacity, got None"):
        voxelize_mean(np.zeros((1, 3), np.float32), SMALL, fixed_capacity=True)


# ---- what the published generators gave ----

HARD = ("a", "b", "c", "edge_borders", "edge_limits", "edge_empty", "edge_one", "edge_duplicates", "edge_max_points", "edge_max_voxels")
DYNAMIC = ("voxel", "pillar", "limits", "nan", "empty", "one", "duplicates")


def oracle(shared, name: str):
    """Points, grid, arrays and description of a case."""
    folder = shared / "fixtures/voxelize"
    case = json.loads((folder / "meta.json").read_text())["cases"][name]
    arrays = np.load(folder / f"{name}.npz")
    if "points" in arrays:
        points = arrays["points"]
    else:
        xyz = arrays["xyz_q"] * 0.002 - 65.0 + 0.0007
        points = np.column_stack([xyz, arrays["intensity_u8"], arrays["sweep_u8"] * 0.05]).astype(np.float32)
    if "points_sha256" in case:
        assert hashlib.sha256(points.tobytes()).hexdigest() == case["points_sha256"]
    limits = case["pc_range"]
    return points, Grid(tuple(limits[:3]), tuple(limits[3:]), tuple(case["voxel_size"])), arrays, case


@pytest.mark.shared
@pytest.mark.parametrize("name", [*HARD, "edge_inf"])
def test_hard_voxels_are_those_of_the_published_generator(shared, name):
    points, grid, arrays, case = oracle(shared, name)
    found = voxelize_hard(points, grid, case["max_points"], case["max_voxels"])
    np.testing.assert_array_equal(found.coords, arrays["coords_zyx"])
    np.testing.assert_array_equal(found.num_points, arrays["num_points"])
    if "voxels" in arrays:
        np.testing.assert_array_equal(found.voxels, arrays["voxels"])
    else:
        assert hashlib.sha256(np.ascontiguousarray(found.voxels).tobytes()).hexdigest() == case["voxels_sha256"]


@pytest.mark.shared
@pytest.mark.parametrize("name", [f"dynamic_{n}" for n in DYNAMIC[:2]] + [f"edge_dynamic_{n}" for n in DYNAMIC[2:]])
def test_means_are_those_of_the_published_readers(shared, name):
    points, grid, arrays, _ = oracle(shared, name)
    found = voxelize_mean(points, grid)
    z, y, x = arrays["coords_zyx"].T
    order = np.lexsort((x, y, z))  # their rows ascend by x, y, z
    np.testing.assert_array_equal(found.coords, arrays["coords_zyx"][order])
    np.testing.assert_allclose(found.features, arrays["mean"][order], rtol=1e-5)


@pytest.mark.shared
def test_points_on_the_upper_limit_are_dropped_where_a_published_reader_keeps_them(shared):
    points, grid, arrays, _ = oracle(shared, "edge_dynamic_limits")
    found = voxelize_mean(points, grid)
    theirs = arrays["det3d_coords_zyx"]
    beyond = (theirs == np.array(grid.shape)).any(axis=1)  # cells whose index equals the grid's size do not exist
    assert beyond.sum() == 3
    assert {tuple(c) for c in theirs[~beyond]} == {tuple(c) for c in found.coords}


def test_every_function_of_the_room_is_listed():
    assert {"voxelize_hard", "voxelize_mean", "Grid"} <= set(cuda_ops.__all__)


# ---- on a GPU ----


@pytest.mark.gpu
@pytest.mark.parametrize("is_batched", [False, True])
def test_the_gpu_gives_the_bits_of_the_cpu(cuda_device, is_batched):
    points = np.concatenate([cloud(60_000, 1), cloud(40_000, 2) * 0.1])
    batch = torch.arange(len(points)) % 3 - 1 if is_batched else None
    tensor = torch.from_numpy(points)
    for voxelize, limits in (
        (voxelize_mean, {}),
        (voxelize_mean, {"max_voxels": 50}),
        (voxelize_hard, {"max_points": 5, "max_voxels": 150}),
    ):
        on_cpu = voxelize(tensor, SMALL, **limits, batch_index=batch, batch_size=2, with_index=True)
        for _ in range(2):  # and the same again
            moved = None if batch is None else batch.to(cuda_device)
            on_gpu = voxelize(tensor.to(cuda_device), SMALL, **limits, batch_index=moved, batch_size=2, with_index=True)
            assert all(part.is_cuda for part in on_gpu)
            assert_same(type(on_gpu)(*[part.cpu() for part in on_gpu]), type(on_cpu)(*[part.numpy() for part in on_cpu]))


@pytest.mark.gpu
def test_a_cuda_graph_holds_a_voxelization_of_fixed_capacity(cuda_device):
    points = torch.from_numpy(cloud(20_000, 5)).to(cuda_device)
    found = None
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        voxelize_mean(points, SMALL, max_voxels=400, fixed_capacity=True)  # before the capture: what is loaded on first use
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        found = voxelize_mean(points, SMALL, max_voxels=400, fixed_capacity=True)
    points.copy_(torch.from_numpy(cloud(20_000, 6)))
    graph.replay()
    torch.cuda.synchronize()
    expected = voxelize_mean(cloud(20_000, 6), SMALL)
    assert found.num_voxels == expected.num_voxels
    np.testing.assert_array_equal(found.features[: found.num_voxels].cpu().numpy(), expected.features)


@pytest.mark.gpu
@pytest.mark.parametrize("count", [0, 1])
def test_tiny_clouds_on_the_gpu(cuda_device, count):
    found = voxelize_hard(torch.zeros(count, 4, device=cuda_device), SMALL, 5, 10)
    assert found.voxels.shape == (count, 5, 4)
    assert voxelize_mean(torch.zeros(count, 4, device=cuda_device), SMALL).num_voxels == count
