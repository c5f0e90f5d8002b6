"""The head at inference: heat maps everywhere, the rest of a box only at the cells that are asked for.

A trained heat map passes a few hundred of 16,384 cells; five of six branches need not be computed for the others. The result is the
dense head's but for rounding.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cuda_ops import sparse_conv
from perception.detection.deformable import bordered
from perception.detection.head import CenterHead
from perception.detection.layers import conv_relu


class LazyHead(nn.Module):
    """A folded `CenterHead` (see `perception.detection.fold`), its branches stacked so that few large convolutions do the work."""

    def __init__(self, head: CenterHead) -> None:
        super().__init__()
        self.shared, self.num_classes, self.has_iou = head.shared, head.num_classes, head.has_iou
        tasks: list[nn.ModuleDict] = list(head.tasks)  # type: ignore[arg-type]
        self.adapt: Any = head.adapt
        hidden, out = _stacked([task["heatmap"] for task in tasks])
        # With deformable convolutions in front, each task reads a map of its own.
        self.heat_hidden, self.heat_out = _plain_conv(*hidden, groups=1 if self.adapt is None else len(tasks)), _plain_conv(*out)
        for number, task in enumerate(tasks):
            hidden, out = _stacked([task[name] for name in (*head.branches, *(("iou",) if head.has_iou else ()))])
            for name, (weight, bias) in (("hidden", hidden), ("out", out)):
                # As a sparse convolution over the cells of the map: (C_out, 1, 3, 3, C_in)
                self.register_buffer(f"{name}_weight_{number}", weight.permute(0, 2, 3, 1)[:, None].contiguous())
                self.register_buffer(f"{name}_bias_{number}", bias.contiguous())
        # The last convolutions as matrices (tasks, 9 * hidden channels, C_out), for places whose hidden rows lie side by side.
        out = [self._weights("out", number) for number in range(len(tasks))]
        self.register_buffer("out_matrices", torch.stack([weight.flatten(1).t() for weight, _ in out]))
        self.register_buffer("out_biases", torch.stack([bias for _, bias in out])[:, None])  # (tasks, 1, C_out)
        # Of the 5 x 5 cells around a place: its 3 x 3 neighbours, and the neighbours of each of these.
        patch = torch.arange(25).view(5, 5)
        self.register_buffer("_near", patch[1:4, 1:4].flatten(), persistent=False)
        of_near = patch.unfold(0, 3, 1).unfold(1, 3, 1)  # (3, 3, 3, 3)
        self.register_buffer("_near_of_near", of_near.flatten(), persistent=False)

    def heatmaps(self, features: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The shared map (B, C, H, W), and per task the logits (B, classes, H, W)."""
        shared = self.shared(features)
        read = shared
        if self.adapt is not None:
            table = bordered(shared)
            read = torch.cat([adapt["heatmap"](shared, table) for adapt in self.adapt], dim=1)
        logits = self.heat_out(conv_relu(self.heat_hidden, read))  # (B, all classes, H, W)
        return shared, logits.split(self.num_classes, dim=1)

    def branches(self, shared: Tensor, task: int, sample: int, cells: Tensor) -> Tensor:
        """The stacked branches (N, 8 to 11; see `TaskMaps.stacked`) of a task at cells (N,) = y * W + x of a sample."""
        channels, height, width = shared.shape[1:]
        rows = shared[sample].permute(1, 2, 0).reshape(height * width, channels)  # a view where channels lie side by side
        hidden_cells, table = _needed(_neighbours(cells, height, width))
        hidden_table = _neighbours(hidden_cells, height, width).int()
        if self.adapt is not None:
            read_cells, hidden_table = _needed(hidden_table)
            rows = self._adapted(shared[sample], rows, task, read_cells)
        weight, bias = self._weights("hidden", task)
        hidden = sparse_conv(rows, weight, hidden_table, bias=bias, relu=True)
        weight, bias = self._weights("out", task)
        return sparse_conv(hidden, weight, table, bias=bias)

    def branches_at(self, shared: Tensor, cells: Tensor) -> Tensor:
        """The stacked branches (B, tasks, K, 8 or 10) at cells (B, tasks, K) = y * W + x; where a cell is -1 they mean nothing.

        As `branches`, but nothing waits for a count: where the surroundings of cells overlap, their hidden rows are computed again.
        """
        (samples, tasks, places), (height, width) = cells.shape, shared.shape[2:]
        around = _neighbours(cells.transpose(0, 1).flatten(), height, width, reach=2)  # (tasks * B * K, 25)
        near = around[:, self.get_buffer("_near")]  # (tasks * B * K, 9)
        sample = torch.arange(samples, device=cells.device).view(samples, 1, 1)
        around = around.view(tasks, samples, places, 25)
        rows = torch.where(around >= 0, around + sample * (height * width), -1).int()
        table = rows[..., self.get_buffer("_near_of_near")].view(tasks, samples * places * 9, 9)
        hidden = []
        for task in range(tasks):
            weight, bias = self._weights("hidden", task)
            hidden.append(sparse_conv(self._rows_of(shared, task), weight, table[task], bias=bias, relu=True))
        is_there = (near >= 0).view(tasks, -1, 9, 1)
        stacked = torch.where(is_there, torch.stack(hidden).unflatten(1, (-1, 9)), 0)  # (tasks, B * K, 9, hidden)
        found = torch.baddbmm(self.get_buffer("out_biases"), stacked.flatten(2), self.get_buffer("out_matrices"))
        return found.view(tasks, samples, places, -1).transpose(0, 1)

    def _rows_of(self, shared: Tensor, task: int) -> Tensor:
        """What the branches of a task read, as rows (B * H * W, C)."""
        if self.adapt is not None:
            shared = self.adapt[task]["boxes"](shared)
        return shared.permute(0, 2, 3, 1).reshape(-1, shared.shape[1])  # a view where channels lie side by side

    def _adapted(self, shared: Tensor, rows: Tensor, task: int, cells: Tensor) -> Tensor:
        """What the branches of a task read at cells (N,) of one sample: shared (C, H, W), and the same as rows (H * W, C)."""
        conv, (height, width) = self.adapt[task]["boxes"], shared.shape[1:]
        kernel, bias = conv.offset_kernel()  # (18 * parts, C, 1 or 3, 1 or 3)
        if kernel.shape[2] == 1:
            offsets = F.linear(rows[cells], kernel.flatten(1), bias)
        else:
            kernel = kernel.permute(0, 2, 3, 1)[:, None].contiguous()
            offsets = sparse_conv(rows, kernel, _neighbours(cells, height, width).int(), bias=bias)
        return conv.at(bordered(shared[None])[0], offsets, cells)

    def _weights(self, name: str, task: int) -> tuple[Tensor, Tensor]:
        return self.get_buffer(f"{name}_weight_{task}"), self.get_buffer(f"{name}_bias_{task}")


def _needed(near: Tensor) -> tuple[Tensor, Tensor]:
    """near (N, 9) cells, -1 for none: the different ones (M,), and near with rows of these in place of cells, (N, 9) int32."""
    is_there = near >= 0
    cells, place = near[is_there].unique(return_inverse=True)
    table = torch.full(near.shape, -1, dtype=torch.int32, device=near.device)
    table[is_there] = place.int()
    return cells.long(), table


def _neighbours(cells: Tensor, height: int, width: int, reach: int = 1) -> Tensor:
    """(N, 9) the cells under a 3 x 3 kernel around each, row by row; -1 outside, and around a cell of -1. reach: 2 for 5 x 5, (N, 25)."""
    step, size = torch.arange(-reach, reach + 1, device=cells.device), 2 * reach + 1
    y, x = (cells // width)[:, None] + step.repeat_interleave(size), (cells % width)[:, None] + step.repeat(size)
    is_there = (cells[:, None] >= 0) & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    return torch.where(is_there, y * width + x, -1)


def _stacked(branches: list[Any]) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Weight and bias of all hidden convolutions as one, and of all last ones as one that keeps the branches apart."""
    hidden = [branch.hidden.conv for branch in branches]
    out = [branch.out for branch in branches]
    weight, bias = torch.cat([conv.weight for conv in hidden]), torch.cat([conv.bias for conv in hidden])
    apart = torch.cat([conv.weight.new_zeros((len(conv.weight), len(weight), 3, 3)) for conv in out])
    row = column = 0
    for first, conv in zip(hidden, out, strict=True):
        rows, columns = len(conv.weight), len(first.weight)
        apart[row : row + rows, column : column + columns] = conv.weight.detach()
        row, column = row + rows, column + columns
    return (weight.detach(), bias.detach()), (apart, torch.cat([conv.bias for conv in out]).detach())


def _plain_conv(weight: Tensor, bias: Tensor, groups: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(weight.shape[1] * groups, weight.shape[0], 3, padding=1, groups=groups, device="meta")  # no random numbers are drawn
    conv.weight, conv.bias = nn.Parameter(weight, requires_grad=False), nn.Parameter(bias, requires_grad=False)
    return conv
