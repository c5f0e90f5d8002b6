"""A reader of pillars that looks at every point once: statistics of a pillar and how far its points reach, then one layer on the pillar.

The largest dot product of a set of points with a direction says where the set ends in that direction. A few learned directions in height,
place in the pillar, brightness and age tell a pillar's shape without a layer, and its memory, for each point. Source: PointPillars,
section 2.1 (a network on points, then a maximum); here the network is linear and normalisation comes behind the maximum.
With virtual points (MVP) all that is of returns alone, and the others add statistics of their own: what the cameras take a pillar for.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cuda_ops import Grid, scatter_max, scatter_mean, voxelize_mean
from perception.detection.layers import DenseNormRelu
from perception.detection.row_limits import RowLimits
from perception.detection.voxels import VoxelFeatures, joined

_COLUMNS = 5  # of a point
_STATISTICS = 7  # means of the columns, number of points, distance
_OF_CAMERAS = 13  # means of z, ten classes and score, number of points: of painted and virtual points
_VIRTUAL_COLUMNS = 16
_NORM = {"eps": 1e-3, "momentum": 0.05}


class HeightBands(NamedTuple):
    """`number` bands of equal height from `lower` to `upper` (m); the first and the last also have what lies beyond."""

    lower: float
    upper: float
    number: int


class SummarizedPillars(NamedTuple):
    """Points and the pillars that they lie in, by batch, y, x.

    points           (N, 5) float32
    pillar_of_point  (N,) int32    row in `coords`, -1 for a point outside
    mean             (M, 5) float32  of the pillar's points
    num_points       (M,) int32    of the pillar
    coords           (M, 4) int32  batch, 0, y, x
    batch_size  samples, those without a pillar included
    of_cameras       (M, 13) float32, or None where points have five columns. Else painted and virtual points are in pillars, but
                     `pillar_of_point` is -1 for them, and a pillar that has no others has means and a number of 0
    """

    points: Tensor
    pillar_of_point: Tensor
    mean: Tensor
    num_points: Tensor
    coords: Tensor
    batch_size: int
    of_cameras: Tensor | None = None


class PillarSummaryReader(nn.Module):
    """Means, reach in learned directions, points in bands of height, their number and distance of each pillar; a layer mixes them.

    channels    of the result
    directions  an even number; they start as pairs of opposites, along each column first
    bands       in which points are counted
    virtual     points have the 16 columns of `VirtualMeanReader`. Pillars are those of all points, the numbers above those of returns
                (0 where a pillar has none, but for its distance); of the others there are the means of z, ten classes and score, and their
                number
    Points are x, y, z (m), intensity 0..255, age (s, 0 for the key sweep). There is no limit in number; what lies above or below the grid
    is left out. All is float32, also under autocast.
    """

    def __init__(self, grid: Grid, channels: int, *, directions: int = 16, bands: HeightBands, virtual: bool = False) -> None:
        super().__init__()
        self.grid, self.out_channels, self.bands, self.virtual = grid, channels, bands, virtual
        self.point_columns = _VIRTUAL_COLUMNS if virtual else _COLUMNS
        self.directions = nn.Parameter(_opposites(directions))  # (D, 5), in the units of `scale`
        columns = directions + self.bands.number + _STATISTICS + (_OF_CAMERAS if virtual else 0)
        self.layer = DenseNormRelu(columns, channels, **_NORM)
        size_x, size_y, _ = grid.voxel_size
        # Half pillars, metres, 64 steps of intensity, half seconds: a column of a direction is worth as much as any other.
        self.register_buffer("scale", torch.tensor([2 / size_x, 2 / size_y, 1, 1 / 64, 2]), persistent=False)

    def voxelize(
        self, clouds: Sequence[Tensor], _max_voxels: Sequence[int] | None = None, _limits: RowLimits | None = None
    ) -> SummarizedPillars:
        """clouds: one (N, point_columns) float32 a sample. There is no way with fixed shapes (`FixedNetwork.supports`)."""
        points = joined(clouds)
        batch_index = torch.zeros(len(points), dtype=torch.int32, device=points.device)
        if len(clouds) > 1:
            counts = torch.tensor([len(cloud) for cloud in clouds]).to(points.device, non_blocking=True)
            samples = torch.arange(len(clouds), dtype=torch.int32, device=points.device)
            batch_index = torch.repeat_interleave(samples, counts, output_size=len(points))
        found = voxelize_mean(points, self.grid, batch_index=batch_index, batch_size=len(clouds), with_index=True)
        if self.virtual:
            return _of_kinds(points, found.voxel_of_point, found.coords, len(clouds))
        return SummarizedPillars(points, found.voxel_of_point, found.features, found.num_points, found.coords, len(clouds))

    def forward(self, voxels: SummarizedPillars) -> VoxelFeatures:
        with torch.autocast(voxels.points.device.type, enabled=False):
            return VoxelFeatures(self.layer(self._features(voxels)), voxels.coords, voxels.batch_size)

    def _features(self, voxels: SummarizedPillars) -> Tensor:
        """(M, directions + bands + 7, or 20 with virtual points): what the layer reads."""
        middle, mean, scale = self._middle(voxels.coords), voxels.mean, self.get_buffer("scale")
        place, others = (mean[:, :2] - middle) * scale[:2], mean[:, 2:] * scale[2:]
        others[:, 1].clamp_(min=0).sqrt_()  # most returns are dark
        counts = torch.cat([self._in_bands(voxels), voxels.num_points[:, None]], dim=1).to(mean.dtype).log1p() / 4
        distance = torch.linalg.vector_norm(middle, dim=1, keepdim=True) / 50
        if voxels.of_cameras is None:
            return torch.cat([self._reach(voxels, middle), place, others, counts, distance], dim=1)
        place = place.masked_fill((voxels.num_points == 0)[:, None], 0)
        return torch.cat([self._reach(voxels, middle), place, others, counts, distance, voxels.of_cameras], dim=1)

    def _reach(self, voxels: SummarizedPillars, middle: Tensor) -> Tensor:
        """(M, directions): the largest dot product of each pillar's points, seen from its middle (M, 2), with each direction."""
        points, pillar, directions = voxels.points, voxels.pillar_of_point, self.directions * self.get_buffer("scale")
        if not (points.is_cuda or torch.is_grad_enabled()):  # what all points of a pillar share can be taken off behind the maximum
            reach = scatter_max(F.linear(points, directions), pillar, len(middle)).values - F.linear(middle, directions[:, :2])
            return reach if voxels.of_cameras is None else reach.masked_fill_((voxels.num_points == 0)[:, None], 0)
        local = points.clone()  # off each point, because on a GPU a product may be rounded to tf32
        if len(middle):
            local[:, :2] -= middle[pillar.clamp(min=0)]
        found = scatter_max(F.linear(local, directions.detach()), pillar, len(middle))
        # The products of all points, a gigabyte in a batch, are not kept for the gradient: only the farthest points have one.
        farthest = local[found.argmax.long()]
        if voxels.of_cameras is not None:
            farthest = farthest.masked_fill_((voxels.num_points == 0)[:, None, None], 0)
        return (farthest * directions).sum(dim=2)

    def _in_bands(self, voxels: SummarizedPillars) -> Tensor:
        """(M, bands) int32: the points of each pillar in each band of height."""
        count, pillar = self.bands.number, voxels.pillar_of_point
        step = (self.bands.upper - self.bands.lower) / count
        z = (
            voxels.points[:, 2] - self.bands.lower
        )  # not in place: a single point's column counts as contiguous, and would be the cloud's own
        band = z.mul_(1 / step).nan_to_num_(0.0).clamp_(0, count - 1).to(torch.int32)
        place = (pillar * count).add_(band).clamp_(min=-1).add_(1).long()  # 0 for a point outside
        found = torch.zeros(1 + len(voxels.coords) * count, dtype=torch.int32, device=z.device)
        return found.scatter_add_(0, place, found.new_ones(()).expand(len(place)))[1:].view(-1, count)  # integers: in any order the same

    def _middle(self, coords: Tensor) -> Tensor:
        """(M, 2) metres: x, y of the middle of each pillar."""
        axes = zip((3, 2), self.grid.voxel_size, self.grid.lower, strict=False)
        return torch.stack([coords[:, column].float() * size + (size / 2 + low) for column, size, low in axes], dim=1)


def _of_kinds(points: Tensor, pillar: Tensor, coords: Tensor, batch_size: int) -> SummarizedPillars:
    """Pillars of points (N, 16): returns, and beside them the statistics of painted and virtual points."""
    is_return = points[:, 14] == 1
    returns, of_return = torch.cat([points[:, :4], points[:, 15:]], dim=1), torch.where(is_return, pillar, -1)
    mean, num_points = scatter_mean(returns, of_return, len(coords))
    others = scatter_mean(points[:, 2:14].contiguous(), torch.where(is_return, -1, pillar), len(coords))
    of_cameras = torch.cat([others.values, others.count[:, None].to(mean.dtype).log1p() / 4], dim=1)
    return SummarizedPillars(returns, of_return, mean, num_points, coords, batch_size, of_cameras)


def _opposites(count: int) -> Tensor:
    """(count, 5) unit directions and their opposites: the columns, as many as there is room for, then random ones."""
    half = count // 2
    random = F.normalize(torch.randn(half, _COLUMNS), dim=1)
    own = min(half, _COLUMNS)
    random[:own] = torch.eye(_COLUMNS)[:own]
    return torch.cat([random, -random])
