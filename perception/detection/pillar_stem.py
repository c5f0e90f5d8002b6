"""The neck's first convolution on pillars, computed where there are some.

One cell in nine holds a pillar, or fewer: a map of all cells, 67 MB for 512 x 512, and most of a convolution over it can be spared. Away
from pillars the convolution gives its bias. The result is that of scatter and convolution but for rounding.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cuda_ops import sparse_conv, sparse_indices
from perception.detection.encoders import PillarScatter
from perception.detection.layers import ConvNormRelu
from perception.detection.row_limits import RowLimits
from perception.detection.voxels import VoxelFeatures


class PillarStem(nn.Module):
    """`PillarScatter` and a folded convolution with ReLU behind it (see `perception.detection.fold`) as one step."""

    def __init__(self, scatter: PillarScatter, first: ConvNormRelu) -> None:
        super().__init__()
        conv: Any = first.conv
        self.map_shape: tuple[int, int] = scatter.map_shape
        self.kernel_size: tuple[int, int] = conv.kernel_size
        self.stride: tuple[int, int] = conv.stride
        self.padding: tuple[int, int] = conv.padding
        self.register_buffer("weight", conv.weight.detach().permute(0, 2, 3, 1)[:, None].contiguous())  # (C_out, 1, 3, 3, C_in)
        self.register_buffer("bias", conv.bias.detach())

    def forward(self, pillars: VoxelFeatures, limits: RowLimits | None = None) -> Tensor:
        """(B, C_out, H', W'); in memory the channels of a cell lie side by side.

        limits  where nothing may wait for a count; pillars with coords of -1 are then none
        """
        weight, bias = self.get_buffer("weight"), self.get_buffer("bias")
        geometry = ((1, *self.kernel_size), (1, *self.stride), (0, *self.padding))  # along z, y, x
        capacity = None if limits is None else self._most_sites(pillars)
        found = sparse_indices(pillars.coords, (1, *self.map_shape), *geometry, batch_size=pillars.batch_size, capacity=capacity)
        rows = sparse_conv(pillars.features, weight, found.table, bias=bias, relu=True)
        _, height, width = found.shape
        cells = pillars.batch_size * height * width
        out = F.relu(bias).repeat(cells + 1, 1)  # (B * H' * W' + 1, C_out); the last one takes the rows that are no sites
        b, _, y, x = found.coords.long().unbind(dim=1)
        out.index_copy_(0, torch.where(b >= 0, (b * height + y) * width + x, cells), rows)
        return out[:cells].view(pillars.batch_size, height, width, -1).permute(0, 3, 1, 2)

    def _most_sites(self, pillars: VoxelFeatures) -> int:
        """As many as there are cells, or as all pillars can touch: enough for every cloud."""
        axes = list(zip(self.map_shape, self.kernel_size, self.stride, self.padding, strict=True))
        cells = math.prod((n + 2 * p - k) // s + 1 for n, k, s, p in axes)
        return min(pillars.batch_size * cells, len(pillars.coords) * math.prod(-(-k // s) for _, k, s, _ in axes))
