"""A trained network made ready to detect: folded, laid out for speed, its head lazy."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from perception.detection.center_point import CenterPoint
from perception.detection.clock import StageClock
from perception.detection.decode import Boxes, Decoder, decoded
from perception.detection.encoders import PillarScatter
from perception.detection.flip import NUM_VIEWS, merged_boxes, mirrored
from perception.detection.fold import folded
from perception.detection.lazy_head import LazyHead
from perception.detection.neck import Neck
from perception.detection.pillar_readers import PillarReader
from perception.detection.pillar_stem import PillarStem
from perception.detection.readers import MeanReader
from perception.detection.row_limits import RowLimits
from perception.detection.second_stage import refined
from perception.detection.voxels import VoxelFeatures


class InferenceNetwork:
    """Points to boxes, in the network's frame.

    network       trained; it is copied
    double_flip   see `perception.detection.flip`
    second_reads  the map that the second stage reads: "head" or "neck"
    dtype         of all but the reader and the boxes, which are float32
    """

    def __init__(
        self,
        network: CenterPoint,
        decoder: Decoder,
        *,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        double_flip: bool = False,
        second_reads: str = "head",
    ) -> None:
        network = folded(network).to(device).requires_grad_(False)
        self.reader = network.reader
        self.encoder, self.neck, self.head = network.encoder.to(dtype), network.neck.to(dtype), network.head.to(dtype)
        if isinstance(self.encoder, PillarScatter) and isinstance(self.neck, Neck):
            first, *others = self.neck.stages[0].children()
            self.encoder, self.neck.stages[0] = PillarStem(self.encoder, first), nn.Sequential(*others)  # type: ignore[arg-type]
        self.lazy_head = LazyHead(self.head).to(device)
        # Channels side by side are quicker everywhere but in float32 on a GPU, where one convolution of 512 channels takes 400 times as long.
        is_slow = device.type == "cuda" and dtype == torch.float32
        self._layout = torch.contiguous_format if is_slow else torch.channels_last
        for part in (self.neck, self.head, self.lazy_head):
            for layer in part.modules():
                if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                    layer.to(memory_format=self._layout)  # type: ignore[call-overload]
        self.second_stage = None if network.second_stage is None else network.second_stage.to(dtype)
        self.decoder, self.double_flip, self.second_reads = decoder, double_flip, second_reads
        self.device, self.dtype = device, dtype

    @torch.inference_mode()
    def __call__(self, clouds: Sequence[Tensor], clock: StageClock) -> list[Boxes]:
        """clouds: one (N, columns) float32 a sample on the network's device."""
        with exact(self.device):
            return self._boxes(clouds, clock)

    def _boxes(self, clouds: Sequence[Tensor], clock: StageClock) -> list[Boxes]:
        with clock.stage("voxelize"):
            views = mirrored(clouds) if self.double_flip else clouds
            voxels = self.reader.voxelize(views, self._view_limits(len(clouds)))
        with clock.stage("reader"):
            features = self.in_dtype(self.reader(voxels))
        with clock.stage("encoder"):
            bev = self.birds_eye(features)
        with clock.stage("neck"):
            neck = self.neck(bev)
        boxes, shared = self._flipped(neck, clock) if self.double_flip else self._plain(neck, clock)
        if self.second_stage is not None:
            with clock.stage("second"):
                read = shared if self.second_reads == "head" else neck[::NUM_VIEWS] if self.double_flip else neck
                boxes = refined(self.second_stage, read, boxes, self.decoder.grid)
        return boxes

    def birds_eye(self, features: VoxelFeatures, *limits: RowLimits) -> Tensor:
        """The encoder's map (B, C, H, W), laid out for the convolutions behind it."""
        return self.encoder(features, *limits).contiguous(memory_format=self._layout)

    def in_dtype(self, features: VoxelFeatures) -> VoxelFeatures:
        """A reader's features in the dtype of the encoder."""
        return features._replace(features=features.features.to(self.dtype))

    def _plain(self, neck: Tensor, clock: StageClock) -> tuple[list[Boxes], Tensor]:
        with clock.stage("head"):
            shared, logits = self.lazy_head.heatmaps(neck)
        with clock.stage("boxes"):

            def rows(task: int, sample: int, cells: Tensor) -> Tensor:
                branches = self.lazy_head.branches(shared, task, sample, cells)
                return decoded(branches, cells, shared.shape[3], self.decoder.grid, has_iou=self.lazy_head.has_iou)

            return self.decoder.from_scores([task.float().sigmoid() for task in logits], rows), shared

    def _flipped(self, neck: Tensor, clock: StageClock) -> tuple[list[Boxes], Tensor]:
        with clock.stage("head"):
            maps = self.head(neck)
        with clock.stage("boxes"):
            return merged_boxes(self.decoder, maps), maps.shared[::NUM_VIEWS]

    def _view_limits(self, samples: int) -> list[int] | None:
        """Limits of voxels of the four views: the mirrored ones have that of training, as published."""
        if not (self.double_flip and isinstance(self.reader, MeanReader | PillarReader)):
            return None
        limit = self.reader.limit
        return [limit.max_voxels, *[limit.max_voxels_training] * (NUM_VIEWS - 1)] * samples


def exact(device: torch.device, *, benchmark: bool = False) -> AbstractContextManager[None]:
    """On a GPU: convolutions of float32 in float32, not in tf32 (torch's default there), and the same bits in every run.

    benchmark  let cuDNN try its ways and take the quickest: the same bits within a process, perhaps others in the next
    """
    if device.type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, benchmark=benchmark, deterministic=True, allow_tf32=False)
