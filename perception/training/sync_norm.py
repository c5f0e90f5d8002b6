"""Batch normalisation over the rows of all processes, on any device: torch's own has no body for the CPU.

Counts of rows may differ between processes, as pillars and voxels do.
"""

from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Network = TypeVar("Network", bound=nn.Module)


class SyncNorm(nn.Module):
    """Takes the place of a batch normalisation and has its parameters and statistics, under the same names."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.weight, self.bias, self.eps, self.momentum = norm.weight, norm.bias, norm.eps, norm.momentum
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.num_batches_tracked: Tensor

    def forward(self, x: Tensor, row_weight: Tensor | None = None) -> Tensor:
        """x (N, C) or (N, C, H, W); row_weight (N,): how many rows one stands for, see `perception.detection.pillar_readers`."""
        shape = (1, -1, *[1] * (x.ndim - 2))
        if not self.training:
            mean, variance = self.running_mean, self.running_var
        else:
            mean, variance = self._statistics(x.float() if x.dtype in (torch.float16, torch.bfloat16) else x, row_weight)
        scale = torch.rsqrt(variance + self.eps) * self.weight
        return ((x - mean.view(shape)) * scale.view(shape) + self.bias.view(shape)).to(x.dtype)

    def _statistics(self, x: Tensor, row_weight: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and variance (C,) over all rows and pixels of all processes; the running ones move towards them."""
        axes = [axis for axis in range(x.ndim) if axis != 1]
        shape = (1, -1, *[1] * (x.ndim - 2))
        weight = x.new_ones(()) if row_weight is None else row_weight.view(-1, *[1] * (x.ndim - 1))
        count = x.new_tensor(x.numel() // max(x.shape[1], 1)) if row_weight is None else row_weight.sum()
        sums = _sum(torch.cat([(weight * x).sum(axes), count[None]]))
        total = sums[-1].detach().clamp(min=1)
        mean = sums[:-1] / total
        # In two passes: the mean of squares less the square of the mean loses its digits where the mean is large.
        variance = _sum((weight * (x - mean.view(shape)) ** 2).sum(axes)) / total
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * total / (total - 1).clamp(min=1), self.momentum)
            self.num_batches_tracked += 1
        return mean, variance


def with_sync_norm(network: Network) -> Network:
    """The network itself, each of its batch normalisations replaced by a `SyncNorm`."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _BatchNorm):
                setattr(parent, name, SyncNorm(child))
    return network


class _Sum(torch.autograd.Function):
    """The sum over all processes. What a process's number does to the losses of the others comes back to it as a sum too."""

    @staticmethod
    def forward(_ctx: Any, tensor: Tensor) -> Tensor:  # type: ignore[override]
        tensor = tensor.clone()
        dist.all_reduce(tensor)
        return tensor

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return gradient


def _sum(tensor: Tensor) -> Tensor:
    return _Sum.apply(tensor)  # type: ignore[no-any-return]
