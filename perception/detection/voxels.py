"""The clouds of a batch, sorted into voxels."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cuda_ops import Grid, voxelize_hard, voxelize_mean
from perception.detection.row_limits import RowLimits


class HardVoxels(NamedTuple):
    """Voxels that keep their first points; samples one after another, in each by first point.

    points      (M, P, C) float32  zeros behind the last point
    num_points  (M,) int32         1..P
    coords      (M, 4) int32       batch, z, y, x
    batch_size  samples, those without a voxel included
    is_fixed    the number of rows was fixed: behind the voxels of each sample there are rows of none, coords -1 and the rest 0
    """

    points: Tensor
    num_points: Tensor
    coords: Tensor
    batch_size: int
    is_fixed: bool = False


class DynamicVoxels(NamedTuple):
    """Voxels of all their points, ordered by batch, z, y, x.

    points          (N, C) float32  of all samples
    voxel_of_point  (N,) int32      row in `coords`, -1 for a point outside
    mean            (M, C) float32  of the voxel's points
    coords          (M, 4) int32    batch, z, y, x
    batch_size      samples, those without a voxel included
    is_fixed        the number of rows was fixed: behind the voxels there are rows of none, coords -1 and means 0
    """

    points: Tensor
    voxel_of_point: Tensor
    mean: Tensor
    coords: Tensor
    batch_size: int
    is_fixed: bool = False


class VoxelFeatures(NamedTuple):
    """What a reader makes of voxels: features (M, C) and coords (M, 4) int32 batch, z, y, x, of `batch_size` samples."""

    features: Tensor
    coords: Tensor
    batch_size: int


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Tensors of one dtype and device one behind the other along their first axis: write into neither.

    Nothing is copied where they lie so already, as the parts do that `split` gives.
    """
    first, place = parts[0], parts[0].storage_offset()
    if len(parts) == 1:
        return first
    memory = first.untyped_storage().data_ptr()
    for part in parts:
        is_next = part.storage_offset() == place and part.untyped_storage().data_ptr() == memory and part.dtype == first.dtype
        if not is_next or not part.is_contiguous() or part.shape[1:] != first.shape[1:] or part.requires_grad:
            return torch.cat(list(parts))
        place += part.numel()
    return first.as_strided((sum(map(len, parts)), *first.shape[1:]), first.stride(), first.storage_offset())


def hard_voxels(
    clouds: Sequence[Tensor], grid: Grid, max_points: int, max_voxels: Sequence[int], limits: RowLimits | None = None
) -> HardVoxels:
    """clouds: one (N, C) float32 a sample, x y z first; max_voxels: one limit a sample; limits: where nothing may wait for a count."""
    if limits is not None:
        return _fixed_hard_voxels(clouds, grid, max_points, max_voxels, limits)
    parts = []
    for number, (cloud, limit) in enumerate(zip(clouds, max_voxels, strict=True)):
        found = voxelize_hard(cloud, grid, max_points, limit)
        parts.append((found.voxels, found.num_points, F.pad(found.coords, (1, 0), value=number)))
    points, num_points, coords = (part[0] if len(part) == 1 else torch.cat(part) for part in zip(*parts, strict=True))
    return HardVoxels(points, num_points, coords, len(clouds))


def _fixed_hard_voxels(clouds: Sequence[Tensor], grid: Grid, max_points: int, max_voxels: Sequence[int], limits: RowLimits) -> HardVoxels:
    parts, needed = [], []
    for number, (cloud, limit) in enumerate(zip(clouds, max_voxels, strict=True)):
        most = min(limit, len(cloud))
        rows = limits.rows("voxels", guess=most, most=most)
        found = voxelize_hard(cloud, grid, max_points, rows, fixed_capacity=True)
        coords = F.pad(found.coords, (1, 0), value=number)
        parts.append((found.voxels, found.num_points, torch.where(coords[:, 1:2] < 0, -1, coords)))
        needed.append(found.counters[0] + found.counters[3])  # those that are there and those that had no room
    limits.note("voxels", torch.stack(needed).amax())
    points, num_points, coords = (part[0] if len(part) == 1 else torch.cat(part) for part in zip(*parts, strict=True))
    return HardVoxels(points, num_points, coords, len(clouds), is_fixed=True)


def dynamic_voxels(clouds: Sequence[Tensor], grid: Grid, limits: RowLimits | None = None, *, any_height: bool = False) -> DynamicVoxels:
    """clouds: one (N, C) float32 a sample, x y z first; limits: where nothing may wait for a count, all clouds are then of one length.

    any_height  a grid of one layer also takes what lies above and below it
    """
    points = joined(clouds)
    sample = torch.arange(len(clouds), device=points.device)
    if limits is None:
        counts = torch.tensor([len(cloud) for cloud in clouds]).to(points.device, non_blocking=True)
        batch_index = torch.repeat_interleave(sample, counts, output_size=len(points))
    else:
        batch_index = sample[:, None].expand(-1, len(clouds[0])).flatten()
    placed = points
    if any_height:
        placed = points.clone()
        placed[:, 2] = torch.where(points[:, 2].isfinite(), (grid.lower[2] + grid.upper[2]) / 2, points[:, 2])
    options = {"batch_index": batch_index, "batch_size": len(clouds), "with_index": True}
    if limits is None:
        found = voxelize_mean(placed, grid, **options)
    else:
        most = min(len(points), len(clouds) * math.prod(grid.shape))
        rows = limits.rows("voxels", guess=-(-most // 2), most=most)
        found = voxelize_mean(placed, grid, **options, max_voxels=rows, fixed_capacity=True)
        limits.note("voxels", found.counters[0] + found.counters[3])
    return DynamicVoxels(points, found.voxel_of_point, found.features, found.coords, len(clouds), is_fixed=limits is not None)
