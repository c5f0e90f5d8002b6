"""The clouds of a batch, sorted into voxels."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cuda_ops import Grid, voxelize_hard, voxelize_mean


class HardVoxels(NamedTuple):
    """Voxels that keep their first points; samples one after another, in each by first point.

    points      (M, P, C) float32  zeros behind the last point
    num_points  (M,) int32         1..P
    coords      (M, 4) int32       batch, z, y, x
    batch_size  samples, those without a voxel included
    """

    points: Tensor
    num_points: Tensor
    coords: Tensor
    batch_size: int


class DynamicVoxels(NamedTuple):
    """Voxels of all their points, ordered by batch, z, y, x.

    points          (N, C) float32  of all samples
    voxel_of_point  (N,) int32      row in `coords`, -1 for a point outside
    mean            (M, C) float32  of the voxel's points
    coords          (M, 4) int32    batch, z, y, x
    batch_size      samples, those without a voxel included
    """

    points: Tensor
    voxel_of_point: Tensor
    mean: Tensor
    coords: Tensor
    batch_size: int


class VoxelFeatures(NamedTuple):
    """What a reader makes of voxels: features (M, C) and coords (M, 4) int32 batch, z, y, x, of `batch_size` samples."""

    features: Tensor
    coords: Tensor
    batch_size: int


def hard_voxels(clouds: Sequence[Tensor], grid: Grid, max_points: int, max_voxels: Sequence[int]) -> HardVoxels:
    """clouds: one (N, C) float32 a sample, x y z first; max_voxels: one limit a sample."""
    parts = []
    for number, (cloud, limit) in enumerate(zip(clouds, max_voxels, strict=True)):
        found = voxelize_hard(cloud, grid, max_points, limit)
        parts.append((found.voxels, found.num_points, F.pad(found.coords, (1, 0), value=number)))
    points, num_points, coords = (part[0] if len(part) == 1 else torch.cat(part) for part in zip(*parts, strict=True))
    return HardVoxels(points, num_points, coords, len(clouds))


def dynamic_voxels(clouds: Sequence[Tensor], grid: Grid, *, any_height: bool = False) -> DynamicVoxels:
    """clouds: one (N, C) float32 a sample, x y z first. `any_height`: a grid of one layer also takes what lies above and below it."""
    points = clouds[0] if len(clouds) == 1 else torch.cat(list(clouds))
    counts = torch.tensor([len(cloud) for cloud in clouds], device=points.device)
    batch_index = torch.repeat_interleave(torch.arange(len(clouds), device=points.device), counts)
    placed = points
    if any_height:
        placed = points.clone()
        placed[:, 2] = torch.where(points[:, 2].isfinite(), (grid.lower[2] + grid.upper[2]) / 2, points[:, 2])
    found = voxelize_mean(placed, grid, batch_index=batch_index, batch_size=len(clouds), with_index=True)
    return DynamicVoxels(points, found.voxel_of_point, found.features, found.coords, len(clouds))
