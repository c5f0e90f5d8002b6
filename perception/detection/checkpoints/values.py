"""What becomes of numbers whose meaning differs between code bases. All functions return new tensors; weight and bias share axis 0."""

from collections.abc import Callable

import torch
from torch import Tensor

Change = Callable[[Tensor], Tensor]


def size_from_lwh(value: Tensor) -> Tensor:
    """Channels log l, log w, log h to log w, log l, log h."""
    return value[torch.tensor([1, 0, 2])]


def heading_from_cos_sin(value: Tensor) -> Tensor:
    """Channels cos yaw, sin yaw (OpenPCDet) to sin r, cos r: with r = -yaw - pi/2 these are -cos yaw, -sin yaw."""
    return -value


def heading_from_sin_cos(value: Tensor) -> Tensor:
    """Channels sin yaw, cos yaw (mmdetection3d from 1.0 on) to sin r, cos r = -cos yaw, -sin yaw."""
    return -value[torch.tensor([1, 0])]


def linear_from_conv(value: Tensor) -> Tensor:
    """A convolution over one position (out, in, 1) as a linear layer (out, in)."""
    return value.squeeze(-1) if value.ndim == 3 and value.shape[2] == 1 else value


def conv_from_transposed(value: Tensor) -> Tensor:
    """A transposed convolution by 1 (in, out, 1, 1) as a convolution (out, in, 1, 1). Others stay: they are transposed in all code bases.

    The shape does not show it where both have the same number of channels: who calls this knows the code base.
    """
    return value.transpose(0, 1).contiguous() if value.ndim == 4 and value.shape[2:] == (1, 1) else value
