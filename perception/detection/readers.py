"""Readers of voxels: the mean of the points in each. They have no weights. Sources: VoxelNet's successor SECOND; MVP (virtual points)."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from cuda_ops import Grid, scatter_mean
from perception.detection.row_limits import RowLimits
from perception.detection.voxels import DynamicVoxels, HardVoxels, VoxelFeatures, dynamic_voxels, hard_voxels


class Reader(Protocol):
    """From points to features of voxels, in two steps.

    point_columns  columns of a point: x, y, z (m), intensity as recorded, age (s); 16 with virtual points, see `VirtualMeanReader`
    out_channels   of the features
    `voxelize(clouds, max_voxels, limits)` takes one (N, point_columns) float32 tensor a sample and, optionally, one limit a sample; with
    `limits` the number of rows is fixed, and all clouds are of one length. Calling the reader with its result gives `VoxelFeatures`.
    """

    point_columns: int
    out_channels: int

    def voxelize(self, clouds: Sequence[Tensor], max_voxels: Sequence[int] | None = None, limits: RowLimits | None = None, /) -> Any: ...

    def __call__(self, voxels: Any, /) -> VoxelFeatures: ...


class VoxelLimit(NamedTuple):
    """How much a hard reader keeps: points of a voxel, and voxels of a sample in training and otherwise."""

    max_points: int
    max_voxels_training: int
    max_voxels: int

    def voxelize(
        self, grid: Grid, clouds: Sequence[Tensor], max_voxels: Sequence[int] | None, limits: RowLimits | None, training: bool
    ) -> HardVoxels:
        limit = self.max_voxels_training if training else self.max_voxels
        return hard_voxels(clouds, grid, self.max_points, max_voxels or [limit] * len(clouds), limits)


class MeanReader(nn.Module):
    """The mean of a voxel's first points."""

    def __init__(self, grid: Grid, limit: VoxelLimit, *, point_columns: int = 5) -> None:
        super().__init__()
        self.grid, self.limit, self.point_columns, self.out_channels = grid, limit, point_columns, point_columns

    def voxelize(self, clouds: Sequence[Tensor], max_voxels: Sequence[int] | None = None, limits: RowLimits | None = None) -> HardVoxels:
        return self.limit.voxelize(self.grid, clouds, max_voxels, limits, self.training)

    def forward(self, voxels: HardVoxels) -> VoxelFeatures:
        mean = voxels.points.sum(dim=1) / voxels.num_points.clamp(min=1)[:, None]  # (M, C); empty slots are zero
        return VoxelFeatures(mean, voxels.coords, voxels.batch_size)


class DynamicMeanReader(nn.Module):
    """The mean of all points of a voxel, without limits."""

    def __init__(self, grid: Grid, *, point_columns: int = 5) -> None:
        super().__init__()
        self.grid, self.point_columns, self.out_channels = grid, point_columns, point_columns

    def voxelize(
        self, clouds: Sequence[Tensor], _max_voxels: Sequence[int] | None = None, limits: RowLimits | None = None
    ) -> DynamicVoxels:
        return dynamic_voxels(clouds, self.grid, limits)

    def forward(self, voxels: DynamicVoxels) -> VoxelFeatures:
        return VoxelFeatures(voxels.mean, voxels.coords, voxels.batch_size)


class VirtualMeanReader(nn.Module):
    """Real points and virtual ones (MVP), each kind averaged over its own points in a voxel.

    A point has 16 columns: x y z; intensity (real) or "is a car" (painted, virtual); nine more classes; score; kind: 1 real, 0 painted,
    -1 virtual; age. Features, 21: x y z intensity age of the real points; x y z, ten classes, score, age of the others; share of painted
    points among these.
    """

    point_columns = 16
    out_channels = 21

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.grid = grid

    def voxelize(
        self, clouds: Sequence[Tensor], _max_voxels: Sequence[int] | None = None, limits: RowLimits | None = None
    ) -> DynamicVoxels:
        return dynamic_voxels(clouds, self.grid, limits)

    def forward(self, voxels: DynamicVoxels) -> VoxelFeatures:
        points, kind = voxels.points, voxels.points[:, 14:15]
        real = torch.cat([points[:, :4], points[:, 15:]], dim=1) * (kind == 1)  # (N, 5)
        other = torch.cat([points[:, :14], points[:, 15:], kind == 0], dim=1) * (kind != 1)  # (N, 16)
        rows = torch.cat([real, other, kind == 1], dim=1)  # (N, 22)
        mean = scatter_mean(rows, voxels.voxel_of_point, len(voxels.coords)).values
        share = mean[:, 21:]  # of real points
        is_mixed = (share > 0) & (share < 1)
        real, other = (mean[:, :5] / torch.where(is_mixed, share, 1), mean[:, 5:21] / torch.where(is_mixed, 1 - share, 1))
        return VoxelFeatures(torch.cat([real, other], dim=1), voxels.coords, voxels.batch_size)
