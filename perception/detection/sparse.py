"""Sparse convolutions: features at occupied sites of a 3D grid, and the two layers that work on them.

Who the neighbours of a site are is found once for each set of sites and kernel and kept with the tensor, for the layers that follow.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception.detection.row_limits import RowLimits
from perception.detection.sparse_backends import backend_of


@dataclass(frozen=True, eq=False, repr=False)
class SparseTensor:
    """Features at sites.

    features    (N, C)
    coords      (N, 4) int32  batch, z, y, x; each site once
    shape       cells along z, y, x
    batch_size  samples, those without a site included
    backend     "native", "spconv" or "dense", see `sparse_backends`
    tables      what has been found out about the sites: shared by all tensors of the same sites
    limits      how many rows results have, where nothing may wait for a count; rows with coords of -1 are then no sites
    """

    features: Tensor
    coords: Tensor
    shape: tuple[int, int, int]
    batch_size: int
    backend: str = "native"
    tables: dict[Any, Any] = field(default_factory=dict)
    limits: RowLimits | None = None

    def with_features(self, features: Tensor) -> "SparseTensor":
        """Other features at the same sites."""
        return replace(self, features=features)

    def dense(self) -> Tensor:
        """(B, C, Z, Y, X), zero where there is no site."""
        channels = self.features.shape[1]
        out = self.features.new_zeros((self.batch_size, *self.shape, channels))
        b, z, y, x = self.coords.long().unbind(dim=1)
        out = out.index_put((b, z, y, x), self.features)
        return out.permute(0, 4, 1, 2, 3)

    def birds_eye(self) -> Tensor:
        """(B, C * Z, Y, X) with channel c * Z + z; in memory the channels of a cell lie side by side."""
        (depth, height, width), channels = self.shape, self.features.shape[1]
        cells = self.batch_size * height * width
        out = self.features.new_zeros((cells + 1, channels, depth))  # the last one takes the rows that are no sites
        b, z, y, x = self.coords.long().unbind(dim=1)
        cell = torch.where(b >= 0, (b * height + y) * width + x, cells)
        out.transpose(1, 2).index_put_((cell, z.clamp(min=0)), self.features)
        return out[:cells].view(self.batch_size, height, width, channels * depth).permute(0, 3, 1, 2)

    def __repr__(self) -> str:
        return f"SparseTensor({len(self.coords)} sites of {self.batch_size} x {self.shape}, {self.features.shape[1]} channels)"


class _SparseConv(nn.Module):
    """weight (C_out, kz, ky, kx, C_in) and, where asked for, bias (C_out,)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int, int], *, bias: bool) -> None:
        super().__init__()
        self.kernel_size = (kernel_size, kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        self.weight = nn.Parameter(torch.empty(out_channels, *self.kernel_size, in_channels))
        self.bias: Tensor | None
        if bias:
            self.bias = nn.Parameter(torch.empty(out_channels))
        else:
            self.register_parameter("bias", None)
        bound = 1 / math.sqrt(in_channels * math.prod(self.kernel_size))
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    @property
    def out_channels(self) -> int:
        return len(self.weight)


def _autocast(
    features: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """All in the dtype that the operators multiply in: under autocast its own on a GPU, float32 on the CPU; else as they are."""
    kind = features.device.type
    if not torch.is_autocast_enabled(kind):
        return features, weight, bias, residual
    dtype = torch.get_autocast_dtype(kind) if kind == "cuda" else torch.float32
    bias, residual = (None if tensor is None else tensor.to(dtype) for tensor in (bias, residual))
    return features.to(dtype), weight.to(dtype), bias, residual


class SubMConv3d(_SparseConv):
    """Outputs at the sites of the inputs only (submanifold); the kernel is odd and centred."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int, int] = 3, *, bias: bool = False) -> None:
        super().__init__(in_channels, out_channels, kernel_size, bias=bias)

    def forward(self, x: SparseTensor, *, residual: Tensor | None = None, relu: bool = False) -> SparseTensor:
        """residual (N, C_out) is added after the bias; then, with `relu`, negative numbers become 0."""
        features, weight, bias, residual = _autocast(x.features, self.weight, self.bias, residual)
        return x.with_features(backend_of(x).submanifold(x.with_features(features), weight, bias, residual, relu))


class SparseConv3d(_SparseConv):
    """An output wherever the kernel touches an input. Outputs come by batch, z, y, x.

    stride, padding  along z, y, x, or one number for all three
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int, int] = 3,
        stride: int | tuple[int, int, int] = 1,
        padding: int | tuple[int, int, int] = 0,
        *,
        bias: bool = False,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, bias=bias)
        self.stride = (stride, stride, stride) if isinstance(stride, int) else stride
        self.padding = (padding, padding, padding) if isinstance(padding, int) else padding

    def forward(self, x: SparseTensor, *, residual: Tensor | None = None, relu: bool = False) -> SparseTensor:
        """As `SubMConv3d.forward`."""
        features, weight, bias, residual = _autocast(x.features, self.weight, self.bias, residual)
        x = x.with_features(features)
        features, coords, shape = backend_of(x).strided(x, weight, bias, self.stride, self.padding, residual, relu)
        return SparseTensor(features, coords, shape, x.batch_size, x.backend, limits=x.limits)


class SparseConvNormRelu(nn.Module):
    """A sparse convolution, batch normalisation over the sites, and ReLU; `fold` (see `perception.detection.fold`) makes them one step."""

    def __init__(self, conv: SubMConv3d | SparseConv3d, *, momentum: float = 0.01) -> None:
        super().__init__()
        self.conv = conv
        self.norm: nn.Module = nn.BatchNorm1d(conv.out_channels, eps=1e-3, momentum=momentum)

    def forward(self, x: SparseTensor, residual: Tensor | None = None) -> SparseTensor:
        """residual (N, C_out) is added before the ReLU."""
        if isinstance(self.norm, nn.Identity):
            return self.conv(x, residual=residual, relu=True)
        x = self.conv(x)
        features = self.norm(x.features)
        return x.with_features(F.relu(features if residual is None else features + residual))
