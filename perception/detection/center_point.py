"""The whole network: points in, maps of the head out, or boxes."""

from collections.abc import Sequence

from torch import Tensor, nn

from perception.detection.head import CenterHead, HeadMaps
from perception.detection.neck import Neck
from perception.detection.pyramid import PyramidNeck
from perception.detection.readers import Reader
from perception.detection.second_stage import SecondStage


class CenterPoint(nn.Module):
    """Reader, encoder, neck and head, one after another. It takes finished parts; `perception.detection.build` makes them from a config."""

    def __init__(
        self, reader: Reader, encoder: nn.Module, neck: Neck | PyramidNeck, head: CenterHead, second_stage: SecondStage | None = None
    ) -> None:
        super().__init__()
        self.reader, self.encoder, self.neck, self.head = reader, encoder, neck, head
        self.second_stage = second_stage

    def forward(self, clouds: Sequence[Tensor]) -> HeadMaps:
        """clouds: one (N, point_columns) float32 a sample, in the network's frame."""
        voxels = self.reader.voxelize(clouds)
        bev = self.encoder(self.reader(voxels))  # (B, C, H, W)
        return self.head(self.neck(bev))
