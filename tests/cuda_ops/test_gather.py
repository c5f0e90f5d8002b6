"""Bilinear samples: by eye, against plain NumPy, against index arithmetic and grid_sample of torch, against the recorded second stages."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cuda_ops
from cuda_ops import reference

NAN, INF = float("nan"), float("inf")
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def by_indices(feature_map, xy, batch_index=None):
    """The published way: whole tensors of indices and weights, indices clamped; differentiable."""
    maps = feature_map.permute(0, 2, 3, 1)
    sample = torch.zeros(len(xy), dtype=torch.long) if batch_index is None else batch_index.long()
    (x, y), (height, width) = xy.unbind(1), maps.shape[1:3]
    x0, y0 = x.detach().floor().long(), y.detach().floor().long()
    x1, y1 = (x0 + 1).clamp(0, width - 1), (y0 + 1).clamp(0, height - 1)
    x0, y0 = x0.clamp(0, width - 1), y0.clamp(0, height - 1)
    total = 0
    for row, column, weight in [
        (y0, x0, (x1 - x) * (y1 - y)),
        (y1, x0, (x1 - x) * (y - y0)),
        (y0, x1, (x - x0) * (y1 - y)),
        (y1, x1, (x - x0) * (y - y0)),
    ]:
        total = total + maps[sample, row, column] * weight[:, None]
    return total


def scene(seed, *shape, count=50, dtype=torch.float32, beyond=1.5):
    """A random map, places on it and somewhat beyond, some of them on cells, and their samples."""
    rng = torch.Generator().manual_seed(seed)
    feature_map = torch.randn(shape, generator=rng, dtype=torch.float64).to(dtype)
    size = torch.tensor([shape[3], shape[2]], dtype=torch.float64)
    xy = torch.rand((count, 2), generator=rng, dtype=torch.float64) * (size - 1 + 2 * beyond) - beyond
    xy[::7] = xy[::7].round()
    number = torch.float64 if dtype == torch.float64 else torch.float32
    return feature_map, xy.to(number), torch.randint(0, shape[0], (count,), generator=rng)


def layouts(feature_map):
    """The same values in other memory."""
    wide = torch.zeros((*feature_map.shape[:3], 2 * feature_map.shape[3] + 1), dtype=feature_map.dtype)
    wide[..., 1::2] = feature_map
    return {
        "contiguous": feature_map.contiguous(),
        "channels last": feature_map.contiguous(memory_format=torch.channels_last),
        "channels first of all": feature_map.transpose(0, 1).contiguous().transpose(0, 1),
        "columns before rows": feature_map.transpose(2, 3).contiguous().transpose(2, 3),
        "every second column": wide[..., 1::2],
    }


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


# Two rows of three columns: 0 10 20 and 100 110 120.
SMALL = np.array([[[[0, 10, 20], [100, 110, 120]]]], np.float32)


@pytest.mark.parametrize(
    ("x", "y", "value"),
    [
        pytest.param(1, 0, 10.0, id="on a cell: its value, no shift by half a cell"),
        pytest.param(0.5, 0, 5.0, id="between two columns"),
        pytest.param(0, 0.25, 25.0, id="between two rows"),
        pytest.param(1.5, 0.5, 65.0, id="between four"),
        pytest.param(1.75, 0.0, 17.5, id="before the last column"),
        pytest.param(-0.0, 0, 0.0, id="minus zero"),
        pytest.param(2, 0.5, 0.0, id="on the last column"),
        pytest.param(1, 1, 0.0, id="on the last row"),
        pytest.param(-0.01, 0.5, 0.0, id="left of the map"),
        pytest.param(1, -0.5, 0.0, id="above"),
        pytest.param(2.5, 0.5, 0.0, id="right of the map"),
        pytest.param(1e30, 0.5, 0.0, id="far"),
        pytest.param(1.5, 2.0**31, 0.0, id="beyond an int"),
        pytest.param(NAN, 0.5, 0.0, id="NaN"),
        pytest.param(1, INF, 0.0, id="infinite"),
        pytest.param(-INF, 0.5, 0.0, id="minus infinite"),
    ],
)
def test_by_eye(x, y, value):
    assert cuda_ops.gather_bilinear(SMALL, np.array([[x, y]], np.float32)).tolist() == [[value]]
    wide = np.ascontiguousarray(SMALL.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert cuda_ops.gather_bilinear(wide, np.array([[x, y]], np.float32)).tolist() == [[value]]


def test_channels_and_samples():
    feature_map = np.concatenate([SMALL, SMALL + 1000, SMALL + 2000]).repeat(2, axis=1) * np.array([1, -1], np.float32)[:, None, None]
    xy, sample = np.full((5, 2), 0.5, np.float32), np.array([2, 0, -1, 3, 1])
    expected = [[2055, -2055], [55, -55], [0, 0], [0, 0], [1055, -1055]]  # samples that do not exist give 0
    assert cuda_ops.gather_bilinear(feature_map, xy, sample).tolist() == expected
    assert cuda_ops.gather_bilinear(feature_map, xy, sample.astype(np.int32)).tolist() == expected
    assert cuda_ops.gather_bilinear(feature_map, xy, sample + np.array([0, 0, -(2**32), 2**32, 0])).tolist() == expected


@pytest.mark.parametrize("size", [(1, 5), (5, 1), (1, 1), (0, 4), (4, 0)])
def test_maps_without_two_rows_and_columns_give_zero(size):
    found = cuda_ops.gather_bilinear(np.ones((1, 3, *size), np.float32), np.zeros((2, 2), np.float32))
    assert found.tolist() == [[0, 0, 0], [0, 0, 0]]


def test_values_that_are_not_finite_reach_the_places_that_touch_their_cell():
    feature_map = np.zeros((1, 1, 4, 4), np.float32)
    feature_map[0, 0, 2, 2] = NAN
    xy = np.array([[1.5, 1.5], [1, 1], [2, 2], [0.9, 1.5], [2.9, 2.9], [-1, 1.5], [3, 3]], np.float32)
    assert np.isnan(cuda_ops.gather_bilinear(feature_map, xy)[:, 0]).tolist() == [True, True, True, False, True, False, False]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_equals_reference_in_every_layout(dtype):
    feature_map, xy, sample = scene(1, 3, 37, 9, 7, count=200, dtype=getattr(torch, np.dtype(dtype).name))
    sample[:20] = torch.randint(-2, 6, (20,), generator=torch.Generator().manual_seed(0))
    xy[5], xy[6, 0], xy[7, 1] = NAN, INF, -INF
    expected = reference.gather_bilinear(feature_map.numpy(), xy.numpy(), sample.numpy())
    assert (expected != 0).sum() > 2000
    for name, values in layouts(feature_map).items():
        ours = cuda_ops.gather_bilinear(values.numpy(), xy.numpy(), sample.numpy())
        assert ours.dtype == dtype
        np.testing.assert_array_equal(ours, expected, err_msg=name)
        tensors = cuda_ops.gather_bilinear(values, xy, sample)
        assert (tensors.dtype, tensors.is_contiguous()) == (values.dtype, True)
        np.testing.assert_array_equal(tensors.numpy(), expected, err_msg=name)
    flipped = np.ascontiguousarray(feature_map.numpy()[:, :, ::-1, ::-1])[:, :, ::-1, ::-1]  # negative strides
    np.testing.assert_array_equal(cuda_ops.gather_bilinear(flipped, xy.numpy(), sample.numpy()), expected)
    same = torch.from_numpy(expected[:, :1]).expand(-1, 4)  # one channel seen four times: stride 0
    np.testing.assert_array_equal(cuda_ops.gather_bilinear(feature_map[:, :1].expand(-1, 4, -1, -1), xy, sample).numpy(), same.numpy())


def test_numpy_maps_that_cannot_be_read_in_place():
    feature_map, xy, _ = scene(2, 1, 3, 5, 6)
    expected = cuda_ops.gather_bilinear(feature_map.numpy(), xy.numpy())
    packed = np.zeros(feature_map.shape, np.dtype([("flag", "u1"), ("value", "f4")]))  # rows of 5 bytes
    packed["value"] = feature_map.numpy()
    np.testing.assert_array_equal(cuda_ops.gather_bilinear(packed["value"], xy.numpy()), expected)


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    shape=st.tuples(st.integers(1, 3), st.integers(0, 40), st.integers(2, 9), st.integers(2, 9)),
    count=st.integers(0, 70),
    layout=st.sampled_from(["contiguous", "channels last", "every second column"]),
)
def test_the_bits_of_the_published_arithmetic_on_the_map(seed, shape, count, layout):
    feature_map, xy, sample = scene(seed, *shape, count=count, beyond=0.5)
    is_inside = ((xy >= 0) & (xy < torch.tensor([shape[3], shape[2]]) - 1)).all(dim=1)
    ours, theirs = cuda_ops.gather_bilinear(layouts(feature_map)[layout], xy, sample), by_indices(feature_map, xy, sample)
    assert torch.equal(ours[is_inside], theirs[is_inside])
    assert (ours[~is_inside] == 0).all()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)  # theirs is 0 but for rounding there


def test_equals_grid_sample_on_the_map():
    feature_map, _, _ = scene(3, 1, 19, 30, 40, dtype=torch.float64)
    xy = torch.rand((500, 2), dtype=torch.float64) * torch.tensor([39.0, 29.0])
    grid = xy / torch.tensor([39.0, 29.0]) * 2 - 1
    theirs = torch.nn.functional.grid_sample(feature_map, grid[None, :, None], align_corners=True)[0, :, :, 0].T
    torch.testing.assert_close(cuda_ops.gather_bilinear(feature_map, xy), theirs, rtol=0, atol=1e-12)


def test_a_linear_map_is_read_back_exactly():
    columns, rows = np.meshgrid(np.arange(12.0), np.arange(8.0))
    xy = np.random.default_rng(4).integers(0, 28, (100, 2)) / 4
    found = cuda_ops.gather_bilinear(np.stack([columns, rows, 3 * columns - 2 * rows])[None], xy)
    np.testing.assert_array_equal(found, np.column_stack([xy, 3 * xy[:, 0] - 2 * xy[:, 1]]) * (xy[:, 1:] < 7))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bits_are_rounded_once(dtype):
    feature_map, xy, sample = scene(5, 2, 65, 10, 11, count=300, dtype=dtype)
    expected = cuda_ops.gather_bilinear(feature_map.float(), xy, sample).to(dtype)
    assert torch.equal(cuda_ops.gather_bilinear(feature_map, xy, sample), expected)
    assert torch.equal(cuda_ops.gather_bilinear(layouts(feature_map)["channels last"], xy, sample), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_number_of_16_bits_is_read_and_written(dtype):
    numbers = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    feature_map = torch.zeros((1, 2**16, 2, 2), dtype=dtype)
    feature_map[0, :, 0, 0] = numbers
    found = cuda_ops.gather_bilinear(feature_map, torch.zeros(1, 2))[0]
    assert torch.equal(found.nan_to_num(-1.5, INF, -INF), numbers.nan_to_num(-1.5, INF, -INF))
    feature_map[0, :, 0, 1] = numbers.roll(1)  # halfway to the next one: ties, denormal ones, and over the largest number
    expected = (numbers.float() * 0.5 + numbers.roll(1).float() * 0.5).to(dtype)
    found = cuda_ops.gather_bilinear(feature_map, torch.tensor([[0.5, 0]]))[0]
    assert torch.equal(found.isnan(), expected.isnan())
    assert torch.equal(found.nan_to_num(0, INF, -INF), expected.nan_to_num(0, INF, -INF))
    largest = torch.finfo(dtype).max
    feature_map[0, :3] = torch.tensor([[largest, largest], [0, 0]], dtype=dtype)
    assert cuda_ops.gather_bilinear(feature_map[:, :3], torch.tensor([[0.25, 0]])).tolist() == [[largest] * 3]


@pytest.mark.shared
def test_recorded_edges(shared: Path):
    recorded = np.load(shared / "fixtures/two_stage/bilinear_edges.npz")
    found = cuda_ops.gather_bilinear(recorded["map_yxc"].transpose(2, 0, 1)[None], recorded["xy"])
    np.testing.assert_allclose(found, recorded["value"], rtol=0, atol=1e-7)
    exact = np.abs(recorded["value"]).max(axis=1) > 1e-6
    assert exact.sum() == 5  # the others lie outside: 0, or its rounding
    np.testing.assert_array_equal(found[exact], recorded["value"][exact])
    assert (found[~exact] == 0).all()


@pytest.mark.shared
@pytest.mark.parametrize("name", ["nusc", "waymo"])
def test_recorded_second_stages(shared: Path, name):
    """Five points per box of three samples in one call: the recorded features of every box, to the last bit."""
    recorded = np.load(shared / f"fixtures/two_stage/{name}.npz")
    stage = json.loads((shared / "fixtures/two_stage/meta.json").read_text())[name]["model"]["second_stage_modules"][0]
    points = [recorded[f"stage/points/{sample}"] for sample in range(3)]
    lower, size = np.float32(stage["pc_start"]), np.float32(stage["voxel_size"])
    xy = (np.concatenate(points)[:, :2] - lower) / size / np.float32(stage["out_stride"])
    sample = np.repeat(np.arange(3), [len(p) for p in points])
    found = cuda_ops.gather_bilinear(recorded["stage/bev_feature_nhwc"].transpose(0, 3, 1, 2), xy, sample)
    start, is_exact = 0, []
    for number, mine in enumerate(points):
        expected = recorded[f"stage/features/{number}"]  # (boxes, 5 * C)
        parts = found[start : start + len(mine)].reshape(5, len(expected), found.shape[1])
        ours = parts.transpose(1, 0, 2).reshape(expected.shape)
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)
        is_exact.append((ours == expected) | (np.abs(ours - expected) < 1e-7) & (ours == 0))
        start += len(mine)
    assert np.concatenate(is_exact).mean() > 0.999


@pytest.mark.parametrize("layout", ["contiguous", "channels last", "columns before rows", "every second column"])
def test_gradients_are_those_of_finite_differences(layout):
    feature_map, xy, sample = scene(6, 2, 5, 4, 6, count=40, dtype=torch.float64)
    xy = torch.where((xy - xy.round()).abs() < 1e-3, xy + 0.01, xy)  # the value has a bend on every cell
    sample[:3] = torch.tensor([-1, 2, 7])
    feature_map = layouts(feature_map)[layout].detach().requires_grad_()
    torch.autograd.gradcheck(lambda m, x: cuda_ops.gather_bilinear(m, x, sample), (feature_map, xy.requires_grad_()))


@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 2e-6), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)]
)
def test_gradients_equal_those_of_torch(layout, dtype, tolerance):
    feature_map, xy, sample = scene(7, 2, 70, 8, 9, count=150, dtype=dtype)
    xy[:40] = torch.tensor([3.25, 4.5]) + xy[:40] * 0.01  # many on the same cells
    upstream = torch.randn(150, 70, dtype=torch.float64).to(dtype)
    ours = [layouts(feature_map)[layout].clone().requires_grad_(), xy.clone().requires_grad_()]
    cuda_ops.gather_bilinear(*ours, sample).backward(upstream)
    theirs = [feature_map.detach().double().clone().requires_grad_(), xy.double().clone().requires_grad_()]
    by_indices(*theirs, sample).backward(upstream.double())
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine.grad.dtype, mine.grad.stride()) == (mine.dtype, mine.stride())
        scale = other.grad.abs().max().item()
        torch.testing.assert_close(mine.grad.double(), other.grad, rtol=0, atol=tolerance * scale)


def test_gradients_of_places_outside_are_zero():
    feature_map, _, _ = scene(8, 1, 3, 4, 5)
    xy = torch.tensor([[4.0, 1], [1, 3], [-0.5, 1], [NAN, 1], [1, INF], [2.5, 1.5]])
    inputs = feature_map.requires_grad_(), xy.requires_grad_()
    cuda_ops.gather_bilinear(*inputs)[:5].sum().backward()
    assert (inputs[0].grad == 0).all()
    assert (inputs[1].grad == 0).all()


def test_only_the_gradients_asked_for():
    feature_map, xy, _ = scene(9, 1, 3, 4, 5)
    cuda_ops.gather_bilinear(feature_map.requires_grad_(), xy).sum().backward()
    assert (feature_map.grad.shape, xy.grad) == (feature_map.shape, None)
    feature_map, xy, _ = scene(9, 1, 3, 4, 5)
    cuda_ops.gather_bilinear(feature_map, xy.requires_grad_()).sum().backward()
    assert (xy.grad.shape, feature_map.grad) == (xy.shape, None)
    assert not cuda_ops.gather_bilinear(feature_map, xy.detach()).requires_grad


@pytest.mark.parametrize("dtypes", [(torch.float32, torch.float64), (torch.float64, torch.float32)])
def test_places_of_another_precision_are_converted(dtypes):
    feature_map, xy, _ = scene(10, 1, 3, 6, 7, dtype=dtypes[0])
    xy = xy.to(dtypes[1]).requires_grad_()
    found = cuda_ops.gather_bilinear(feature_map, xy)
    assert torch.equal(found, cuda_ops.gather_bilinear(feature_map, xy.to(dtypes[0])))
    found.sum().backward()
    assert xy.grad.dtype == dtypes[1]


def test_gradients_of_a_cell_are_summed_in_the_order_of_the_places():
    """1e8 - 1e8 + 1 is 1 in this order and 0 in others."""
    feature_map = torch.zeros(1, 1, 2, 2, requires_grad=True)
    xy = torch.zeros(3, 2)
    cuda_ops.gather_bilinear(feature_map, xy).backward(torch.tensor([[1e8], [-1e8], [1.0]]))
    assert feature_map.grad.flatten().tolist() == [1, 0, 0, 0]
    feature_map.grad = None
    cuda_ops.gather_bilinear(feature_map, xy).backward(torch.tensor([[1.0], [1e8], [-1e8]]))
    assert feature_map.grad.flatten().tolist() == [0, 0, 0, 0]


def test_any_number_of_threads_gives_the_same_bits(threads):
    results = []
    for count in (1, 2, 8):
        threads(count)
        for dtype in (torch.float32, torch.bfloat16):
            for layout in ("contiguous", "channels last"):
                feature_map, xy, sample = scene(11, 2, 67, 20, 20, count=3000, dtype=dtype)
                feature_map = layouts(feature_map)[layout].requires_grad_()
                out = cuda_ops.gather_bilinear(feature_map, xy.requires_grad_(), sample)
                out.backward(torch.sin(torch.arange(out.numel()).float()).reshape(out.shape).to(dtype))
                results.append((out.detach(), feature_map.grad, xy.grad))
    for mine, same in zip(results[4:], results[:4] * 2, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, same, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(results[0], results[2 - 1], strict=True))  # and in both layouts


def test_empty():
    for kind in (np.asarray, torch.from_numpy):
        ones, none = kind(np.ones((1, 3, 4, 5), np.float32)), kind(np.zeros((0, 2), np.float32))
        assert tuple(cuda_ops.gather_bilinear(ones, none).shape) == (0, 3)
        assert tuple(cuda_ops.gather_bilinear(ones[:, :0], kind(np.zeros((2, 2), np.float32))).shape) == (2, 0)
        no_maps = cuda_ops.gather_bilinear(ones[:0], kind(np.zeros((2, 2), np.float32)), kind(np.zeros(2, np.int32)))
        assert no_maps.tolist() == [[0, 0, 0], [0, 0, 0]]
    feature_map = torch.ones(1, 3, 4, 5, requires_grad=True)
    cuda_ops.gather_bilinear(feature_map, torch.zeros(0, 2)).sum().backward()
    assert (feature_map.grad == 0).all()


MAP, PLACES = np.zeros((2, 3, 4, 5), np.float32), np.zeros((6, 2), np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"feature_map": MAP[0]}, r"feature_map: expected shape \(B, C, H, W\), got \(3, 4, 5\)", id="no batch"),
        pytest.param({"feature_map": MAP.astype(int)}, "feature_map: expected dtype float32 or .*got int64", id="dtype"),
        pytest.param({"xy": PLACES[:, :1]}, r"xy: expected shape \(N, 2\), got \(6, 1\)", id="columns"),
        pytest.param({"xy": PLACES.astype(np.float16)}, "xy: expected dtype float32 or float64, got float16", id="xy dtype"),
        pytest.param({"batch_index": None}, "batch_index: expected the map of each row of xy, because feature_map has 2 maps", id="None"),
        pytest.param({"batch_index": np.zeros(5, int)}, r"batch_index: expected shape \(6,\), got \(5,\)", id="batch_index"),
        pytest.param({"batch_index": np.zeros(6)}, "batch_index: expected dtype int32 or int64, got float64", id="batch dtype"),
        pytest.param({"xy": torch.zeros(6, 2)}, "gather_bilinear: feature_map: expected a torch tensor", id="mixed"),
        pytest.param(
            {"feature_map": np.broadcast_to(np.float32(0), (2, 1, 2**15, 2**15))}, r"fewer than 2\^31 cells in the batch, got 2", id="cells"
        ),
    ],
)
def test_errors_say_expected_and_got(change, message):
    good = {"feature_map": MAP, "xy": PLACES, "batch_index": np.zeros(6, np.int64)}
    with pytest.raises(ValueError, match=message):
        cuda_ops.gather_bilinear(**{**good, **change})


def test_maps_are_not_copied(monkeypatch):
    seen = []
    call = cuda_ops.arrays.TorchSpace.call
    monkeypatch.setattr(
        cuda_ops.arrays.TorchSpace, "call", lambda self, name, *rest: (seen.append(rest[0].data_ptr()), call(self, name, *rest))
    )
    for values in layouts(scene(12, 2, 5, 6, 7)[0]).values():
        cuda_ops.gather_bilinear(values, torch.zeros(3, 2), torch.zeros(3, dtype=torch.int32))
        assert seen.pop() == values.data_ptr()


@pytest.mark.parametrize(
    ("layout", "dtype"),
    [("contiguous", torch.float32), ("channels last", torch.bfloat16), ("every second column", torch.float64)],
)
def test_opcheck(layout, dtype):
    feature_map, xy, sample = scene(13, 2, 3, 5, 6, count=9, dtype=dtype)
    feature_map = layouts(feature_map)[layout].detach().requires_grad_()
    xy = xy.T.contiguous().T.requires_grad_()
    cuda_ops.gather_bilinear(feature_map, xy, sample)  # registers the operators
    torch.library.opcheck(torch.ops.cuda_ops.gather_bilinear.default, (feature_map, xy, sample))
    for asked in ((True, True), (False, layout == "contiguous")):
        inputs = (torch.ones(9, 3, dtype=dtype), feature_map.detach(), xy.detach(), sample, *asked)
        torch.library.opcheck(torch.ops.cuda_ops.gather_bilinear_gradient.default, inputs)


# ---- on a GPU ----


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
@pytest.mark.parametrize("shape", [(1, 64, 180, 180), (3, 33, 20, 17), (1, 1, 2, 2)])
@pytest.mark.parametrize("count", [0, 1, 2500])
def test_the_gpu_gives_the_bits_of_the_cpu(cuda_device, dtype, layout, shape, count):
    feature_map, xy, sample = scene(14, *shape, count=count, dtype=dtype)
    if count > 1:
        xy[::50] = NAN
        xy[1::3] = xy[0] + 0.25
    upstream = torch.sin(torch.arange(count * shape[1]).double()).reshape(count, shape[1]).to(dtype)
    results = []
    for device in ("cpu", cuda_device, cuda_device):  # and the same again
        values, places = (part.detach().to(device).requires_grad_() for part in (layouts(feature_map)[layout], xy))
        out = cuda_ops.gather_bilinear(values, places, sample.to(device))
        out.backward(upstream.to(device))
        assert out.device.type == values.grad.device.type == torch.device(device).type
        results.append([part.detach().cpu().nan_to_num(7.0) for part in (out, values.grad, places.grad)])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_a_second_derivative_is_refused():
    feature_map, xy = torch.rand(1, 4, 4, 2, requires_grad=True), torch.tensor([[1.3, 2.1]], requires_grad=True)
    (first,) = torch.autograd.grad(cuda_ops.gather_bilinear(feature_map, xy).square().sum(), xy, create_graph=True)
    with pytest.raises(NotImplementedError, match="gather_bilinear: its gradient has none itself"):
        first.sum().backward()
