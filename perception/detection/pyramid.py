"""A neck that looks far at coarse scales and answers at the scale of its input. Source: feature pyramid networks (Lin et al. 2017)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from perception.detection.layers import ConvNormRelu

_NORM = {"eps": 1e-3, "momentum": 0.05}


class PyramidNeck(nn.Module):
    """Stages that halve the map one after another; from the coarsest one the way back, where each scale adds what it knows.

    in_channels  of the bird's-eye view
    channels     per stage; a stage begins with a convolution that halves the map
    layers       per stage, convolutions after its first one, the input led around each
    up_channels  on the way back, per scale from the input's own on: as many as there are stages
    """

    def __init__(self, in_channels: int, *, channels: Sequence[int], layers: Sequence[int], up_channels: Sequence[int]) -> None:
        super().__init__()
        ins = [in_channels, *channels[:-1]]  # also of what each scale adds on the way back
        above = [*up_channels[1:], channels[-1]]
        self.stages = nn.ModuleList(_stage(c_in, c_out, count) for c_in, c_out, count in zip(ins, channels, layers, strict=True))
        self.laterals = nn.ModuleList(_conv(c_in, c_out, 1) for c_in, c_out in zip(ins, up_channels, strict=True))
        self.ups = nn.ModuleList(
            ConvNormRelu(nn.ConvTranspose2d(c_in, c_out, 2, 2, bias=False), **_NORM) for c_in, c_out in zip(above, up_channels, strict=True)
        )
        self.out_channels = up_channels[0]

    def forward(self, bev: Tensor) -> Tensor:
        """(B, C, H, W) to (B, up_channels[0], H, W); H and W are multiples of 2 to the number of stages."""
        scales, x = [], bev
        for first, *others in map(nn.Module.children, self.stages):
            scales.append(x)
            x = first(x)
            for layer in others:
                x = _sum(layer(x), x)
        for scale, lateral, up in zip(reversed(scales), reversed(self.laterals), reversed(self.ups), strict=True):
            x = _sum(up(x), lateral(scale))
        return x


def _sum(fresh: Tensor, other: Tensor) -> Tensor:
    """Of a ReLU's output, which training needs as it is and nobody else does, and another map."""
    return fresh + other if torch.is_grad_enabled() else fresh.add_(other)


def _stage(c_in: int, c_out: int, count: int) -> nn.Sequential:
    return nn.Sequential(_conv(c_in, c_out, 3, 2), *(_conv(c_out, c_out, 3) for _ in range(count)))


def _conv(c_in: int, c_out: int, size: int, stride: int = 1) -> ConvNormRelu:
    return ConvNormRelu(nn.Conv2d(c_in, c_out, size, stride, padding=size // 2, bias=False), **_NORM)
