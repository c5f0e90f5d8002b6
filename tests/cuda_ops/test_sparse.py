"""Sites and tables of sparse convolutions against the reference, a dense convolution's own arithmetic and what must hold of any table."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cuda_ops
from cuda_ops import Grid, reference, sparse_indices

torch = pytest.importorskip("torch")


def sites(count: int, shape: tuple[int, int, int], seed: int, batch_size: int = 2, is_clean: bool = False) -> np.ndarray:
    """Rows batch, z, y, x in any order; unless clean with repeated, outside and empty ones."""
    rng = np.random.default_rng(seed)
    coords = np.column_stack([rng.integers(0, n, count) for n in (batch_size, *shape)]).astype(np.int32)
    if is_clean:
        return np.unique(coords, axis=0)
    coords[rng.random(count) < 0.1] = coords[:1] if count else 0
    is_outside = rng.random(count) < 0.1
    coords[is_outside, rng.integers(0, 4)] += rng.choice([-50, 50, 2**30])
    coords[rng.random(count) < 0.1] = -1
    return coords


def assert_same(ours, theirs) -> None:
    np.testing.assert_array_equal(ours.coords, theirs.coords)
    np.testing.assert_array_equal(ours.table, theirs.table)
    np.testing.assert_array_equal(ours.counters, theirs.counters)
    assert ours.shape == theirs.shape
    assert (ours.coords.dtype, ours.table.dtype, ours.counters.dtype) == (np.int32, np.int32, np.int64)


def as_numpy(found):
    return found._replace(**{name: getattr(found, name).cpu().numpy() for name in ("coords", "table", "counters")})


three = st.tuples(*[st.integers(1, 3)] * 3)


@st.composite
def convolutions(draw):
    """coords, grid, kernel_size, stride, padding, batch_size of a convolution that has outputs."""
    kernel, stride = draw(st.tuples(*[st.integers(1, 4)] * 3)), draw(three)
    padding = tuple(draw(st.integers(0, 2)) for _ in range(3))
    shape = tuple(max(draw(st.integers(1, 9)), k - 2 * p) for k, p in zip(kernel, padding, strict=True))
    batch_size = draw(st.integers(1, 3))
    coords = sites(draw(st.integers(0, 60)), shape, draw(st.integers(0, 10**6)), batch_size)
    if draw(st.booleans()):
        coords = coords[np.lexsort(coords.T[::-1])]  # in the order that voxelize_mean gives
    if draw(st.booleans()):
        coords = np.ascontiguousarray(coords[:, 1:])
    return coords, shape, kernel, stride, padding, batch_size


@given(convolutions())
def test_outputs_and_table_are_those_of_the_reference(case):
    coords, shape, kernel, stride, padding, batch_size = case
    ours = sparse_indices(coords, shape, kernel, stride, padding, batch_size=batch_size)
    assert_same(ours, reference.sparse_indices(coords, shape, kernel, stride, padding, batch_size=batch_size))


@given(convolutions())
def test_submanifold_tables_are_those_of_the_reference(case):
    coords, shape, kernel, _, _, batch_size = case
    kernel = tuple(k - 1 + k % 2 for k in kernel)
    ours = sparse_indices(coords, shape, kernel, submanifold=True, batch_size=batch_size)
    assert_same(ours, reference.sparse_indices(coords, shape, kernel, submanifold=True, batch_size=batch_size))


# Kernel, stride, padding of the layers of CenterPoint's backbones, and some that nobody uses.
LAYERS = [
    pytest.param(3, 2, 1, id="downsampling"),
    pytest.param(3, 2, (0, 1, 1), id="the last one"),
    pytest.param((3, 1, 1), (2, 1, 1), 0, id="out of z"),
    pytest.param(2, 2, 0, id="even kernel"),
    pytest.param(3, 1, 1, id="growing"),
    pytest.param((1, 2, 5), (3, 1, 2), (2, 0, 3), id="odd one"),
]


@pytest.mark.parametrize(("kernel", "stride", "padding"), LAYERS)
def test_sum_over_the_table_is_a_dense_convolution(kernel, stride, padding):
    shape, batch_size = (7, 12, 11), 2
    coords = sites(150, shape, 3, batch_size, is_clean=True)
    values = np.random.default_rng(1).integers(-8, 9, len(coords)).astype(np.float64)  # whole numbers: sums are exact
    dense = np.zeros((batch_size, 1, *shape))
    dense[coords[:, 0], 0, coords[:, 1], coords[:, 2], coords[:, 3]] = values
    size = (kernel,) * 3 if isinstance(kernel, int) else kernel
    weight = np.random.default_rng(2).integers(-8, 9, size).astype(np.float64)
    wanted = torch.nn.functional.conv3d(torch.from_numpy(dense), torch.from_numpy(weight)[None, None], stride=stride, padding=padding)[:, 0]
    found = sparse_indices(coords, shape, kernel, stride, padding, batch_size=batch_size)
    sums = (np.append(values, 0)[found.table] * weight.ravel()).sum(axis=1)
    b, z, y, x = found.coords.T
    ours = np.zeros(wanted.shape)
    ours[b, z, y, x] = sums
    assert found.shape == tuple(wanted.shape[1:])
    np.testing.assert_array_equal(ours, wanted.numpy())
    occupied = torch.zeros(dense.shape, dtype=torch.float64)
    occupied[coords[:, 0], 0, coords[:, 1], coords[:, 2], coords[:, 3]] = 1
    touched = torch.nn.functional.conv3d(occupied, torch.ones((1, 1, *size), dtype=torch.float64), stride=stride, padding=padding)[:, 0]
    np.testing.assert_array_equal(found.coords, np.argwhere(touched.numpy() > 0))  # an output wherever the kernel touches an input, sorted


def test_submanifold_by_eye():
    coords = [[0, 0, 0], [0, 0, 2], [0, 0, 1]]  # x = 0, 2, 1
    found = sparse_indices(coords, (1, 1, 3), (1, 1, 3), submanifold=True)
    assert found.table.tolist() == [[-1, 0, 2], [2, 1, -1], [0, 2, 1]]
    assert found.coords.tolist() == coords


def test_stride_by_eye():
    found = sparse_indices([[0, 0, 1], [0, 0, 3]], (1, 1, 5), (1, 1, 3), (1, 1, 2), (0, 0, 1))
    # outputs 0, 1, 2 look at -1..1, 1..3, 3..5
    assert found.coords.tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 2]]
    assert found.table.tolist() == [[-1, -1, 0], [0, -1, 1], [1, -1, -1]]
    assert found.shape == (1, 1, 3)


def test_rows_at_one_site_outside_and_empty():
    coords = np.array([[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 9], [1, 0, 0, 0], [-1, -1, -1, -1]], np.int32)
    found = sparse_indices(coords, (1, 1, 3), (1, 1, 3), submanifold=True)
    assert found.table.tolist() == [[-1, 0, -1]] + [[-1, -1, -1]] * 4
    assert (found.num_outputs, found.num_outside, found.num_duplicates) == (5, 2, 1)


@pytest.mark.parametrize("capacity", [0, 1, 37, 500])
def test_capacity_fills_up_or_cuts_and_counts(capacity):
    coords = sites(100, (5, 8, 8), 1)
    free = sparse_indices(coords, (5, 8, 8), 3, 2, 1, batch_size=2)
    found = sparse_indices(coords, (5, 8, 8), 3, 2, 1, batch_size=2, capacity=capacity)
    kept = min(capacity, len(free.coords))
    assert len(found.coords) == len(found.table) == capacity
    np.testing.assert_array_equal(found.coords[:kept], free.coords[:kept])
    np.testing.assert_array_equal(found.table[:kept], free.table[:kept])
    assert (found.coords[kept:] == -1).all()
    assert (found.table[kept:] == -1).all()
    assert (found.num_outputs, found.num_outputs_over) == (kept, len(free.coords) - kept)


def test_empty_rows_pass_through_a_chain_of_layers():
    coords = sites(200, (9, 20, 20), 5, is_clean=True)
    first = sparse_indices(coords, (9, 20, 20), 3, 2, 1, batch_size=2)
    roomy = sparse_indices(coords, (9, 20, 20), 3, 2, 1, batch_size=2, capacity=2000)
    again = sparse_indices(first.coords, first.shape, 3, submanifold=True, batch_size=2)
    roomy_again = sparse_indices(roomy.coords, roomy.shape, 3, submanifold=True, batch_size=2)
    np.testing.assert_array_equal(roomy_again.table[: len(first.coords)], again.table)
    assert (roomy_again.table[len(first.coords) :] == -1).all()
    assert roomy_again.num_outside == roomy_again.num_duplicates == 0


@pytest.mark.parametrize("order", ["sorted", "shuffled"])
def test_threads_do_not_matter(order):
    shape = (11, 100, 100)
    coords = sites(60_000, shape, 4)
    coords = coords[np.lexsort(coords.T[::-1])] if order == "sorted" else coords
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 8):
            torch.set_num_threads(threads)
            results.append(
                [sparse_indices(coords, shape, 3, 2, 1, batch_size=2), sparse_indices(coords, shape, 3, submanifold=True, batch_size=2)]
            )
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for mine, theirs in zip(results[0], other, strict=True):
            assert_same(mine, theirs)


def test_cells_beyond_32_bits_are_told_apart():
    shape = (1000, 2**21, 2**21)
    rng = np.random.default_rng(0)
    coords = np.column_stack([rng.integers(0, n, 300) for n in (3, *shape)]).astype(np.int32)
    coords = (
        np.concatenate([coords, coords[:50] + np.array([0, 0, 0, 1]), coords[:50] + np.array([0, 0, 1, 0])])
        .clip(0, 2**21 - 1)
        .astype(np.int32)
    )
    for options in ({"submanifold": True}, {"stride": (2, 2, 2), "padding": (1, 1, 1)}):
        try:
            ours = sparse_indices(coords, shape, (3, 3, 3), batch_size=3, **options)
        except ValueError as error:
            if "on a GPU" in str(error):  # the CUDA bodies, emulated
                pytest.skip(str(error))
            raise
        assert_same(ours, reference.sparse_indices(coords, shape, (3, 3, 3), batch_size=3, **options))


def test_tensors_give_tensors_of_the_same_values():
    coords = sites(100, (5, 8, 8), 1)
    for options in ({"submanifold": True}, {"stride": 2, "padding": 1}, {"capacity": 30}):
        ours = sparse_indices(torch.from_numpy(coords), (5, 8, 8), 3, batch_size=2, **options)
        theirs = sparse_indices(coords, (5, 8, 8), 3, batch_size=2, **options)
        assert all(isinstance(part, torch.Tensor) for part in (ours.coords, ours.table, ours.counters))
        assert_same(as_numpy(ours), theirs)


def test_grid_object_and_wider_integers_are_taken():
    grid = Grid((0, 0, 0), (8, 8, 5), (1, 1, 1))
    coords = sites(100, (5, 8, 8), 1)
    assert_same(sparse_indices(coords.astype(np.int64), grid, 3, batch_size=2), sparse_indices(coords, (5, 8, 8), 3, batch_size=2))


COORDS = np.zeros((2, 4), np.int32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"coords": COORDS[:, :2]}, r"coords: expected shape \(N, 4\): batch, z, y, x or \(N, 3\): z, y, x, got \(2, 2\)"),
        ({"coords": COORDS[0]}, r"coords: expected shape \(N, 3 or 4\), got \(4,\)"),
        ({"coords": COORDS.astype(np.float32)}, "coords: expected dtype int32 or int64, got float32"),
        ({"grid": (4, 4)}, r"grid: expected integers from 1 along z, y, x, got \(4, 4\)"),
        ({"grid": (4, 0, 4)}, r"grid: expected integers from 1 along z, y, x, got \(4, 0, 4\)"),
        ({"grid": (2, 4, 4)}, r"grid: expected at least kernel_size - 2 \* padding cells, got \(2, 4, 4\)"),
        ({"grid": (4, 4, 2**22 + 2)}, "grid: expected fewer than 2\\^22 cells along x"),
        ({"grid": (2**31 - 1, 2**31 - 1, 4)}, "grid: expected fewer than 2\\^62 cells"),
        ({"kernel_size": 0}, "kernel_size: expected integers from 1 along z, y, x, got 0"),
        ({"stride": (1, 1.5, 1)}, r"stride: expected integers from 1 along z, y, x, got \(1, 1.5, 1\)"),
        ({"padding": -1}, "padding: expected integers from 0 along z, y, x, got -1"),
        ({"submanifold": True, "kernel_size": 2}, "expected, with submanifold, an odd kernel_size"),
        ({"submanifold": True, "stride": 2}, "expected, with submanifold, an odd kernel_size and no stride"),
        ({"batch_size": 0}, r"batch_size: expected an integer from 1 to 2\^31 - 1, got 0"),
        ({"capacity": -1}, r"capacity: expected an integer from 0 to 2\^31 - 1, got -1"),
    ],
)
def test_what_does_not_fit_is_said(change, message):
    with pytest.raises(ValueError, match=message):
        sparse_indices(**{"coords": COORDS, "grid": (4, 4, 4), "kernel_size": 3, **change})


def backbone(coords, capacities=(None,) * 4):
    """All tables of CenterPoint's voxel backbone at 0.075 m."""
    shape, found = (41, 1440, 1440), []
    strided = [(3, 2, 1), (3, 2, 1), (3, 2, (0, 1, 1)), ((3, 1, 1), (2, 1, 1), 0)]
    for (kernel, stride, padding), capacity in zip(strided, capacities, strict=True):
        found.append(cuda_ops.sparse_indices(coords, shape, 3, submanifold=True))
        found.append(cuda_ops.sparse_indices(coords, shape, kernel, stride, padding, capacity=capacity))
        coords, shape = found[-1].coords, found[-1].shape
    assert shape == (2, 180, 180)
    return found


@pytest.mark.gpu
def test_gpu_gives_the_same(cuda_device):
    rng = np.random.default_rng(0)
    coords = sites(3000, (5, 30, 30), 2)
    street = np.unique((rng.normal(0, 0.1, (100_000, 3)) * [10, 700, 700] + [20, 720, 720]).astype(np.int32), axis=0)
    street = street[((street >= 0) & (street < [41, 1440, 1440])).all(axis=1)]
    for place in (coords, rng.permutation(coords), coords[:1], coords[:0]):
        for options in ({"submanifold": True}, {"stride": 2, "padding": 1}, {"padding": 1, "capacity": 500}):
            ours = sparse_indices(torch.from_numpy(place), (5, 30, 30), 3, batch_size=2, **options)
            for _ in range(2):
                theirs = sparse_indices(torch.from_numpy(place).to(cuda_device), (5, 30, 30), 3, batch_size=2, **options)
                assert_same(as_numpy(ours), as_numpy(theirs))
    rows = (200_000, 100_000, 50_000, 50_000)
    on_cpu, on_gpu = backbone(street, rows), backbone(torch.from_numpy(street).to(cuda_device), rows)
    for ours, theirs in zip(on_cpu, on_gpu, strict=True):
        assert_same(ours, as_numpy(theirs))


@pytest.mark.gpu
def test_a_cuda_graph_holds_voxels_and_all_tables(cuda_device):
    points = torch.from_numpy(np.random.default_rng(1).uniform(-54, 54, (50_000, 4)).astype(np.float32)).to(cuda_device)
    points[:, 2] /= 20
    grid = Grid((-54, -54, -5), (54, 54, 3.2), (0.075, 0.075, 0.2))

    def run():
        voxels = cuda_ops.voxelize_mean(points, grid, max_voxels=60_000, fixed_capacity=True)
        return voxels, backbone(voxels.coords, (250_000, 100_000, 50_000, 50_000))

    run()  # before the capture: what is loaded on first use
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        voxels, found = run()
    graph.replay()
    eager_voxels, eager = run()
    torch.testing.assert_close(voxels.features, eager_voxels.features, rtol=0, atol=0)
    for ours, theirs in zip(found, eager, strict=True):
        assert_same(as_numpy(ours), as_numpy(theirs))
