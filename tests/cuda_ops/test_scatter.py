"""Rows reduced by voxel: against plain NumPy, against torch's own reductions, and their gradients against torch's autograd."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cuda_ops
from cuda_ops import Grid, reference, scatter_max, scatter_mean

torch = pytest.importorskip("torch")

NAN, INF = float("nan"), float("inf")
DTYPES = (np.float32, np.float64)


def case(num_rows: int, size: int, columns: int, seed: int, dtype=np.float32, kind: str = "mixed") -> tuple[np.ndarray, np.ndarray, int]:
    """Rows with ties, NaN and infinities; an index with voxels without rows and rows without voxel."""
    rng = np.random.default_rng(seed)
    values = rng.integers(-3, 4, (num_rows, columns)).astype(dtype)  # ties
    is_wide = rng.random(values.shape) < 0.5
    values[is_wide] = rng.normal(0, 1e3, is_wide.sum())
    for number in (NAN, INF, -INF, -0.0):
        values[rng.random(values.shape) < 0.03] = number
    index = rng.integers(-2, size + 2, num_rows)
    if kind == "grouped":
        index.sort()
    if kind == "crowded":
        index[rng.random(num_rows) < 0.7] = size // 2
    return values, index.astype(rng.choice([np.int32, np.int64])), size


cases = st.builds(
    case,
    st.integers(0, 200),
    st.integers(0, 60),
    st.sampled_from([1, 3, 4, 16, 33, 70]),
    st.integers(0, 10**6),
    st.sampled_from(DTYPES),
    st.sampled_from(["mixed", "grouped", "crowded"]),
)


def assert_same(ours, theirs) -> None:
    """Every array of the two results has the same bits: NaN like NaN, and zeros of the same sign."""
    for mine, other, name in zip(ours, theirs, ours._fields, strict=True):
        mine, other = np.asarray(mine), np.asarray(other)
        assert mine.dtype == other.dtype, name
        np.testing.assert_array_equal(mine, other, err_msg=name)
        if mine.dtype.kind == "f":
            np.testing.assert_array_equal(np.signbit(mine)[mine == 0], np.signbit(other)[other == 0], err_msg=name)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


# ---- small cases ----


@pytest.mark.parametrize(
    ("column", "largest", "row"),
    [
        pytest.param([1, 3, 2], 3, 1, id="the largest"),
        pytest.param([2, 3, 3], 3, 1, id="a tie goes to the lower row"),
        pytest.param([-3, -1, -2], -1, 1, id="below zero"),
        pytest.param([1, NAN, 2], NAN, 1, id="NaN is larger than a number"),
        pytest.param([INF, 5, NAN], NAN, 2, id="and larger than infinity"),
        pytest.param([NAN, INF, NAN], NAN, 0, id="the first NaN"),
        pytest.param([-INF, -INF, -INF], -INF, 0, id="nothing above minus infinity"),
        pytest.param([-0.0, 0.0, -0.0], -0.0, 0, id="0 and -0 tie"),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_largest_of_a_voxel(column, largest, row, dtype):
    found = scatter_max(np.array(column, dtype)[:, None], np.zeros(3, np.int32), 1)
    assert found.values.dtype == dtype
    np.testing.assert_array_equal(found.values, [[largest]])
    assert np.signbit(found.values[0, 0]) == np.signbit(dtype(largest))
    assert found.argmax.tolist() == [[row]]


def test_columns_and_voxels_are_apart():
    values = np.float32([[1, 8], [5, 2], [3, 4], [9, 9], [7, NAN]])
    index = np.array([2, 0, 2, -1, 3])
    best = scatter_max(values, index, 4)
    np.testing.assert_array_equal(best.values, [[5, 2], [0, 0], [3, 8], [7, NAN]])
    assert best.argmax.tolist() == [[1, 1], [-1, -1], [2, 0], [4, 4]]
    mean = scatter_mean(values, index, 4)
    np.testing.assert_array_equal(mean.values, [[5, 2], [0, 0], [2, 6], [7, NAN]])
    assert mean.count.tolist() == [1, 0, 2, 1]


@pytest.mark.parametrize("outside", [-1, -(2**31), 4, 2**31 - 1, -(2**40), 2**32, 2**32 + 1, 2**62])
def test_any_number_outside_leaves_the_row_out(outside):
    values, index = np.float32([[1], [2], [3]]), np.array([1, outside, 1], np.int64)
    assert scatter_max(values, index, 4).argmax.ravel().tolist() == [-1, 2, -1, -1]
    assert scatter_mean(values, index, 4).count.tolist() == [0, 2, 0, 0]


@pytest.mark.parametrize(
    ("num_rows", "columns", "size"),
    [
        pytest.param(0, 3, 4, id="no rows"),
        pytest.param(0, 3, 0, id="nothing"),
        pytest.param(5, 3, 0, id="no voxels"),
        pytest.param(5, 0, 2, id="no columns"),
        pytest.param(1, 1, 1, id="one number"),
        pytest.param(3, 2, 100_000, id="more voxels than rows"),
    ],
)
@pytest.mark.parametrize("convert", [pytest.param(lambda a: a, id="array"), pytest.param(torch.from_numpy, id="tensor")])
def test_small_shapes(num_rows, columns, size, convert):
    values, index = np.ones((num_rows, columns), np.float32), np.zeros(num_rows, np.int32)
    best, mean = scatter_max(convert(values), convert(index), size), scatter_mean(convert(values), convert(index), size)
    assert tuple(best.values.shape) == tuple(best.argmax.shape) == tuple(mean.values.shape) == (size, columns)
    assert_same(best, reference.scatter_max(values, index, size))
    assert_same(mean, reference.scatter_mean(values, index, size))


def test_sums_are_taken_in_the_order_of_the_rows():
    values = np.float32([[1e8], [1], [-1e8], [1]])
    zero = np.zeros(4, np.int32)
    assert scatter_mean(values, zero, 1).values.tolist() == [[0.25]]  # (1e8 + 1) is 1e8 in float32; 0 + 1
    assert scatter_mean(values[[0, 2, 1, 3]], zero, 1).values.tolist() == [[0.5]]
    assert scatter_mean(values.astype(np.float64), zero, 1).values.tolist() == [[0.5]]


# ---- properties ----


@settings(deadline=None)
@given(cases)
def test_both_are_those_of_the_reference(arguments):
    assert_same(scatter_max(*arguments), reference.scatter_max(*arguments))
    assert_same(scatter_mean(*arguments), reference.scatter_mean(*arguments))


def torch_max(values, index, size):
    """torch's own reduction over the rows with a voxel."""
    kept = (index >= 0) & (index < size)
    wide = index[kept].long()[:, None].expand(-1, values.shape[1])
    return values.new_zeros((size, values.shape[1])).scatter_reduce(0, wide, values[kept], "amax", include_self=False)


def torch_mean(values, index, size):
    kept = (index >= 0) & (index < size)
    sums = values.new_zeros((size, values.shape[1])).index_add(0, index[kept].long(), values[kept])
    return sums / torch.bincount(index[kept].long(), minlength=size).clamp(min=1)[:, None]


@settings(deadline=None)
@given(cases)
def test_both_are_those_of_torch(arguments):
    values, index, size = arguments
    tensor, index = torch.from_numpy(values), torch.from_numpy(index)
    best = scatter_max(tensor, index, size)
    np.testing.assert_array_equal(best.values, torch_max(tensor, index, size))
    has_rows = best.argmax >= 0
    taken = tensor.gather(0, best.argmax.clamp(min=0).long()) if len(values) else torch.zeros(best.values.shape, dtype=tensor.dtype)
    np.testing.assert_array_equal(best.values[has_rows], taken[has_rows])
    np.testing.assert_allclose(
        scatter_mean(tensor, index, size).values,
        torch_mean(tensor.double(), index, size),
        rtol=1e-4 if values.dtype == np.float32 else 1e-12,  # of a sum, which may cancel: hence the absolute part, of numbers near 1e3
        atol=1e-2 if values.dtype == np.float32 else 1e-10,
    )


@settings(deadline=None)
@given(cases, st.integers(0, 100))
def test_the_order_of_rows_moves_no_maximum(arguments, seed):
    values, index, size = arguments
    order = np.random.default_rng(seed).permutation(len(values))
    np.testing.assert_array_equal(scatter_max(values, index, size).values, scatter_max(values[order], index[order], size).values)
    np.testing.assert_array_equal(scatter_mean(values, index, size).count, scatter_mean(values[order], index[order], size).count)


@pytest.mark.parametrize("kind", ["mixed", "grouped", "crowded"])
@pytest.mark.parametrize("columns", [1, 5, 64])
def test_results_do_not_depend_on_the_number_of_threads(kind, columns, threads):
    values, index, size = case(50_000, 7_000, columns, 1, kind=kind)
    values, index = torch.from_numpy(values), torch.from_numpy(index)
    results = []
    for count in (1, 2, 3, 8):
        threads(count)
        leaf = values.clone().requires_grad_(True)
        best, mean = scatter_max(leaf, index, size), scatter_mean(leaf, index, size)
        (best.values.cos() + mean.values.sin()).sum().backward()
        results.append([part.detach().numpy() for part in (*best, *mean, leaf.grad)])
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


def test_rows_that_are_sorted_in_each_half_only_are_sorted(threads):
    threads(2)  # each looks at one half
    index = np.tile(np.arange(20_000), 2)
    values = np.arange(40_000, dtype=np.float32)[:, None]
    np.testing.assert_array_equal(scatter_max(values, index, 20_000).argmax.ravel(), np.arange(20_000, 40_000))
    np.testing.assert_array_equal(scatter_mean(values, index, 20_000).values.ravel(), np.arange(10_000, 30_000))


@pytest.mark.parametrize("scatter", [scatter_max, scatter_mean])
def test_tensors_give_tensors_with_the_same_bits(scatter):
    values, index, size = case(5_000, 900, 7, 2)
    found = scatter(torch.from_numpy(values), torch.from_numpy(index), size)
    assert all(isinstance(part, torch.Tensor) for part in found)
    assert_same(found, scatter(values, index, size))
    assert_same(found, scatter(values, index, np.int64(size)))


@pytest.mark.parametrize("scatter", [scatter_max, scatter_mean])
def test_arrays_that_are_not_contiguous(scatter):
    values, index, size = case(600, 90, 12, 3)
    expected = scatter(values[::2, ::3].copy(), index[::2].copy(), size)
    assert_same(scatter(values[::2, ::3], index[::2], size), expected)
    assert_same(scatter(torch.from_numpy(values)[::2, ::3], torch.from_numpy(index)[::2], size), expected)
    assert_same(scatter(np.asfortranarray(values), index, size), scatter(values, index, size))


def test_means_of_points_are_those_of_the_voxelization():
    points = np.random.default_rng(4).uniform(-3, 3, (4_000, 5)).astype(np.float32)
    voxels = cuda_ops.voxelize_mean(points, Grid((-2, -2, -1), (2, 2, 1), (0.5, 0.5, 0.5)), with_index=True)
    found = scatter_mean(points, voxels.voxel_of_point, voxels.num_voxels)
    np.testing.assert_array_equal(found.values, voxels.features)
    np.testing.assert_array_equal(found.count, voxels.num_points)


# ---- gradients ----


def apart(num_rows: int, columns: int, seed: int) -> "torch.Tensor":
    """Numbers without ties, so far apart that the small steps of a numerical gradient change no order. None is 0: with that
    torch's amax shares the gradient between the row and the zeros that it started from, include_self=False or not."""
    order = np.random.default_rng(seed).permutation(num_rows * columns)
    return torch.from_numpy((order.reshape(num_rows, columns) + 1) / 10.0).requires_grad_(True)


@pytest.mark.parametrize("scatter", [scatter_max, scatter_mean])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_gradients_are_those_of_small_steps(scatter, dtype):
    values, index = apart(9, 3, 0), torch.tensor([4, 0, -1, 0, 2, 7, 2, 2, 4], dtype=dtype)
    assert torch.autograd.gradcheck(lambda v: scatter(v, index, 6).values, values)
    assert torch.autograd.gradgradcheck(lambda v: scatter(v, index, 6).values ** 2, values)


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(1, 20), st.integers(1, 40), st.integers(0, 10**6))
def test_gradients_are_those_of_torch(num_rows, size, columns, seed):
    rng = np.random.default_rng(seed)
    index = torch.from_numpy(rng.integers(-2, size + 2, num_rows))
    weights = torch.from_numpy(rng.normal(size=(size, columns)))
    for ours, theirs in ((scatter_max, torch_max), (scatter_mean, torch_mean)):
        one, other = apart(num_rows, columns, seed), apart(num_rows, columns, seed)
        (ours(one, index, size).values * weights).sum().backward()
        (theirs(other, index, size) * weights).sum().backward()
        np.testing.assert_allclose(one.grad, other.grad, rtol=1e-12)  # a quotient may be rounded twice


def test_the_gradient_of_a_maximum_goes_to_one_row():
    values = torch.tensor([[1.0, NAN], [3.0, 5.0], [3.0, NAN], [9.0, 9.0]], requires_grad=True)
    index = torch.tensor([0, 0, 0, -1])
    scatter_max(values, index, 2).values.backward(torch.tensor([[10.0, 20.0], [30.0, 40.0]]))
    assert values.grad.tolist() == [[0, 20], [10, 0], [0, 0], [0, 0]]


def test_the_gradient_of_a_mean_is_shared():
    values = torch.ones((4, 1), requires_grad=True)
    scatter_mean(values, torch.tensor([0, 1, 0, 5]), 3).values.backward(torch.tensor([[4.0], [6.0], [8.0]]))
    assert values.grad.tolist() == [[2], [6], [2], [0]]


@pytest.mark.parametrize("scatter", [scatter_max, scatter_mean])
def test_rows_and_counts_have_no_gradient(scatter):
    found = scatter(torch.ones((3, 2), requires_grad=True), torch.zeros(3, dtype=torch.int32), 1)
    assert found[0].requires_grad
    assert not found[1].requires_grad
    assert not scatter(torch.ones((3, 2)), torch.zeros(3, dtype=torch.int32), 1)[0].requires_grad


@pytest.mark.parametrize("scatter", [scatter_max, scatter_mean])
@pytest.mark.parametrize("size", [0, 3])
def test_gradients_of_nothing(scatter, size):
    for num_rows, columns in ((0, 2), (4, 2), (4, 0)):
        values = torch.ones((num_rows, columns), requires_grad=True)
        scatter(values, torch.full((num_rows,), -1), size).values.sum().backward()
        assert values.grad.tolist() == torch.zeros((num_rows, columns)).tolist()


# ---- torch ----


@pytest.mark.parametrize("scatter", [scatter_max, scatter_mean])
def test_a_compiled_layer_has_the_same_values_and_gradients(scatter):
    def layer(values, index, coords):
        found = scatter(values.relu(), index, coords.shape[0])
        return (found.values * 2).sin(), found[1]

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=True)
    for num_rows, size in ((50, 7), (80, 9)):
        index, coords = torch.arange(num_rows) % (size + 1) - 1, torch.zeros((size, 3))
        plain, traced = apart(num_rows, 4, 5), apart(num_rows, 4, 5)
        expected, found = layer(plain, index, coords), compiled(traced, index, coords)
        for one, two in zip(expected, found, strict=True):
            np.testing.assert_array_equal(one.detach(), two.detach())
        expected[0].sum().backward()
        found[0].sum().backward()
        np.testing.assert_array_equal(plain.grad, traced.grad)


def test_a_number_of_voxels_that_only_the_data_tell_is_compiled():
    grid = Grid((-2, -2, -1), (2, 2, 1), (0.5, 0.5, 0.5))

    def layer(points, weight):
        voxels = cuda_ops.voxelize_mean(points, grid, with_index=True)
        return scatter_max(points @ weight, voxels.voxel_of_point, voxels.coords.shape[0]).values

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for seed in (0, 1):
        points = torch.from_numpy(np.random.default_rng(seed).uniform(-3, 3, (300, 4)).astype(np.float32))
        weight, same = torch.eye(4, requires_grad=True), torch.eye(4, requires_grad=True)
        expected, found = layer(points, weight), compiled(points, same)
        np.testing.assert_array_equal(found.detach(), expected.detach())
        expected.sum().backward()
        found.sum().backward()
        np.testing.assert_array_equal(weight.grad, same.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_opcheck(dtype):
    values = torch.randn(12, 3, dtype=dtype, requires_grad=True)
    index = torch.tensor([0, 3, -1, 3, 1, 1, 9, 0, 0, 3, 4, 4], dtype=torch.int32)
    for name in ("scatter_max", "scatter_mean"):
        function = getattr(cuda_ops, name)
        kept = function(values, index, 6)[1]
        torch.library.opcheck(getattr(torch.ops.cuda_ops, name).default, (values, index, 6))
        grad = torch.randn(6, 3, dtype=dtype, requires_grad=True)
        torch.library.opcheck(getattr(torch.ops.cuda_ops, f"{name}_grad").default, (grad, index, kept))


# ---- errors ----

VALUES, INDEX = np.ones((3, 2), np.float32), np.zeros(3, np.int32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param((VALUES.astype(np.float16), INDEX, 1), "values: expected dtype float32 or float64, got float16", id="half"),
        pytest.param((VALUES.astype(int), INDEX, 1), "values: expected dtype float32 or float64, got int64", id="integers"),
        pytest.param((VALUES[0], INDEX, 1), r"values: expected shape \(N, C\), got \(2,\)", id="one axis"),
        pytest.param((VALUES, INDEX[:2], 1), r"index: expected shape \(3,\), got \(2,\)", id="rows"),
        pytest.param((VALUES, INDEX[:, None], 1), r"index: expected shape \(3,\), got \(3, 1\)", id="index, axes"),
        pytest.param((VALUES, INDEX.astype(np.float32), 1), "index: expected dtype int32 or int64, got float32", id="index, dtype"),
        pytest.param((VALUES, INDEX, -1), r"size: expected an integer from 0 to 2\^31 - 1, got -1", id="negative size"),
        pytest.param((VALUES, INDEX, 2**31), r"size: expected an integer from 0 to 2\^31 - 1, got 2147483648", id="large size"),
        pytest.param((VALUES, INDEX, 2.0), r"size: expected an integer from 0 to 2\^31 - 1, got 2.0", id="size, float"),
        pytest.param((VALUES, INDEX, True), r"size: expected an integer from 0 to 2\^31 - 1, got True", id="size, bool"),
        pytest.param((VALUES, INDEX, None), r"size: expected an integer from 0 to 2\^31 - 1, got None", id="size, None"),
    ],
)
@pytest.mark.parametrize("scatter", [scatter_max, scatter_mean])
def test_wrong_arguments_say_expected_and_got(scatter, arguments, message):
    with pytest.raises(ValueError, match=message):
        scatter(*arguments)
    values, index, size = arguments
    with pytest.raises(ValueError, match=message):
        scatter(torch.from_numpy(values), torch.from_numpy(index), size)


def test_tensors_and_arrays_are_not_mixed():
    with pytest.raises(ValueError, match="scatter_max: index: expected a torch tensor on cpu like values, got ndarray"):
        scatter_max(torch.ones(3, 2), INDEX, 1)
    with pytest.raises(ValueError, match="scatter_mean: values: expected a torch tensor on cpu like index, got ndarray"):
        scatter_mean(VALUES, torch.zeros(3, dtype=torch.int32), 1)
    with pytest.raises(ValueError, match="expected a tensor on the CPU or a CUDA device, got one on meta"):
        scatter_mean(torch.ones((3, 2), device="meta"), torch.zeros(3, device="meta"), 1)


# ---- on a GPU ----


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("num_rows", "size", "columns"), [(0, 3, 4), (5, 0, 4), (5, 3, 0), (1, 1, 1), (40_000, 9_000, 64), (30_000, 50, 3), (300, 70_000, 5)]
)
@pytest.mark.parametrize("kind", ["mixed", "grouped", "crowded"])
def test_the_gpu_gives_the_bits_of_the_cpu(cuda_device, num_rows, size, columns, dtype, kind):
    values, index, _ = case(num_rows, max(size, 1), columns, 6, dtype, kind)
    weights = torch.randn((size, columns), dtype=torch.from_numpy(values).dtype)
    for scatter in (scatter_max, scatter_mean):
        results = []
        for device in ("cpu", cuda_device, cuda_device):
            leaf = torch.from_numpy(values).to(device).requires_grad_(True)
            found = scatter(leaf, torch.from_numpy(index).to(device), size)
            assert all(part.device.type == torch.device(device).type for part in found)
            found.values.backward(weights.to(device))
            results.append([part.detach().cpu().numpy() for part in (*found, leaf.grad)])
        for other in results[1:]:
            for one, two in zip(results[0], other, strict=True):
                np.testing.assert_array_equal(one, two)


@pytest.mark.gpu
@pytest.mark.parametrize("scatter", [scatter_max, scatter_mean])
def test_a_cuda_graph_holds_both_passes(cuda_device, scatter):
    values, index, size = case(5_000, 700, 16, 7)
    static = torch.zeros((5_000, 16), device=cuda_device, requires_grad=True)
    index = torch.from_numpy(index).to(cuda_device)
    stream = torch.cuda.Stream()

    def step():
        found = scatter(static, index, size)
        return found.values, torch.autograd.grad(found.values.sum(), static)[0]

    with torch.cuda.stream(stream):
        step()  # before the capture: what is loaded on first use
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        captured = step()
    with torch.no_grad():
        static.copy_(torch.from_numpy(values))
    graph.replay()
    torch.cuda.synchronize()
    for one, two in zip(captured, step(), strict=True):
        np.testing.assert_array_equal(one.detach().cpu(), two.detach().cpu())
