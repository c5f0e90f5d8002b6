import numpy as np
import pytest
import torch
import torch.nn.functional as F

from perception.detection.fold import folded
from perception.detection.sparse import SparseConv3d
from perception.detection.sparse_pillars import SparsePillarEncoder
from perception.detection.voxels import VoxelFeatures

SHAPE = (16, 24)


def pillars(count: int, *, channels: int = 5, batch: int = 2, seed: int = 0) -> VoxelFeatures:
    rng = np.random.default_rng(seed)
    b, y, x = np.unravel_index(rng.choice(batch * SHAPE[0] * SHAPE[1], count, replace=False), (batch, *SHAPE))
    coords = np.stack([b, np.zeros(count, int), y, x], axis=1).astype(np.int32)
    return VoxelFeatures(torch.from_numpy(rng.normal(size=(count, channels)).astype(np.float32)), torch.from_numpy(coords), batch)


def encoder(backend: str = "native") -> SparsePillarEncoder:
    torch.manual_seed(0)
    ours = SparsePillarEncoder(5, SHAPE, (4, 6, 8), (1, 2, 0), backend=backend)
    for name, buffer in ours.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.2)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    return ours


@torch.no_grad()
def by_dense_maps(ours: SparsePillarEncoder, x: VoxelFeatures) -> torch.Tensor:
    """The definition: 2D convolutions of whole maps, of which only the sites are kept."""
    b, _, y, column = x.coords.long().unbind(1)
    bev = torch.zeros((x.batch_size, x.features.shape[1], *SHAPE))
    bev[b, :, y, column] = x.features
    site = torch.zeros((x.batch_size, 1, *SHAPE))
    site[b, 0, y, column] = 1
    for stage in ours.stages:
        for number, layer in enumerate(stage):
            stride = 2 if isinstance(layer.conv, SparseConv3d) else 1
            site = F.max_pool2d(site, 3, 2, 1) if stride == 2 else site
            weight = layer.conv.weight[:, 0].permute(0, 3, 1, 2)
            norm = layer.norm
            out = F.conv2d(bev, weight, None, stride, 1)
            out = F.batch_norm(out, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
            bev = torch.relu(out + bev if number else out) * site
    return bev


@pytest.mark.parametrize("count", [0, 1, 120])
@torch.no_grad()
def test_it_is_2d_convolution_where_there_are_pillars(count):
    ours, x = encoder().eval(), pillars(count)
    found = ours(x)
    assert found.shape == (2, 8, 4, 6)
    assert (ours.stride, ours.out_channels) == (4, 8)
    torch.testing.assert_close(found, by_dense_maps(ours, x), rtol=0, atol=1e-5)
    torch.testing.assert_close(found, encoder("dense").eval()(x), rtol=0, atol=1e-5)
    torch.testing.assert_close(folded(ours)(x), found, rtol=0, atol=1e-5)


def test_gradients_are_those_of_the_dense_backend():
    gradients = []
    for backend in ("native", "dense"):
        ours, x = encoder(backend), pillars(120)
        features = x.features.clone().requires_grad_()
        bev = ours(x._replace(features=features))
        (bev * torch.linspace(-1, 1, bev.numel()).view_as(bev)).sum().backward()
        gradients.append([features.grad, *(p.grad for p in ours.parameters())])
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-4)
    assert all(gradient.any() for gradient in gradients[0])


@torch.no_grad()
def test_samples_of_a_batch_do_not_meet():
    ours, x = encoder().eval(), pillars(120)
    together = ours(x)
    for sample in range(2):
        of_sample = x.coords[:, 0] == sample
        coords = x.coords[of_sample].clone()
        coords[:, 0] = 0
        torch.testing.assert_close(ours(VoxelFeatures(x.features[of_sample], coords, 1))[0], together[sample], rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_on_the_cpu_computes_in_float32(dtype):
    ours, x = encoder(), pillars(120)
    expected = ours(x)
    ours = encoder()  # statistics as before
    with torch.autocast("cpu", dtype=dtype):
        bev = ours(x._replace(features=x.features.to(dtype)))
    bev.float().sum().backward()
    torch.testing.assert_close(bev.float(), expected, rtol=0.05, atol=0.05)  # the features were rounded
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in ours.parameters())
