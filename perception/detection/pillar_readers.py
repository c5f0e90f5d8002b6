"""Readers of pillars: a small network on the points of each, and the largest value per channel. Source: PointPillars, section 2.1."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cuda_ops import Grid, scatter_max, scatter_mean
from perception.detection.readers import VoxelLimit
from perception.detection.voxels import DynamicVoxels, HardVoxels, VoxelFeatures, dynamic_voxels


class PillarLayer(nn.Module):
    """A linear layer on each row, normalisation, ReLU, and the maximum over the rows of a pillar."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, out_channels, bias=False)
        self.norm: nn.Module = nn.BatchNorm1d(out_channels, eps=1e-3, momentum=0.01)

    def forward(self, rows: Tensor, pillar: Tensor, count: int, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        """rows (R, C_in), pillar (R,) of each, sorted; count: number of pillars; weight (R,): how many rows one stands for (training).

        Returns rows (R, C_out) and maxima (count, C_out).
        """
        rows = self.linear(rows)
        rows = _weighted_norm(self.norm, rows, weight) if self.training and weight is not None else self.norm(rows)
        rows = F.relu(rows, inplace=not self.training)
        return rows, scatter_max(rows, pillar, count).values


class PillarNet(nn.Module):
    """Layers of which all but the last put the pillar's maximum beside each row's own values.

    channels  per layer, as published: all but the last are half as wide and doubled by the maximum
    """

    def __init__(self, in_channels: int, channels: Sequence[int]) -> None:
        super().__init__()
        widths = [c // 2 for c in channels[:-1]] + [channels[-1]]
        ins = [in_channels, *channels[:-1]]
        self.layers = nn.ModuleList(PillarLayer(c_in, c_out) for c_in, c_out in zip(ins, widths, strict=True))

    def forward(self, rows: Tensor, pillar: Tensor, count: int, weight: Tensor | None = None) -> Tensor:
        """See `PillarLayer`; returns the last maxima (count, C)."""
        maxima = rows.new_zeros((count, 0))
        for number, layer in enumerate(self.layers):
            if number:
                rows = torch.cat([rows, maxima[pillar]], dim=1)
            rows, maxima = layer(rows, pillar, count, weight)
        return maxima


class PillarReader(nn.Module):
    """Pillars of their first points, as det3d has them: unused slots of a pillar take part as rows of zeros.

    A published pillar has `max_points` slots; the features of unused ones are zero, but behind the normalisation they are not, and they
    enter every maximum. One row of zeros in each pillar that is not full gives the same maxima. In training it counts as often as there
    are unused slots, so that the normalisation sees the published statistics too.
    virtual  points have the 16 columns of `VirtualMeanReader`, of which the kind becomes 1 for virtual and 0 for all other points
    """

    def __init__(self, grid: Grid, limit: VoxelLimit, channels: Sequence[int], *, point_columns: int = 5, virtual: bool = False) -> None:
        super().__init__()
        self.grid, self.limit, self.point_columns, self.virtual = grid, limit, point_columns, virtual
        self.net = PillarNet(point_columns + 5, channels)
        self.out_channels = channels[-1]

    def voxelize(self, clouds: Sequence[Tensor], max_voxels: Sequence[int] | None = None) -> HardVoxels:
        return self.limit.voxelize(self.grid, clouds, max_voxels, self.training)

    def forward(self, voxels: HardVoxels) -> VoxelFeatures:
        count, slots = voxels.points.shape[:2]
        number = torch.arange(slots, device=voxels.points.device)
        is_row = number <= voxels.num_points[:, None]  # (M, P): the points, and the first slot behind them
        num_rows = (voxels.num_points.long() + 1).clamp(max=slots)
        pillar = torch.repeat_interleave(torch.arange(count, device=voxels.points.device), num_rows)  # (R,)
        rows = self.decorate(voxels)[is_row]  # (R, C + 5)
        weight = None
        if self.training:
            unused = (slots - voxels.num_points)[:, None].expand(count, slots)
            weight = torch.where(number < voxels.num_points[:, None], 1, unused)[is_row].float()
        return VoxelFeatures(self.net(rows, pillar, count, weight), voxels.coords, voxels.batch_size)

    def decorate(self, voxels: HardVoxels) -> Tensor:
        """(M, P, C + 5): each point, its offset from the mean of the pillar's points, and from the pillar's middle in x and y."""
        points = voxels.points
        xyz = points[..., :3]
        if self.virtual:
            points = points.clone()
            points[..., 14] = (points[..., 14] == -1).to(points.dtype)
        from_mean = xyz - xyz.sum(dim=1, keepdim=True) / voxels.num_points[:, None, None]
        from_middle = xyz[..., :2] - _middle(voxels.coords, self.grid)[:, None, :2]
        is_point = torch.arange(points.shape[1], device=points.device) < voxels.num_points[:, None]
        return torch.cat([points, from_mean, from_middle], dim=2) * is_point[..., None]


class DynamicPillarReader(nn.Module):
    """Pillars of all their points, without limits in number and height, as OpenPCDet's dynamic reader has them."""

    def __init__(self, grid: Grid, channels: Sequence[int], *, point_columns: int = 5) -> None:
        super().__init__()
        self.grid, self.point_columns = grid, point_columns
        self.net = PillarNet(point_columns + 6, channels)
        self.out_channels = channels[-1]

    def voxelize(self, clouds: Sequence[Tensor], _max_voxels: Sequence[int] | None = None) -> DynamicVoxels:
        return dynamic_voxels(clouds, self.grid, any_height=True)

    def forward(self, voxels: DynamicVoxels) -> VoxelFeatures:
        count, is_inside = len(voxels.coords), voxels.voxel_of_point >= 0
        points, pillar = voxels.points[is_inside], voxels.voxel_of_point[is_inside].long()
        pillar, order = pillar.sort(stable=True)
        points = points[order]
        xyz = points[:, :3]
        mean = scatter_mean(xyz.contiguous(), pillar, count).values
        rows = torch.cat([points, xyz - mean[pillar], xyz - _middle(voxels.coords, self.grid)[pillar]], dim=1)  # (N, C + 6)
        return VoxelFeatures(self.net(rows, pillar, count), voxels.coords, voxels.batch_size)


def _middle(coords: Tensor, grid: Grid) -> Tensor:
    """(M, 3) metres: x, y, z of the middle of each cell."""
    axes = zip((3, 2, 1), grid.voxel_size, grid.lower, strict=True)
    return torch.stack([coords[:, column].float() * size + (size / 2 + low) for column, size, low in axes], dim=1)


def _weighted_norm(norm: Any, rows: Tensor, weight: Tensor) -> Tensor:
    """Batch normalisation (nn.BatchNorm1d) in training where row i stands for weight[i] equal rows."""
    total = weight.sum()
    mean = (weight[:, None] * rows).sum(dim=0) / total
    variance = (weight[:, None] * (rows - mean) ** 2).sum(dim=0) / total
    with torch.no_grad():
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * total / (total - 1).clamp(min=1), norm.momentum)
        norm.num_batches_tracked += 1
    return (rows - mean) * torch.rsqrt(variance + norm.eps) * norm.weight + norm.bias
