"""Virtual points on a GPU: the operations of the CPU in the same order, so that the results have the same bits.

Only here masks become pictures: of the number of each pixel's first instance, once for each call. A thread a point that looked through
pieces of columns would wait for its neighbours' loops.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cuda_ops import nearest_in_group
from perception.fusion.calibration import CameraView
from perception.fusion.members import MaskIndex, Members
from perception.fusion.virtual_points import NUM_CLASSES, Draw


def fused(points: Tensor, index: MaskIndex, views: Sequence[CameraView], draw: Draw) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The columns of `VirtualPoints`, on the device of the points (N, 4 or more) float32."""
    members = find_members(points, index, views)
    on_device = Draw(*(torch.from_numpy(part).to(points.device) for part in draw))  # type: ignore[arg-type]
    return (*_virtual(members, on_device), *_painted(points, members, on_device))


def find_members(points: Tensor, index: MaskIndex, views: Sequence[CameraView]) -> Members:
    """`MaskIndex.members` on any device."""
    device = points.device
    if len(index) == 0:
        none = torch.zeros(0, dtype=torch.int64, device=device)
        return Members(none, none, none.new_zeros((0, 2)), none.double())
    x, y, z = points[:, :3].double().unbind(dim=1)
    m = torch.from_numpy(np.array([view.lidar_to_pixels for view in views])).to(device)

    def row_of(k: int) -> Tensor:  # (N, C); not as a product of matrices, which rounds otherwise
        return m[:, k, 0] * x[:, None] + m[:, k, 1] * y[:, None] + m[:, k, 2] * z[:, None] + m[:, k, 3]

    px, py, depth = row_of(0), row_of(1), row_of(2)
    width, height = torch.from_numpy(index.sizes).to(device).unbind(dim=1)
    is_seen = (depth > 0) & (px >= depth) & (px < width * depth) & (py >= depth) & (py < height * depth)
    point, camera = is_seen.nonzero(as_tuple=True)
    depth = depth[point, camera]
    u, v = (px[point, camera] / depth).long(), (py[point, camera] / depth).long()
    is_inside = (u < width[camera]) & (v < height[camera])
    offset = np.cumsum([0, *index.sizes.prod(axis=1).tolist()])
    pixel = torch.where(is_inside, torch.from_numpy(offset[:-1]).to(device)[camera] + u * height[camera] + v, 0)
    instance = _numbers(index, int(offset[-1]), device)[pixel].long()
    kept = is_inside & (instance < len(index))
    return Members(point[kept], instance[kept], torch.stack([u, v], dim=1)[kept], depth[kept])


def _numbers(index: MaskIndex, num_pixels: int, device: Any) -> Tensor:
    """(num_pixels,) int32: all pictures, column after column: the first instance of each pixel, I where there is none."""
    begin, length, instance = (torch.from_numpy(part).to(device) for part in index.pieces)
    total = int(index.area.sum())
    piece = torch.repeat_interleave(torch.arange(len(length), device=device), length, output_size=total)
    within = torch.arange(total, device=device) - (length.cumsum(0) - length)[piece]
    numbers = torch.full((num_pixels,), len(index), dtype=torch.int32, device=device)
    return numbers.scatter_reduce_(0, begin[piece] + within, instance.int()[piece], "amin")


def _virtual(members: Members, draw: Any) -> tuple[Tensor, Tensor]:
    nearest = nearest_in_group(draw.pixel.double(), draw.instance, members.pixel.double(), members.instance).index.long()
    kept = nearest >= 0
    pixel, instance, nearest = draw.pixel[kept], draw.instance[kept], nearest[kept]
    camera = draw.camera[instance]
    ray, (u, v) = draw.rays[camera], pixel.double().unbind(dim=1)
    xyz = members.depth[nearest, None] * (ray[..., 0] * u[:, None] + ray[..., 1] * v[:, None] + ray[..., 2]) + draw.origin[camera]
    virtual = torch.zeros((len(xyz), 4 + NUM_CLASSES), device=pixel.device)
    virtual[:, :3] = xyz
    virtual.scatter_(1, 3 + draw.column[instance, None], 1.0)
    virtual[:, -1] = draw.score[instance]
    return virtual, instance


def _painted(points: Tensor, members: Members, draw: Any) -> tuple[Tensor, Tensor]:
    row, place = torch.unique_consecutive(members.point, return_inverse=True)
    painted = torch.zeros((len(row), 5 + NUM_CLASSES), device=points.device)
    painted[:, :4] = points[row, :4]
    painted[place, 4 + draw.column[members.instance]] = 1.0
    painted[:, -1].scatter_reduce_(0, place, draw.score[members.instance], "amax")
    return painted, row
