"""The neck: a 2D network over the bird's-eye view, at two or three scales. Source: SECOND's region proposal network, as in CenterPoint."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from perception.detection.layers import ConvNormRelu

_NORM = {"eps": 1e-3, "momentum": 0.01}


class Neck(nn.Module):
    """Stages that halve the map one after another; each is brought to one size, and all are stacked.

    in_channels   of the bird's-eye view
    layers        per stage, convolutions after its first one
    strides       per stage, of its first convolution
    channels      per stage
    up_strides    per stage: above 1 a transposed convolution enlarges by it, 1 leaves the size, 1/2 halves it
    up_channels   per stage
    """

    def __init__(
        self,
        in_channels: int,
        *,
        layers: Sequence[int],
        strides: Sequence[int],
        channels: Sequence[int],
        up_strides: Sequence[float],
        up_channels: Sequence[int],
    ) -> None:
        super().__init__()
        ins = [in_channels, *channels[:-1]]
        stages = zip(ins, channels, layers, strides, strict=True)
        self.stages = nn.ModuleList(_stage(c_in, c_out, count, stride) for c_in, c_out, count, stride in stages)
        self.ups = nn.ModuleList(_up(c_in, c_out, s) for c_in, c_out, s in zip(channels, up_channels, up_strides, strict=True))
        self.out_channels = sum(up_channels)

    def forward(self, bev: Tensor) -> Tensor:
        """(B, C, H, W) to (B, sum of up_channels, H', W')."""
        outputs = []
        for stage, up in zip(self.stages, self.ups, strict=True):
            bev = stage(bev)
            outputs.append(up(bev))
        return torch.cat(outputs, dim=1)


def _stage(c_in: int, c_out: int, count: int, stride: int) -> nn.Sequential:
    first = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)
    others = [nn.Conv2d(c_out, c_out, 3, padding=1, bias=False) for _ in range(count)]
    return nn.Sequential(*(ConvNormRelu(conv, **_NORM) for conv in [first, *others]))


def _up(c_in: int, c_out: int, stride: float) -> ConvNormRelu:
    if stride > 1:
        step = round(stride)
        return ConvNormRelu(nn.ConvTranspose2d(c_in, c_out, step, step, bias=False), **_NORM)
    step = round(1 / stride)
    return ConvNormRelu(nn.Conv2d(c_in, c_out, step, step, bias=False), **_NORM)
