"""From features of voxels to a bird's-eye map: pillars are put where they stand, voxels go through a sparse network.

Source of the network: SECOND's `SpMiddleResNetFHD` in CenterPoint.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from perception.detection.grid import convolved_depth
from perception.detection.row_limits import RowLimits
from perception.detection.sparse import SparseConv3d, SparseConvNormRelu, SparseTensor, SubMConv3d
from perception.detection.voxels import VoxelFeatures

# Strided convolutions along z: (kernel, stride, padding) of the second, third and fourth stage and of the last layer.
_DEPTH_STEPS = ((3, 2, 1), (3, 2, 1), (3, 2, 0), (3, 2, 0))


class PillarScatter(nn.Module):
    """Each pillar's features at its place on a map of zeros."""

    stride = 1

    def __init__(self, in_channels: int, map_shape: tuple[int, int]) -> None:
        super().__init__()
        self.map_shape, self.out_channels = map_shape, in_channels

    def forward(self, pillars: VoxelFeatures) -> Tensor:
        """(B, C, H, W); in memory the channels of a cell lie side by side. Rows with coords of -1 are left out."""
        features, (height, width) = pillars.features, self.map_shape
        b, _, y, x = pillars.coords.long().unbind(dim=1)
        cells = pillars.batch_size * height * width
        canvas = features.new_zeros((cells + 1, features.shape[1]))  # the last one takes what is left out
        canvas = canvas.index_copy(0, torch.where(b >= 0, (b * height + y) * width + x, cells), features)
        return canvas[:cells].view(pillars.batch_size, height, width, -1).permute(0, 3, 1, 2)


class ResidualBlock(nn.Module):
    """Two submanifold convolutions around which the input is led. Their bias before a normalisation is the published network's."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = SparseConvNormRelu(SubMConv3d(channels, channels, bias=True))
        self.second = SparseConvNormRelu(SubMConv3d(channels, channels, bias=True))

    def forward(self, x: SparseTensor) -> SparseTensor:
        return self.second(self.first(x), residual=x.features)


class SparseStage(nn.Module):
    """A strided convolution (the first stage has none) and two residual blocks."""

    def __init__(self, channels: int, down: SparseConv3d | None) -> None:
        super().__init__()
        self.down = None if down is None else SparseConvNormRelu(down)
        self.blocks = nn.ModuleList(ResidualBlock(channels) for _ in range(2))

    def forward(self, x: SparseTensor) -> SparseTensor:
        x = x if self.down is None else self.down(x)
        for block in self.blocks:
            x = block(x)
        return x


class SparseEncoder(nn.Module):
    """Four stages, each half as wide as the one before, and a last convolution along z; what is left of z joins the channels.

    in_channels  features of a voxel
    shape        voxels along z, y, x; the network works on one layer more in z, as published
    channels     of the four stages
    backend      see `sparse_backends`
    """

    stride = 8

    def __init__(
        self, in_channels: int, shape: tuple[int, int, int], channels: Sequence[int] = (16, 32, 64, 128), *, backend: str = "native"
    ) -> None:
        super().__init__()
        self.shape, self.backend = (shape[0] + 1, shape[1], shape[2]), backend
        c1, c2, c3, c4 = channels
        self.stem = SparseConvNormRelu(SubMConv3d(in_channels, c1))
        downs = [SparseConv3d(c1, c2, 3, 2, 1), SparseConv3d(c2, c3, 3, 2, 1), SparseConv3d(c3, c4, 3, 2, (0, 1, 1))]
        self.stages = nn.ModuleList(SparseStage(c, down) for c, down in zip(channels, [None, *downs], strict=True))
        self.squeeze = SparseConvNormRelu(SparseConv3d(c4, c4, (3, 1, 1), (2, 1, 1)))
        self.out_channels = c4 * convolved_depth(self.shape[0], _DEPTH_STEPS)

    def forward(self, voxels: VoxelFeatures, limits: RowLimits | None = None) -> Tensor:
        """(B, C * depth, H, W), channel = c * depth + z. `limits`: see `SparseTensor`; by the native backend only."""
        voxels = voxels if voxels.features.is_cuda else _in_order(voxels, self.shape)  # a GPU hides the way to memory
        return self.sparse_stages(voxels, limits)[-1].birds_eye()

    def sparse_stages(self, voxels: VoxelFeatures, limits: RowLimits | None = None) -> list[SparseTensor]:
        """The four stages' outputs and that of the last convolution."""
        x = self.stem(SparseTensor(voxels.features, voxels.coords, self.shape, voxels.batch_size, self.backend, limits=limits))
        outputs = []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return [*outputs, self.squeeze(x)]


def _in_order(voxels: VoxelFeatures, shape: tuple[int, int, int]) -> VoxelFeatures:
    """The same voxels by batch, z, y, x: neighbours then lie near each other in memory, and their tables need no sorting of their own."""
    depth, height, width = shape
    narrow = voxels.batch_size * depth * height * width < 2**31
    b, z, y, x = voxels.coords.to(torch.int32 if narrow else torch.int64).unbind(dim=1)  # narrow numbers are sorted sooner
    order = (((b * depth + z) * height + y) * width + x).sort(stable=True).indices
    return voxels._replace(features=voxels.features.index_select(0, order), coords=voxels.coords.index_select(0, order))
