"""From pillars to a bird's-eye map by sparse 2D convolutions: fine pillars cost nothing where there are none.

Sources: PillarNet and PillarNeXt (sparse 2D networks on pillars in front of a dense neck). The layers are those of
`perception.detection.sparse` on a grid of one layer.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from perception.detection.sparse import SparseConv3d, SparseConvNormRelu, SparseTensor, SubMConv3d
from perception.detection.voxels import VoxelFeatures

_KERNEL, _STEP, _MARGIN = (1, 3, 3), (1, 2, 2), (0, 1, 1)  # along z, y, x
_MOMENTUM = 0.05  # of the normalisations


class SparsePillarEncoder(nn.Module):
    """Stages of sparse convolutions, each but the first on a map half as wide; the last one's features at their places on a map of zeros.

    in_channels  features of a pillar
    map_shape    pillars along y, x
    channels     per stage
    layers       per stage, submanifold convolutions after its first one, the input led around each
    backend      see `sparse_backends`
    stride       of the result, in pillars
    """

    def __init__(
        self, in_channels: int, map_shape: tuple[int, int], channels: Sequence[int], layers: Sequence[int], *, backend: str = "native"
    ) -> None:
        super().__init__()
        self.map_shape, self.backend, self.out_channels, self.stride = map_shape, backend, channels[-1], 2 ** (len(channels) - 1)
        ins = [in_channels, *channels[:-1]]
        stages = enumerate(zip(ins, channels, layers, strict=True))
        self.stages = nn.ModuleList(_stage(c_in, c_out, count, is_first=number == 0) for number, (c_in, c_out, count) in stages)

    def forward(self, pillars: VoxelFeatures) -> Tensor:
        """(B, C, H / stride, W / stride); in memory the channels of a cell lie side by side."""
        x = SparseTensor(pillars.features, pillars.coords, (1, *self.map_shape), pillars.batch_size, self.backend)
        for first, *others in map(nn.Module.children, self.stages):
            x = first(x)
            for layer in others:
                x = layer(x, residual=x.features)
        return x.birds_eye()


def _stage(c_in: int, c_out: int, count: int, *, is_first: bool) -> nn.Sequential:
    first = SubMConv3d(c_in, c_out, _KERNEL) if is_first else SparseConv3d(c_in, c_out, _KERNEL, _STEP, _MARGIN)
    others = [SubMConv3d(c_out, c_out, _KERNEL) for _ in range(count)]
    return nn.Sequential(*(SparseConvNormRelu(conv, momentum=_MOMENTUM) for conv in [first, *others]))
