"""Readers of pillars: a small network on the points of each, and the largest value per channel. Source: PointPillars, section 2.1."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cuda_ops import Grid, scatter_max, scatter_mean
from perception.detection.readers import VoxelLimit
from perception.detection.row_limits import RowLimits
from perception.detection.voxels import DynamicVoxels, HardVoxels, VoxelFeatures, dynamic_voxels


class WeightedNorm(nn.BatchNorm1d):
    """Batch normalisation of rows of which, in training, row i may stand for row_weight[i] equal ones."""

    def forward(self, input: Tensor, row_weight: Tensor | None = None) -> Tensor:  # noqa: A002  torch's name
        """input (R, C), row_weight (R,)."""
        if row_weight is None or not self.training:
            return super().forward(input)
        total = row_weight.sum()
        mean = (row_weight[:, None] * input).sum(dim=0) / total
        variance = (row_weight[:, None] * (input - mean) ** 2).sum(dim=0) / total
        norm: Any = self
        with torch.no_grad():
            norm.running_mean.lerp_(mean, norm.momentum)
            norm.running_var.lerp_(variance * total / (total - 1).clamp(min=1), norm.momentum)
            norm.num_batches_tracked += 1
        return (input - mean) * torch.rsqrt(variance + self.eps) * self.weight + self.bias


class PillarLayer(nn.Module):
    """A linear layer on each row, normalisation, ReLU, and the maximum over the rows of a pillar."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, out_channels, bias=False)
        self.norm: nn.Module = WeightedNorm(out_channels, eps=1e-3, momentum=0.01)

    @property
    def is_folded(self) -> bool:
        return isinstance(self.norm, nn.Identity)

    def forward(self, rows: Tensor, pillar: Tensor, count: int, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        """rows (R, C_in), pillar (R,) of each, sorted; count: number of pillars; weight (R,): how many rows one stands for (training).

        Returns rows (R, C_out) and maxima (count, C_out).
        """
        rows = self.linear(rows)
        rows = self.norm(rows) if weight is None else self.norm(rows, weight)
        rows = F.relu(rows, inplace=not self.training)
        rows = rows.float() if rows.dtype in (torch.bfloat16, torch.float16) else rows  # autocast; maxima want float32
        return rows, scatter_max(rows, pillar, count).values

    def maxima(self, rows: Tensor, pillar: Tensor, shared: Tensor) -> Tensor:
        """The maxima of a folded layer whose input is each row and, beside it, the shared values (count, C) of its pillar.

        What is the same for all rows of a pillar is added after the maximum, and so is the ReLU.
        """
        own, other = self.linear.weight.split([rows.shape[1], shared.shape[1]], dim=1)
        best = scatter_max(F.linear(rows, own), pillar, len(shared)).values
        return F.relu(best + F.linear(shared, other, self.linear.bias), inplace=True)


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
        first, *others = self.layers.children()
        rows, maxima = first(rows, pillar, count, weight)
        for number, layer in enumerate(others, start=1):
            if number == len(others) and layer.is_folded:
                return layer.maxima(rows, pillar, maxima)  # type: ignore[operator]
            rows, maxima = layer(torch.cat([rows, maxima[pillar]], dim=1), pillar, count, weight)
        return maxima

    def of_slots(self, slots: Tensor) -> Tensor:
        """The maxima of folded layers over rows (M, P, C_in), P of each pillar: (M, C). For a fixed number of pillars."""
        *firsts, last = self.layers.children()
        for layer in firsts:
            slots = F.relu(layer.linear(slots), inplace=True)  # type: ignore[operator]
            shared = slots.amax(dim=1)
            if layer is firsts[-1]:
                own, other = last.linear.weight.split([slots.shape[2], shared.shape[1]], dim=1)  # type: ignore[union-attr, operator]
                best = F.linear(slots, own).amax(dim=1)
                return F.relu(best + F.linear(shared, other, last.linear.bias), inplace=True)  # type: ignore[union-attr, arg-type]
            slots = torch.cat([slots, shared[:, None].expand_as(slots)], dim=2)
        return F.relu(last.linear(slots), inplace=True).amax(dim=1)  # type: ignore[operator]


class PillarReader(nn.Module):
    """Pillars of their first points, as det3d and mmdetection3d have them: unused slots of a pillar take part as rows of zeros.

    A published pillar has `max_points` slots; the features of unused ones are zero, but behind the normalisation they are not, and they
    enter every maximum. One row of zeros in each pillar that is not full gives the same maxima. In training it counts as often as there
    are unused slots, so that the normalisation sees the published statistics too.
    virtual   points have the 16 columns of `VirtualMeanReader`, of which the kind becomes 1 for virtual and 0 for all other points
    z_offset  the offset from the pillar's middle has z too (mmdetection3d)
    """

    def __init__(
        self,
        grid: Grid,
        limit: VoxelLimit,
        channels: Sequence[int],
        *,
        point_columns: int = 5,
        virtual: bool = False,
        z_offset: bool = False,
    ) -> None:
        super().__init__()
        self.grid, self.limit, self.point_columns, self.virtual = grid, limit, point_columns, virtual
        self.num_axes = 3 if z_offset else 2  # of the offset from the middle
        self.net = PillarNet(point_columns + 3 + self.num_axes, channels)
        self.out_channels = channels[-1]

    def voxelize(self, clouds: Sequence[Tensor], max_voxels: Sequence[int] | None = None, limits: RowLimits | None = None) -> HardVoxels:
        return self.limit.voxelize(self.grid, clouds, max_voxels, limits, self.training)

    def forward(self, voxels: HardVoxels) -> VoxelFeatures:
        if voxels.is_fixed:
            return VoxelFeatures(self.net.of_slots(self.slots(voxels)), voxels.coords, voxels.batch_size)
        rows, pillar, weight = self.rows(voxels)
        features = self.net(rows, pillar, len(voxels.coords), weight if self.training else None)
        return VoxelFeatures(features, voxels.coords, voxels.batch_size)

    def rows(self, voxels: HardVoxels) -> tuple[Tensor, Tensor, Tensor]:
        """Pillar after pillar its points and, where it is not full, one row of zeros.

        Returns rows (R, C + 5 or 6): the point, its offset from the mean of the pillar's points, and from the pillar's middle;
        pillar (R,); and for how many slots each row stands, (R,).
        """
        (count, slots), device = voxels.points.shape[:2], voxels.points.device
        num_points = voxels.num_points.long()[:, None]  # (M, 1)
        slot = torch.arange(slots, device=device)
        is_row = slot <= num_points  # (M, P): the points, and the first slot behind them
        pillar = torch.repeat_interleave(torch.arange(count, device=device), is_row.sum(dim=1))
        points = voxels.points[is_row]  # (R, C)
        is_point = (slot < num_points)[is_row]
        mean = voxels.points[..., :3].sum(dim=1) / num_points
        origin = torch.cat([mean, _middle(voxels.coords, self.grid)[:, : self.num_axes]], dim=1)  # (M, 5 or 6)
        offset = (points[:, [0, 1, 2, 0, 1, 2][: 3 + self.num_axes]] - origin[pillar]) * is_point[:, None]
        if self.virtual:
            points[:, 14] = (points[:, 14] == -1).to(points.dtype)
        unused = (slots - num_points[:, 0])[pillar]
        return torch.cat([points, offset], dim=1), pillar, torch.where(is_point, 1, unused).to(points.dtype)

    def slots(self, voxels: HardVoxels) -> Tensor:
        """The same rows in the published form, every slot of every pillar: (M, P, C + 5 or 6), zeros in unused slots."""
        points, num_points = voxels.points, voxels.num_points[:, None]
        is_point = torch.arange(points.shape[1], device=points.device) < num_points  # (M, P)
        mean = points[..., :3].sum(dim=1) / num_points.clamp(min=1)
        origin = torch.cat([mean, _middle(voxels.coords, self.grid)[:, : self.num_axes]], dim=1)  # (M, 5 or 6)
        axes = torch.cat([points[..., :3], points[..., : self.num_axes]], dim=2)
        offset = (axes - origin[:, None]) * is_point[..., None]
        if self.virtual:
            kind = (points[..., 14:15] == -1).to(points.dtype)
            points = torch.cat([points[..., :14], kind, points[..., 15:]], dim=2)
        return torch.cat([points, offset], dim=2)


class DynamicPillarReader(nn.Module):
    """Pillars of all their points, without limits in number and height, as OpenPCDet's dynamic reader has them."""

    def __init__(self, grid: Grid, channels: Sequence[int], *, point_columns: int = 5) -> None:
        super().__init__()
        self.grid, self.point_columns = grid, point_columns
        self.net = PillarNet(point_columns + 6, channels)
        self.out_channels = channels[-1]

    def voxelize(
        self, clouds: Sequence[Tensor], _max_voxels: Sequence[int] | None = None, limits: RowLimits | None = None
    ) -> DynamicVoxels:
        return dynamic_voxels(clouds, self.grid, limits, any_height=True)

    def forward(self, voxels: DynamicVoxels) -> VoxelFeatures:
        count, points, pillar = len(voxels.coords), voxels.points, voxels.voxel_of_point.long()
        if not voxels.is_fixed:  # the same rows without those outside, and sorted, which is quicker
            is_inside = pillar >= 0
            points, pillar = points[is_inside], pillar[is_inside]
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
