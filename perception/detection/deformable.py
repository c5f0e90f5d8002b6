"""Deformable convolution, version 1: every tap of the kernel reads where an offset moves it, and a small convolution says the offsets.

Source: Deformable Convolutional Networks (2017); as heads of CenterPoint have it (`FeatureAdaption` of det3d, `DCN` of mmcv).
"""

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cuda_ops import gather_bilinear

_TAPS = 9


class DeformableConv(nn.Module):
    """A deformable 3 x 3 convolution without bias, from as many channels to as many.

    groups         parts of the channels that the convolution keeps apart
    offset_groups  parts of the channels that have offsets of their own
    offset_kernel  size of the convolution that says the offsets: 1 or 3
    relu           whether a ReLU comes behind it
    Between cells values are interpolated; beyond the border the map is zero, and so is what a NaN offset reads.
    """

    def __init__(self, channels: int, *, groups: int = 1, offset_groups: int = 1, offset_kernel: int = 3, relu: bool = False) -> None:
        super().__init__()
        self.groups, self.offset_groups, self.relu = groups, offset_groups, relu
        # Channels: part, tap (row by row), y and x, in cells; used in the order tap, part, x and y.
        self.offset = nn.Conv2d(channels, offset_groups * _TAPS * 2, offset_kernel, padding=offset_kernel // 2)
        order = torch.arange(offset_groups * _TAPS * 2).view(offset_groups, _TAPS, 2).flip(2).transpose(0, 1).reshape(-1)
        self.register_buffer("_order", order, persistent=False)
        self.weight = nn.Parameter(torch.empty(channels, channels // groups, 3, 3))
        nn.init.zeros_(self.offset.weight)
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, features: Tensor, table: Tensor | None = None) -> Tensor:
        """(B, C, H, W) to (B, C, H, W); in memory the channels of a cell lie side by side. table: `bordered(features)`, if at hand."""
        height, width = features.shape[2:]
        cells = torch.arange(height * width, device=features.device)
        kernel, bias = self.offset_kernel()
        offsets = F.conv2d(features, kernel, bias, padding=kernel.shape[2] // 2)
        offsets = offsets.permute(0, 2, 3, 1).flatten(1, 2)  # (B, H * W, 18 * parts)
        tables = bordered(features) if table is None else table
        rows = torch.stack([self.at(tables[sample], offsets[sample], cells) for sample in range(len(features))])
        return rows.unflatten(1, (height, width)).permute(0, 3, 1, 2)

    def offset_kernel(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the convolution that says the offsets, its channels in the order in which `at` takes them."""
        order, conv = self.get_buffer("_order"), cast("Any", self.offset)
        return conv.weight[order], conv.bias[order]

    def at(self, table: Tensor, offsets: Tensor, cells: Tensor) -> Tensor:
        """Rows (N, C) at cells (N,) = y * W + x of one sample.

        table (H + 2, W + 2, C)  of `bordered`
        offsets (N, 18 * parts)  at these cells, by `offset_kernel`
        """
        places = self._places(offsets, cells, table.shape[1] - 2)  # (N, 9, parts, 2)
        parts = table.unflatten(2, (self.offset_groups, -1)).permute(2, 3, 0, 1)  # (parts, C / parts, H + 2, W + 2), a view
        part = torch.arange(self.offset_groups, dtype=torch.int32, device=cells.device).repeat(len(cells) * _TAPS)
        columns = gather_bilinear(parts, places.reshape(-1, 2), part)  # (N * 9 * parts, C / parts)
        columns = columns.view(len(cells), _TAPS, self.groups, table.shape[2] // self.groups)
        if self.groups == 1:
            rows = columns.flatten(1) @ self.weight.permute(2, 3, 1, 0).flatten(0, 2)
        else:
            kernels = self.weight.unflatten(0, (self.groups, -1)).permute(0, 3, 4, 2, 1).flatten(1, 3)  # (groups, 9 * C_in, C_out)
            rows = torch.bmm(columns.permute(2, 0, 1, 3).flatten(2), kernels).permute(1, 0, 2).flatten(1)
        return F.relu(rows) if self.relu else rows

    def _places(self, offsets: Tensor, cells: Tensor, width: int) -> Tensor:
        """(N, 9, parts, 2) column and row on the table with its border: cell, tap and offset."""
        # Half a cell is no place in float16.
        offsets = (offsets if offsets.dtype == torch.float64 else offsets.float()).reshape(len(cells), _TAPS, self.offset_groups, 2)
        step = torch.arange(3, device=cells.device)
        taps = torch.stack([step.repeat(3), step.repeat_interleave(3)], dim=1)  # (9, 2) x, y; on the table cell 0 is the border
        places = torch.stack([cells % width, cells // width], dim=1)[:, None] + taps  # (N, 9, 2)
        return offsets + places[:, :, None]


def bordered(features: Tensor) -> Tensor:
    """(B, C, H, W) to (B, H + 2, W + 2, C): zeros around, so that places at the border are interpolated towards zero."""
    return F.pad(features.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1)).contiguous()
