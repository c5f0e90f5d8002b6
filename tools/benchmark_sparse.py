"""Rows of `python tools/benchmark.py ops`: sparse convolutions and what moves rows between points, voxels and maps."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from benchmark_ops import GRID, Case
from scipy.spatial import KDTree

import cuda_ops

# CenterPoint's voxel backbone: channels of each stage and the convolution that leads to it (kernel, stride, padding).
STAGES = [(16, None), (32, (3, 2, 1)), (64, (3, 2, 1)), (128, (3, 2, (0, 1, 1)))]


def sparse_cases(points: np.ndarray) -> list[Case]:
    """Tables of the whole backbone; its widest and its narrowest layer, forward and with gradients."""
    voxels = cuda_ops.voxelize_mean(points, GRID)
    coords = torch.from_numpy(voxels.coords)
    for ours, theirs in zip(tables(voxels.coords), torch_tables(coords), strict=True):
        assert np.array_equal(ours.table, theirs.numpy()), "both must find the same neighbours"
    cases = [
        Case(
            "sparse_indices, all tables of a backbone",
            threads,
            partial(tables, voxels.coords),
            "torch searchsorted",
            partial(torch_tables, coords),
            5,
        )
        for threads in (1, 2)
    ]
    shape, rng = (GRID.shape[0] + 1, *GRID.shape[1:]), np.random.default_rng(0)
    for channels, step in STAGES:
        if step:
            found = cuda_ops.sparse_indices(coords, shape, *step)
            coords, shape = found.coords, found.shape
        table = cuda_ops.sparse_indices(coords, shape, 3, submanifold=True).table
        features = torch.from_numpy(rng.normal(size=(len(coords), channels)).astype(np.float32))
        weight = torch.from_numpy(rng.normal(size=(channels, 3, 3, 3, channels)).astype(np.float32))
        name = f"sparse_conv {channels}, {len(coords):,} rows x {float((table >= 0).sum()) / max(len(table), 1):.1f} neighbours"
        peer = "torch, tap by tap"
        cases.append(
            Case(name, 2, partial(cuda_ops.sparse_conv, features, weight, table), peer, partial(torch_conv, features, weight, table), 5)
        )
        if channels in (16, 64):
            ours, theirs = (partial(with_gradients, f, features, weight, table) for f in (cuda_ops.sparse_conv, torch_conv))
            cases.append(Case(f"{name}, gradients too", 2, ours, peer, theirs, 5))
    return cases


def row_cases(points: np.ndarray) -> list[Case]:
    """Points to voxels with 64 channels, pixels to their nearest points, a map sampled at the corners of boxes."""
    rng = np.random.default_rng(0)
    voxels = cuda_ops.voxelize_mean(points, GRID, with_index=True)
    index, size = torch.from_numpy(voxels.voxel_of_point), len(voxels.coords)
    values = torch.from_numpy(rng.normal(size=(len(points), 64)).astype(np.float32))
    inside = index >= 0
    rows, kept = index[inside].long(), values[inside]
    zeros = torch.zeros(size, 64)

    def torch_max() -> torch.Tensor:
        return zeros.scatter_reduce(0, rows[:, None].expand(-1, 64), kept, "amax", include_self=False)

    def torch_mean() -> torch.Tensor:
        return zeros.index_add(0, rows, kept) / torch.bincount(rows, minlength=size)[:, None]

    group = np.repeat(np.arange(180), 50)
    of_point = rng.integers(0, 180, 30_000)
    pixels, places = rng.uniform(0, 900, (len(group), 2)).astype(np.float32), rng.uniform(0, 900, (len(of_point), 2)).astype(np.float32)
    feature_map = torch.from_numpy(rng.normal(size=(1, 512, 180, 180)).astype(np.float32)).contiguous(memory_format=torch.channels_last)
    corners = torch.from_numpy(rng.uniform(0, 179, (2_500, 2)).astype(np.float32))
    return [
        Case("scatter_max of 64 channels", 2, partial(cuda_ops.scatter_max, values, index, size), "torch scatter_reduce", torch_max),
        Case("scatter_mean of 64 channels", 2, partial(cuda_ops.scatter_mean, values, index, size), "torch index_add", torch_mean),
        Case(
            "nearest_in_group, 9,000 pixels x 30,000 points in 180 groups", 1,
            partial(cuda_ops.nearest_in_group, pixels, group, places, of_point), "SciPy KDTree, group by group",
            partial(nearest_by_trees, pixels, group, places, of_point),
        ),
        Case(
            "gather_bilinear, 2,500 places x 512 channels", 1, partial(cuda_ops.gather_bilinear, feature_map, corners),
            "torch, four corners", partial(torch_bilinear, feature_map, corners),
        ),
    ]  # fmt: skip


def tables(coords: np.ndarray) -> list[cuda_ops.SparseIndices]:
    """All sites and tables of the backbone."""
    found, shape = [], (GRID.shape[0] + 1, *GRID.shape[1:])
    for step in [step for _, step in STAGES[1:]] + [((3, 1, 1), (2, 1, 1), 0)]:
        found.append(cuda_ops.sparse_indices(coords, shape, 3, submanifold=True))
        found.append(cuda_ops.sparse_indices(coords, shape, *step))
        coords, shape = found[-1].coords, found[-1].shape
    return found


def torch_tables(coords: torch.Tensor) -> list[torch.Tensor]:
    """The same in torch: sorted numbers of cells, searched for every tap."""
    found, shape = [], (GRID.shape[0] + 1, *GRID.shape[1:])
    coords = coords.long()
    for kernel, stride, padding in [step for _, step in STAGES[1:]] + [((3, 1, 1), (2, 1, 1), 0)]:
        found.append(torch_table(coords, coords, shape, (3,) * 3, (1,) * 3, (1,) * 3))
        k, s, p = (torch.tensor([n] * 3 if isinstance(n, int) else n) for n in (kernel, stride, padding))
        out = [(n + 2 * int(b) - int(a)) // int(c) + 1 for n, a, b, c in zip(shape, k, p, s, strict=True)]
        shifted = (coords[:, None] + p - torch.cartesian_prod(*[torch.arange(int(n)) for n in k])).reshape(-1, 3)
        sites = shifted // s
        is_output = ((shifted % s == 0) & (sites >= 0) & (sites < torch.tensor(out))).all(1)
        cells = torch.unique((sites[is_output, 0] * out[1] + sites[is_output, 1]) * out[2] + sites[is_output, 2])
        outputs = torch.stack([cells // (out[1] * out[2]), cells // out[2] % out[1], cells % out[2]], 1)
        found.append(torch_table(coords, outputs, shape, k.tolist(), s.tolist(), p.tolist()))
        coords, shape = outputs, tuple(out)
    return found


def torch_table(inputs: torch.Tensor, outputs: torch.Tensor, shape, kernel, stride, padding) -> torch.Tensor:
    height, width = shape[1:]
    numbers = (inputs[:, 0] * height + inputs[:, 1]) * width + inputs[:, 2]
    taps = torch.cartesian_prod(*[torch.arange(n) for n in kernel])
    looked_at = outputs[:, None] * torch.tensor(stride) - torch.tensor(padding) + taps
    cell = (looked_at[..., 0] * height + looked_at[..., 1]) * width + looked_at[..., 2]
    row = torch.searchsorted(numbers, cell).clamp(max=len(numbers) - 1)
    is_there = (numbers[row] == cell) & ((looked_at >= 0) & (looked_at < torch.tensor(shape))).all(-1)
    return torch.where(is_there, row, -1).int()


def torch_conv(features: torch.Tensor, weight: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """For each tap: gather, multiply, add."""
    matrices = weight.reshape(len(weight), -1, features.shape[1])
    out = features.new_zeros(len(table), len(weight))
    for k in range(table.shape[1]):
        rows = torch.nonzero(table[:, k] >= 0)[:, 0]
        out = out.index_add(0, rows, features[table[rows, k]] @ matrices[:, k].T)
    return out


def with_gradients(
    convolve: Callable[..., torch.Tensor], features: torch.Tensor, weight: torch.Tensor, table: torch.Tensor
) -> torch.Tensor:
    features, weight = features.detach().requires_grad_(), weight.detach().requires_grad_()
    out = convolve(features, weight, table)
    out.backward(torch.ones_like(out))
    return out


def nearest_by_trees(queries: np.ndarray, group: np.ndarray, points: np.ndarray, of_point: np.ndarray) -> np.ndarray:
    index = np.full(len(queries), -1)
    for one in np.unique(group):
        rows, mine = np.flatnonzero(of_point == one), group == one
        if len(rows):
            index[mine] = rows[KDTree(points[rows]).query(queries[mine])[1]]
    return index


def torch_bilinear(feature_map: torch.Tensor, xy: torch.Tensor) -> torch.Tensor:
    """As CenterPoint's second stage writes it."""
    x, y = xy.T
    image = feature_map[0].permute(1, 2, 0)
    x0, y0 = x.floor().long(), y.floor().long()
    x1, y1 = (x0 + 1).clamp(max=image.shape[1] - 1), (y0 + 1).clamp(max=image.shape[0] - 1)
    wa, wb, wc, wd = (x1 - x) * (y1 - y), (x1 - x) * (y - y0), (x - x0) * (y1 - y), (x - x0) * (y - y0)
    return (image[y0, x0].T * wa + image[y1, x0].T * wb + image[y0, x1].T * wc + image[y1, x1].T * wd).T
