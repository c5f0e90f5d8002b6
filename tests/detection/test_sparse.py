import math

import numpy as np
import pytest
import torch
from torch import nn

from perception.core.errors import UsageError
from perception.detection import sparse_backends
from perception.detection.encoders import SparseEncoder
from perception.detection.fold import folded
from perception.detection.sparse import SparseConv3d, SparseConvNormRelu, SparseTensor, SubMConv3d
from perception.detection.sparse_backends import SpconvBackend
from perception.detection.voxels import VoxelFeatures

SHAPE = (9, 12, 10)


def sites(count: int, *, channels: int = 3, batch: int = 2, seed: int = 0, dtype: torch.dtype = torch.float32) -> SparseTensor:
    rng = np.random.default_rng(seed)
    cells = rng.choice(batch * math.prod(SHAPE), count, replace=False)
    coords = np.stack(np.unravel_index(cells, (batch, *SHAPE)), axis=1).astype(np.int32)
    return SparseTensor(torch.from_numpy(rng.normal(size=(count, channels))).to(dtype), torch.from_numpy(coords), SHAPE, batch)


def on(x: SparseTensor, backend: str) -> SparseTensor:
    return SparseTensor(x.features, x.coords, x.shape, x.batch_size, backend)


LAYERS = [
    pytest.param(lambda: SubMConv3d(3, 5, bias=True), id="submanifold"),
    pytest.param(lambda: SparseConv3d(3, 5, 3, 2, 1), id="strided"),
    pytest.param(lambda: SparseConv3d(3, 5, 3, 2, (0, 1, 1), bias=True), id="no padding in z"),
    pytest.param(lambda: SparseConv3d(3, 5, (3, 1, 1), (2, 1, 1)), id="along z"),
]


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("count", [0, 1, 400])
@torch.no_grad()
def test_native_is_dense(layer, count):
    layer, x = layer(), sites(count)
    for relu in (False, True):
        ours, dense = layer(on(x, "native"), relu=relu), layer(on(x, "dense"), relu=relu)
        assert ours.shape == dense.shape
        torch.testing.assert_close(ours.coords, dense.coords)
        torch.testing.assert_close(ours.features, dense.features, rtol=0, atol=1e-5)


@pytest.mark.parametrize("layer", LAYERS)
@torch.no_grad()
def test_native_is_spconv_on_one_thread(layer, monkeypatch):
    pytest.importorskip("spconv.pytorch")
    monkeypatch.setitem(sparse_backends.BACKENDS, "spconv", SpconvBackend(on_cpu=True))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for count in (0, 400):
            layer_of_case, x = layer(), sites(count)
            ours, theirs = layer_of_case(x), layer_of_case(on(x, "spconv"))
            assert ours.shape == theirs.shape
            torch.testing.assert_close(ours.dense(), theirs.dense(), rtol=0, atol=1e-4)
    finally:
        torch.set_num_threads(threads)


def test_spconv_is_not_used_on_the_cpu():
    with pytest.raises(UsageError, match=r"expected tensors on a GPU .* use native"):
        SubMConv3d(3, 5)(on(sites(10), "spconv"))


def test_an_unknown_backend_is_named():
    with pytest.raises(UsageError, match="expected one of native, dense, spconv, got 'mine'"):
        SubMConv3d(3, 5)(on(sites(10), "mine"))


@pytest.mark.parametrize("layer", LAYERS)
def test_gradients(layer):
    """Of features, weight and bias, against differences in float64; and with a residual behind the layer."""
    layer, x = layer().double(), sites(40, dtype=torch.float64)
    out = layer(x)
    residual = torch.randn_like(out.features)
    parameters = list(layer.parameters())

    def run(features: torch.Tensor, residual: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        return layer(x.with_features(features), residual=residual).features

    inputs = (x.features.clone().requires_grad_(), residual.requires_grad_(), *parameters)
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)


def test_gradients_are_those_of_the_dense_layer():
    x = sites(300)
    for make in (lambda: SubMConv3d(3, 5, bias=True), lambda: SparseConv3d(3, 5, 3, 2, 1, bias=True)):
        layer, grads = make(), []
        for backend in ("native", "dense"):
            features = x.features.clone().requires_grad_()
            out = layer(on(x.with_features(features), backend))
            (out.features * torch.linspace(-1, 1, out.features.numel()).view_as(out.features)).sum().backward()
            grads.append([features.grad, *(p.grad.clone() for p in layer.parameters())])
            layer.zero_grad()
        for ours, dense in zip(*grads, strict=True):
            torch.testing.assert_close(ours, dense, rtol=1e-4, atol=1e-4)


def test_tables_are_built_once_for_the_same_sites(monkeypatch):
    calls = []
    original = sparse_backends.sparse_indices
    monkeypatch.setattr(sparse_backends, "sparse_indices", lambda *a, **k: calls.append(1) or original(*a, **k))
    x = sites(100)
    layers = nn.ModuleList([SubMConv3d(3, 3) for _ in range(4)])
    for layer in layers:
        x = layer(x)
    assert len(calls) == 1
    SparseConv3d(3, 3, 3, 2, 1)(x)
    assert len(calls) == 2


@torch.no_grad()
def test_dense_puts_features_at_their_cells():
    x = sites(50)
    dense = x.dense()
    assert dense.shape == (2, 3, *SHAPE)
    b, z, y, column = x.coords.long().unbind(1)
    torch.testing.assert_close(dense[b, :, z, y, column], x.features)
    assert int((dense != 0).any(dim=1).sum()) == 50
    assert torch.equal(x.birds_eye(), dense.flatten(1, 2))  # channel c * Z + z


@torch.no_grad()
def test_a_residual_is_added_before_the_relu_folded_or_not():
    layer = SparseConvNormRelu(SubMConv3d(3, 3, bias=True)).eval()
    layer.norm.running_mean.normal_()
    layer.norm.running_var.uniform_(0.5, 2)
    x = sites(200)
    plain = layer(x, residual=x.features).features
    expected = torch.relu(layer.norm(layer.conv(x).features) + x.features)
    torch.testing.assert_close(plain, expected)
    quick = folded(layer)
    assert isinstance(quick.norm, nn.Identity)
    torch.testing.assert_close(quick(x, residual=x.features).features, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_encoder_without_a_site_gives_an_empty_map():
    encoder = SparseEncoder(5, (40, 32, 48), (4, 4, 4, 4)).eval()
    bev = encoder(VoxelFeatures(torch.zeros((0, 5)), torch.zeros((0, 4), dtype=torch.int32), 2))
    assert bev.shape == (2, 8, 4, 6)
    assert not bev.any()


def test_encoder_does_not_depend_on_threads():
    rng = np.random.default_rng(0)
    encoder = folded(SparseEncoder(5, (40, 64, 64)).eval())
    cells = rng.choice(40 * 64 * 64, 5000, replace=False)
    coords = np.stack([np.zeros(5000, int), *np.unravel_index(cells, (40, 64, 64))], axis=1).astype(np.int32)
    voxels = VoxelFeatures(torch.from_numpy(rng.normal(size=(5000, 5)).astype(np.float32)), torch.from_numpy(coords), 1)
    assert torch.equal(with_threads(1, lambda: encoder(voxels)), with_threads(2, lambda: encoder(voxels)))


def with_threads(count, function):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with torch.no_grad():
            return function()
    finally:
        torch.set_num_threads(before)
