"""Sparse convolutions: against plain NumPy, against torch's dense convolution, and their gradients against torch's own."""

import importlib
import itertools
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cuda_ops
from cuda_ops import arrays, reference, sparse_torch

NAN, INF = float("nan"), float("inf")
sparse_conv_module = importlib.import_module("cuda_ops.sparse_conv")  # its name in the package is the function
IS_EMULATED = "sparse_conv_float32" not in vars(arrays._cpu)  # CUDA bodies in the place of the CPU's: `make emulate`

# Of float32 sums of up to 27 * 64 products of normal numbers with weights of 0.1: a few ulp of the sum of their magnitudes.
CLOSE = {"float32": {"rtol": 0, "atol": 2e-4}, "float64": {"rtol": 0, "atol": 1e-12}}


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def random_sites(rng, shape, share=0.3):
    """(N, 3) z, y, x of some of the cells of a grid."""
    return np.argwhere(rng.random(shape) < share)


def table_of(sites, kernel, stride=(1, 1, 1), padding=None, shape=None):
    """Output sites and table of a convolution; submanifold where no shape of the grid is given."""
    row_of = {tuple(site): row for row, site in enumerate(sites.tolist())}
    padding = [n // 2 for n in kernel] if padding is None else padding
    offsets = list(itertools.product(*map(range, kernel)))
    if shape is None:
        outputs = list(row_of)
    else:
        size = [(n + 2 * p - k) // s + 1 for n, p, k, s in zip(shape, padding, kernel, stride, strict=True)]
        outputs = list(itertools.product(*map(range, size)))
    table = [
        [row_of.get(tuple(o * s - p + k for o, s, p, k in zip(out, stride, padding, at, strict=True)), -1) for at in offsets]
        for out in outputs
    ]
    table = np.array(table, np.int32).reshape(-1, len(offsets))
    kept = (table >= 0).any(axis=1)
    return np.array(outputs).reshape(-1, 3)[kept], table[kept]


def random_table(rng, num_outputs, num_inputs, offsets, share=0.6):
    """A table in which no input stands twice at an offset."""
    most = max(num_outputs, num_inputs)
    table = np.column_stack([rng.permutation(most)[:num_outputs] for _ in range(offsets)]).reshape(num_outputs, offsets).astype(np.int32)
    table[(table >= num_inputs) | (rng.random(table.shape) >= share)] = -1
    return table


def random_layer(rng, table, num_inputs, c_in, c_out, kernel, dtype="float32"):
    """features, weight, bias, residual"""
    shapes = [(num_inputs, c_in), (c_out, *kernel, c_in), (c_out,), (len(table), c_out)]
    return [(rng.normal(size=shape) * scale).astype(dtype) for shape, scale in zip(shapes, (1, 0.1, 1, 1), strict=True)]


def dense(features, sites, shape):
    """(1, C, Z, Y, X) with the features at their sites."""
    grid = features.new_zeros((1, features.shape[1], *shape))
    grid[0, :, sites[:, 0], sites[:, 1], sites[:, 2]] = features.T
    return grid


@pytest.mark.parametrize(
    ("table", "options", "expected"),
    [
        # features 1, 10, 100; weight 2 at the first offset, 3 at the second
        pytest.param([[0, 1]], {}, [32], id="2 * 1 + 3 * 10"),
        pytest.param([[-1, 2], [2, -1]], {}, [300, 200], id="one neighbour each"),
        pytest.param([[-1, -1]], {}, [0], id="no neighbour"),
        pytest.param([[-1, -1]], {"bias": [7]}, [7], id="no neighbour, bias"),
        pytest.param([[0, -1], [-1, -9]], {"bias": [7], "residual": [[1000], [-1]]}, [1009, 6], id="bias and residual"),
        pytest.param([[0, -1], [1, -1]], {"bias": [-3], "relu": True}, [0, 17], id="ReLU"),
        pytest.param([[0, -1]], {"residual": [[-9]], "relu": True}, [0], id="ReLU comes after the residual"),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_by_hand(table, options, expected, dtype):
    features, weight = np.array([[1], [10], [100]], dtype), np.array([2, 3], dtype).reshape(1, 1, 1, 2, 1)
    options = {name: value if name == "relu" else np.array(value, dtype) for name, value in options.items()}
    out = cuda_ops.sparse_conv(features, weight, np.array(table, np.int32), **options)
    assert out.dtype == dtype
    assert out[:, 0].tolist() == expected


def test_offsets_run_over_z_y_x_and_channels_last():
    weight = np.arange(2 * 2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 2, 3, 4, 5)
    features = np.eye(5, dtype=np.float32)
    for z, y, x, c in [(0, 0, 0, 0), (1, 2, 3, 4), (1, 0, 2, 3), (0, 2, 1, 1)]:
        table = np.full((1, 24), -1, np.int32)
        table[0, (z * 3 + y) * 4 + x] = c
        np.testing.assert_array_equal(cuda_ops.sparse_conv(features, weight, table)[0], weight[:, z, y, x, c])


CONVOLUTIONS = [
    pytest.param((3, 3, 3), None, None, id="submanifold 3 3 3"),
    pytest.param((1, 3, 5), None, None, id="submanifold 1 3 5"),
    pytest.param((1, 1, 1), None, None, id="submanifold 1 1 1"),
    pytest.param((3, 3, 3), (2, 2, 2), (1, 1, 1), id="strided"),
    pytest.param((3, 3, 3), (2, 2, 2), (0, 1, 1), id="strided, no padding along z"),
    pytest.param((3, 1, 1), (2, 1, 1), (0, 0, 0), id="3 1 1"),
    pytest.param((2, 2, 2), (2, 2, 2), (0, 0, 0), id="2 2 2"),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("c_in", "c_out"), [(1, 1), (5, 16), (16, 16), (33, 20), (64, 48), (7, 100)])
@pytest.mark.parametrize(("kernel", "stride", "padding"), CONVOLUTIONS)
def test_equals_torchs_dense_convolution_with_its_gradients(kernel, stride, padding, c_in, c_out, dtype):
    rng = np.random.default_rng(c_in)
    shape = (6, 9, 8)
    sites = random_sites(rng, shape)
    outputs, table = table_of(sites, kernel) if stride is None else table_of(sites, kernel, stride, padding, shape)
    layer = random_layer(rng, table, len(sites), c_in, c_out, kernel, dtype)
    upstream = rng.normal(size=(len(table), c_out))
    results = []
    for place in ("sparse", "dense"):
        tensors = [torch.from_numpy(array.astype("float64" if place == "dense" else dtype)).requires_grad_() for array in layer]
        features, weight, bias, residual = tensors
        if place == "sparse":
            out = cuda_ops.sparse_conv(features, weight, torch.from_numpy(table), bias=bias, residual=residual, relu=True)
        else:
            options = {"stride": stride or 1, "padding": [n // 2 for n in kernel] if padding is None else padding}
            grid = torch.nn.functional.conv3d(dense(features, sites, shape), weight.permute(0, 4, 1, 2, 3), bias, **options)
            out = torch.relu(grid[0, :, outputs[:, 0], outputs[:, 1], outputs[:, 2]].T + residual)
        (out * torch.from_numpy(upstream.astype(out.detach().numpy().dtype))).sum().backward()
        results.append([out.detach().numpy(), *[tensor.grad.numpy() for tensor in tensors]])
    for ours, theirs in zip(*results, strict=True):
        # Gradients of the weights are sums over the rows: far more terms than sums over neighbours.
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=CLOSE[dtype]["atol"] * (1 if ours.shape == results[0][0].shape else 10))


@settings(max_examples=150, deadline=None)
@given(
    sizes=st.tuples(st.integers(0, 70), st.integers(0, 70), st.integers(0, 20), st.integers(0, 40)),
    kernel=st.sampled_from([(1, 1, 1), (1, 1, 2), (3, 1, 1), (1, 3, 3), (3, 3, 3)]),
    share=st.sampled_from([0.0, 0.1, 0.6, 1.0]),
    has=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    dtype=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_reference(sizes, kernel, share, has, dtype, seed):
    rng = np.random.default_rng(seed)
    num_inputs, num_outputs, c_in, c_out = sizes
    table = random_table(rng, num_outputs, num_inputs, int(np.prod(kernel)), share)
    features, weight, bias, residual = random_layer(rng, table, num_inputs, c_in, c_out, kernel, dtype)
    options = {"bias": bias if has[0] else None, "residual": residual if has[1] else None, "relu": has[2]}
    out = cuda_ops.sparse_conv(features, weight, table, **options)
    assert out.dtype == dtype
    np.testing.assert_allclose(out, reference.sparse_conv(features, weight, table, **options), **CLOSE[dtype])
    for ours, expected in zip(
        cuda_ops.sparse_conv_weight_gradient(features, residual, table),
        reference.sparse_conv_weight_gradient(features, residual, table),
        strict=True,
    ):
        np.testing.assert_allclose(ours, expected, **CLOSE[dtype])
    np.testing.assert_array_equal(cuda_ops.transpose_table(table, num_inputs), reference.transpose_table(table, num_inputs))


def test_rows_of_many_tiles_and_blocks_equal_torch():
    rng = np.random.default_rng(2)
    table = random_table(rng, 40_000, 30_000, 3)  # 16 blocks of the gradient
    features, weight, _, gradient = random_layer(rng, table, 30_000, 7, 9, (3, 1, 1), "float64")
    tensors = [torch.from_numpy(array) for array in (features, gradient, table)]
    out = cuda_ops.sparse_conv(features, weight, table)
    expected = sparse_torch.sparse_conv(tensors[0], torch.from_numpy(weight).reshape(9, 3, 7), tensors[2], None, None, False)
    np.testing.assert_allclose(out, expected, **CLOSE["float64"])
    for ours, theirs in zip(
        cuda_ops.sparse_conv_weight_gradient(features, gradient, table), sparse_torch.sparse_conv_weight_gradient(*tensors), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)


def test_one_two_and_eight_threads_give_the_same_bits_and_tensors_those_of_arrays(threads):
    rng = np.random.default_rng(3)
    table = random_table(rng, 20_000, 18_000, 27, 0.4)
    for c_in, c_out in [(16, 16), (5, 33)]:
        features, weight, bias, residual = random_layer(rng, table, 18_000, c_in, c_out, (3, 3, 3))
        results = []
        for count in (1, 2, 8):
            threads(count)
            for wrap in (np.asarray, torch.from_numpy):
                x, w, t, b, r = map(wrap, (features, weight, table, bias, residual))
                out = cuda_ops.sparse_conv(x, w, t, bias=b, residual=r, relu=True)
                found = (out, *cuda_ops.sparse_conv_weight_gradient(x, r, t), cuda_ops.transpose_table(t, 18_000))
                assert all(isinstance(part, type(x)) for part in found)
                results.append([np.asarray(part) for part in found])
        for other in results[1:]:
            for mine, theirs in zip(results[0], other, strict=True):
                np.testing.assert_array_equal(mine, theirs)


def test_a_row_does_not_depend_on_its_neighbours_in_the_tile():
    rng = np.random.default_rng(4)
    table = random_table(rng, 700, 700, 27)
    features, weight, bias, residual = random_layer(rng, table, 700, 21, 24, (3, 3, 3))
    out = cuda_ops.sparse_conv(features, weight, table, bias=bias, residual=residual)
    order = rng.permutation(700)[:333]
    np.testing.assert_array_equal(cuda_ops.sparse_conv(features, weight, table[order], bias=bias, residual=residual[order]), out[order])


def test_what_is_not_finite_reaches_the_rows_of_its_neighbours_only():
    rng = np.random.default_rng(5)
    table = random_table(rng, 300, 300, 9, 0.3)
    features, weight, _, _ = random_layer(rng, table, 300, 5, 6, (1, 3, 3))
    features[7, 2], features[9, 1] = NAN, INF
    touched = np.isin(table, [7, 9]).any(axis=1)
    for relu in (False, True):
        out = cuda_ops.sparse_conv(features, weight, table, relu=relu)
        assert np.isfinite(out[~touched]).all()
        assert np.isnan(out[np.isin(table, [7]).any(axis=1)]).all()  # the ReLU lets NaN through
    assert not np.isfinite(out[touched]).all()


def test_transposed_table_by_hand():
    table = np.array([[1, -1], [0, 2], [-1, 1]], np.int32)
    assert cuda_ops.transpose_table(table, 4).tolist() == [[1, -1], [0, 2], [-1, 1], [-1, -1]]


def test_transposing_twice_gives_the_table_back():
    table = random_table(np.random.default_rng(6), 500, 800, 27)
    np.testing.assert_array_equal(cuda_ops.transpose_table(cuda_ops.transpose_table(table, 800), 500), table)


def test_a_submanifold_table_is_transposed_by_reversing_its_columns():
    sites = random_sites(np.random.default_rng(7), (8, 9, 10))
    _, table = table_of(sites, (3, 3, 3))
    np.testing.assert_array_equal(cuda_ops.transpose_table(table, len(sites)), table[:, ::-1])


def test_a_transposed_table_that_is_handed_in_is_used(monkeypatch):
    rng = np.random.default_rng(8)
    sites = random_sites(rng, (5, 6, 7))
    _, table = table_of(sites, (3, 3, 3))
    features, weight, _, _ = map(torch.from_numpy, random_layer(rng, table, len(sites), 6, 4, (3, 3, 3)))
    table = torch.from_numpy(table)

    def gradient(transposed):
        x = features.clone().requires_grad_()
        cuda_ops.sparse_conv(x, weight, table, transposed=transposed).square().sum().backward()
        return x.grad

    expected = gradient(None)
    assert torch.equal(gradient(table.flip(1)), expected)
    assert not torch.equal(gradient(torch.full_like(table, -1)), expected)


@pytest.mark.parametrize("relu", [False, True])
def test_first_and_second_derivatives(relu):
    rng = np.random.default_rng(9)
    table = random_table(rng, 7, 6, 6)
    layer = [torch.from_numpy(array).requires_grad_() for array in random_layer(rng, table, 6, 3, 2, (1, 2, 3), "float64")]
    table = torch.from_numpy(table)

    def run(features, weight, bias, residual):
        return cuda_ops.sparse_conv(features, weight, table, bias=bias, residual=residual, relu=relu)

    assert torch.autograd.gradcheck(run, layer)
    assert torch.autograd.gradgradcheck(run, layer)
    assert torch.autograd.gradcheck(lambda x, g: cuda_ops.sparse_conv_weight_gradient(x, g, table), (layer[0], layer[3]))


@pytest.mark.parametrize("wanted", range(4))
def test_each_gradient_comes_alone(wanted):
    rng = np.random.default_rng(10)
    table = random_table(rng, 30, 20, 3)
    layer = [torch.from_numpy(array) for array in random_layer(rng, table, 20, 3, 4, (3, 1, 1))]
    table = torch.from_numpy(table)
    gradients = []
    for chosen in (range(4), [wanted]):
        tensors = [tensor.clone().requires_grad_(i in chosen) for i, tensor in enumerate(layer)]
        cuda_ops.sparse_conv(tensors[0], tensors[1], table, bias=tensors[2], residual=tensors[3], relu=True).square().sum().backward()
        gradients.append(tensors)
    assert torch.equal(gradients[0][wanted].grad, gradients[1][wanted].grad)
    assert all(tensor.grad is None for i, tensor in enumerate(gradients[1]) if i != wanted)


@pytest.mark.parametrize(("num_inputs", "num_outputs"), [(0, 0), (0, 5), (5, 0)])
def test_empty(num_inputs, num_outputs):
    table = np.full((num_outputs, 27), -1, np.int32)
    features, weight, bias, residual = random_layer(np.random.default_rng(0), table, num_inputs, 3, 4, (3, 3, 3))
    out = cuda_ops.sparse_conv(features, weight, table, bias=bias, residual=residual)
    np.testing.assert_array_equal(out, bias + residual)
    assert (cuda_ops.transpose_table(table, num_inputs) == np.full((num_inputs, 27), -1)).all()
    to_weight, to_bias = cuda_ops.sparse_conv_weight_gradient(features, residual, table)
    assert not to_weight.any()
    np.testing.assert_allclose(to_bias, residual.sum(axis=0), rtol=1e-6)
    tensors = [torch.from_numpy(array).requires_grad_() for array in (features, weight)]
    cuda_ops.sparse_conv(*tensors, torch.from_numpy(table)).sum().backward()
    assert tensors[0].grad.shape == features.shape
    assert tensors[1].grad.shape == weight.shape


def test_arrays_that_are_not_contiguous():
    rng = np.random.default_rng(11)
    table = random_table(rng, 50, 40, 9)
    features, weight, bias, residual = random_layer(rng, table, 40, 6, 5, (1, 3, 3))
    expected = cuda_ops.sparse_conv(features, weight, table, bias=bias, residual=residual)
    wide = np.repeat(features, 2, axis=1)[:, ::2]
    spread = np.asfortranarray(weight), np.asfortranarray(table), np.repeat(bias, 3)[::3], np.asfortranarray(residual)
    out = cuda_ops.sparse_conv(wide, spread[0], spread[1], bias=spread[2], residual=spread[3])
    np.testing.assert_array_equal(out, expected)
    expanded = torch.ones(1, 1).expand(40, 6).requires_grad_()
    out = cuda_ops.sparse_conv(expanded, torch.from_numpy(weight), torch.from_numpy(table))
    out.backward(torch.ones(1, 1).expand(50, 5))  # a gradient without memory of its own
    np.testing.assert_array_equal(out.detach(), cuda_ops.sparse_conv(np.ones((40, 6), np.float32), weight, table))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_plain_torch_of_gpus_without_triton(dtype):
    rng = np.random.default_rng(12)
    table = random_table(rng, 60, 50, 9)
    layer = random_layer(rng, table, 50, 6, 5, (1, 3, 3), "float64")
    features, weight, bias, residual = (torch.from_numpy(array).to(dtype) for array in layer)
    rounded = [tensor.double().numpy() for tensor in (features, weight, bias, residual)]
    rows = table.copy()
    rows[rows < 0] = rng.choice([-1, -7, 50, 2**31 - 1], (rows < 0).sum())  # out of range: none
    rows = torch.from_numpy(rows)
    out = sparse_torch.sparse_conv(features, weight.reshape(5, 9, 6), rows, bias, residual, True)
    expected = reference.sparse_conv(rounded[0], rounded[1], table, bias=rounded[2], residual=rounded[3], relu=True)
    found = [out, *sparse_torch.sparse_conv_weight_gradient(features, residual, rows)]
    for ours, theirs in zip(found, [expected, *reference.sparse_conv_weight_gradient(rounded[0], rounded[3], table)], strict=True):
        assert ours.dtype == dtype
        error = np.linalg.norm(ours.double().numpy() - theirs) / np.linalg.norm(theirs)
        # In norm. float16 and bfloat16 are rounded for each offset and in the end; the others in every step.
        assert error < 4 * torch.finfo(dtype).eps


def test_gpus_without_triton_and_float64_take_plain_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, "cuda_ops.sparse_triton", raising=False)
    for dtype in (torch.float32, torch.float16, torch.float64):
        assert sparse_conv_module._kernels(torch.zeros(1, dtype=dtype)) is sparse_torch
    monkeypatch.undo()
    pytest.importorskip("triton")
    chosen = [sparse_conv_module._kernels(torch.zeros(1, dtype=dtype)).__name__ for dtype in (torch.float32, torch.bfloat16, torch.float64)]
    assert chosen == ["cuda_ops.sparse_triton", "cuda_ops.sparse_triton", "cuda_ops.sparse_torch"]


X, W, T = np.zeros((5, 3), np.float32), np.zeros((4, 1, 1, 2, 3), np.float32), np.full((6, 2), -1, np.int32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(
            lambda: cuda_ops.sparse_conv(X.astype(int), W, T), "features: expected dtype float32 or float64, got int64", id="integers"
        ),
        pytest.param(
            lambda: cuda_ops.sparse_conv(X.astype("f2"), W, T), "features: expected dtype float32 or float64, got float16", id="half"
        ),
        pytest.param(lambda: cuda_ops.sparse_conv(X[0], W, T), r"features: expected shape \(N, C_in\), got \(3,\)", id="one row"),
        pytest.param(lambda: cuda_ops.sparse_conv(X, W.astype("f8"), T), "weight: expected dtype float32, got float64", id="weight, dtype"),
        pytest.param(lambda: cuda_ops.sparse_conv(X, W[..., :2], T), r"weight: expected shape .*3\), got \(4, 1, 1, 2, 2\)", id="channels"),
        pytest.param(lambda: cuda_ops.sparse_conv(X, W, T[:, :1]), r"table: expected shape \(M, 2\), got \(6, 1\)", id="offsets"),
        pytest.param(lambda: cuda_ops.sparse_conv(X, W, T.astype("i8")), "table: expected dtype int32, got int64", id="table, dtype"),
        pytest.param(lambda: cuda_ops.sparse_conv(X, W, T, bias=X[0]), r"bias: expected shape \(4,\), got \(3,\)", id="bias"),
        pytest.param(lambda: cuda_ops.sparse_conv(X, W, T, residual=X), r"residual: expected shape \(6, 4\), got \(5, 3\)", id="residual"),
        pytest.param(
            lambda: cuda_ops.sparse_conv(X, W, T, transposed=T), r"transposed: expected shape \(5, 2\), got \(6, 2\)", id="transposed"
        ),
        pytest.param(
            lambda: cuda_ops.sparse_conv(X, W, T + 6), "table: expected -1 or rows below 5, got 5", id="input that does not exist"
        ),
        pytest.param(
            lambda: cuda_ops.sparse_conv_weight_gradient(X, np.zeros((6, 4), np.float32), T + 9),
            "table: expected -1 or rows below 5, got 8",
            id="input that does not exist, gradient",
        ),
        pytest.param(
            lambda: cuda_ops.sparse_conv_weight_gradient(X, X, T),
            r"gradient: expected shape \(6, C_out\), got \(5, 3\)",
            id="gradient, rows",
        ),
        pytest.param(lambda: cuda_ops.sparse_conv(torch.zeros(5, 3), W, T), "weight: expected a torch tensor .*got ndarray", id="mixed"),
        pytest.param(lambda: cuda_ops.transpose_table(T, -1), "num_inputs: expected an integer from 0 .*got -1", id="negative"),
        pytest.param(lambda: cuda_ops.transpose_table(T[0], 3), r"table: expected shape \(M, K\), got \(2,\)", id="table of one row"),
    ],
)
def test_errors_say_expected_and_got(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.skipif(IS_EMULATED, reason="CUDA bodies do not look at the table: they would have to wait")
@pytest.mark.parametrize(
    ("table", "message"),
    [
        pytest.param([[0, 1], [0, -1]], "expected no input row twice at one offset, got 1 repeated", id="twice"),
        pytest.param([[3, 1]], "expected -1 or rows below 3, got 3", id="out of range"),
    ],
)
def test_a_table_of_no_convolution_is_not_transposed(table, message):
    with pytest.raises(ValueError, match=message):
        cuda_ops.transpose_table(np.array(table, np.int32), 3)


def test_opcheck():
    rng = np.random.default_rng(13)
    table = random_table(rng, 12, 10, 3)
    layer = [torch.from_numpy(array).requires_grad_() for array in random_layer(rng, table, 10, 3, 4, (3, 1, 1))]
    features, weight, bias, residual = layer
    table = torch.from_numpy(table)
    calls = {
        "transpose_table": [(table, 10)],
        "sparse_conv": [
            (features, weight, table, bias, residual, None, True),
            (features, weight, table, None, None, table[:10] * 0 - 1, False),
        ],
        "sparse_conv_weight_gradient": [(features, residual, table)],
    }
    for name, arguments in calls.items():
        for chosen in arguments:
            torch.library.opcheck(getattr(torch.ops.cuda_ops, name).default, chosen)


def test_compiled_graph_holds_the_operator_and_its_gradient():
    rng = np.random.default_rng(14)
    table = random_table(rng, 40, 30, 27)
    features, weight, bias, _ = (torch.from_numpy(array) for array in random_layer(rng, table, 30, 5, 16, (3, 3, 3)))
    table = torch.from_numpy(table)

    def run(x):
        return cuda_ops.sparse_conv(x, weight, table, bias=bias, relu=True).square().sum()

    gradients = []
    for function in (run, torch.compile(run, fullgraph=True, backend="aot_eager")):
        x = features.clone().requires_grad_()
        function(x).backward()
        gradients.append(x.grad)
    assert torch.equal(*gradients)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("c_in", "c_out"), [(5, 16), (16, 16), (32, 64), (128, 128), (130, 7)])
def test_gpu_equals_cpu_and_itself(cuda_device, dtype, c_in, c_out):
    rng = np.random.default_rng(15)
    sites = random_sites(rng, (20, 40, 40), 0.1)
    _, table = table_of(sites, (3, 3, 3), (2, 2, 2), (1, 1, 1), (20, 40, 40))
    layer = [torch.from_numpy(array).to(dtype) for array in random_layer(rng, table, len(sites), c_in, c_out, (3, 3, 3), "float64")]
    table = torch.from_numpy(table)
    results = []
    for place, kind in (("cpu", torch.float64), (cuda_device, dtype), (cuda_device, dtype)):
        tensors = [tensor.detach().to(place, kind).requires_grad_() for tensor in layer]
        out = cuda_ops.sparse_conv(tensors[0], tensors[1], table.to(place), bias=tensors[2], residual=tensors[3], relu=True)
        out.float().mul(torch.linspace(-1, 1, c_out, device=place)).sum().backward()
        results.append([out.detach(), *[tensor.grad for tensor in tensors]])
    assert all(torch.equal(one, two) for one, two in zip(results[1], results[2], strict=True))
    for ours, exact in zip(results[1], results[0], strict=True):
        # In norm, against float64 of the rounded inputs: one rounding of results; and a ReLU that decides otherwise at 0.
        error = (ours.cpu().double() - exact).norm() / exact.norm()
        assert error < (1e-4 if dtype in (torch.float32, torch.float64) else 8 * torch.finfo(dtype).eps)


@pytest.mark.gpu
def test_gpu_transposes_as_the_cpu(cuda_device):
    table = torch.from_numpy(random_table(np.random.default_rng(16), 50_000, 60_000, 27))
    assert torch.equal(cuda_ops.transpose_table(table.to(cuda_device), 60_000).cpu(), cuda_ops.transpose_table(table, 60_000))


@pytest.mark.gpu
@pytest.mark.parametrize(("num_inputs", "num_outputs"), [(0, 0), (0, 5), (5, 0)])
def test_gpu_empty(cuda_device, num_inputs, num_outputs):
    table = np.full((num_outputs, 27), -1, np.int32)
    layer = random_layer(np.random.default_rng(0), table, num_inputs, 3, 4, (3, 3, 3))
    features, weight, bias, residual = (torch.from_numpy(array).to(cuda_device).requires_grad_() for array in layer)
    out = cuda_ops.sparse_conv(features, weight, torch.from_numpy(table).to(cuda_device), bias=bias, residual=residual)
    assert torch.equal(out, bias + residual)
    out.sum().backward()
    assert not weight.grad.any()


def test_products_of_half_floats_that_overflow_may_still_have_a_sum():
    features, weight = torch.full((2, 1), 200.0, dtype=torch.float16), torch.tensor([[[400.0], [-400.0]]], dtype=torch.float16)
    out = sparse_torch.sparse_conv(features, weight, torch.tensor([[0, 1]], dtype=torch.int32), None, None, False)
    assert out.tolist() == [[0.0]]


def test_a_kernel_without_cells_is_refused():
    with pytest.raises(ValueError, match="expected a kernel of at least one cell"):
        cuda_ops.sparse_conv(np.ones((2, 3), np.float32), np.ones((4, 0, 1, 1, 3), np.float32), np.zeros((2, 0), np.int32))
    with pytest.raises(ValueError, match="expected a kernel of at least one cell"):
        cuda_ops.sparse_conv_weight_gradient(np.ones((2, 3), np.float32), np.ones((2, 4), np.float32), np.zeros((2, 0), np.int32))
