"""The layers that dense parts are made of."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FUSES_RELU = True  # on a GPU with 16 bits: convolution, bias and ReLU in one kernel


class ConvNormRelu(nn.Module):
    """A convolution, batch normalisation and ReLU. `fold` (see `perception.detection.fold`) turns the first two into one.

    conv      nn.Conv2d or nn.ConvTranspose2d
    eps, momentum  of the normalisation; momentum in torch's meaning
    """

    def __init__(self, conv: nn.Conv2d | nn.ConvTranspose2d, *, eps: float, momentum: float) -> None:
        super().__init__()
        self.conv = conv
        self.norm: nn.Module = nn.BatchNorm2d(conv.out_channels, eps=eps, momentum=momentum)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) to (B, C_out, H', W')."""
        if isinstance(self.norm, nn.Identity) and isinstance(self.conv, nn.Conv2d):
            return conv_relu(self.conv, x)
        return F.relu(self.norm(self.conv(x)), inplace=True)


def conv_relu(conv: Any, x: Tensor) -> Tensor:
    """F.relu(conv(x)) of an nn.Conv2d. On a GPU with 16 bits it is one kernel where cuDNN has it, which rounds once in place of twice."""
    if FUSES_RELU and x.is_cuda and x.element_size() == 2 and not torch.is_grad_enabled() and not getattr(conv, "is_unfusable", False):
        try:
            return torch.cudnn_convolution_relu(x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)
        except RuntimeError:
            conv.is_unfusable = True
    return F.relu(conv(x), inplace=True)


class DenseNormRelu(nn.Module):
    """A linear layer on each row, batch normalisation over the rows, ReLU. `fold` turns the first two into one."""

    def __init__(self, in_channels: int, out_channels: int, *, eps: float, momentum: float) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, out_channels, bias=False)
        self.norm: nn.Module = nn.BatchNorm1d(out_channels, eps=eps, momentum=momentum)

    def forward(self, rows: Tensor) -> Tensor:
        """(N, C_in) to (N, C_out)."""
        return F.relu(self.norm(self.linear(rows)))
