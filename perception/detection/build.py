"""From a config to a network: the one place that reads the settings."""

import math

from perception.detection.center_point import CenterPoint
from perception.detection.config import (
    IOU_ALPHA,
    CenterPointSettings,
    DynamicMeanReaderSettings,
    DynamicPillarReaderSettings,
    HardSettings,
    MeanReaderSettings,
    PillarSummaryReaderSettings,
    PyramidSettings,
    RotatedNmsSettings,
)
from perception.detection.decode import CircleNms, Decoder, RotatedNms
from perception.detection.encoders import PillarScatter, SparseEncoder
from perception.detection.grid import BevGrid, build_grid
from perception.detection.head import CenterHead
from perception.detection.neck import Neck
from perception.detection.pillar_readers import DynamicPillarReader, PillarReader
from perception.detection.pillar_summary import HeightBands, PillarSummaryReader
from perception.detection.pyramid import PyramidNeck
from perception.detection.readers import DynamicMeanReader, MeanReader, Reader, VirtualMeanReader, VoxelLimit
from perception.detection.second_stage import SecondStage
from perception.detection.sparse_pillars import SparsePillarEncoder

_SPARSE_STRIDE = 8


def build_network(settings: CenterPointSettings, *, backend: str = "native") -> CenterPoint:
    """The network with random weights, from torch's random state. `backend`: of sparse convolutions, see `sparse_backends`.

    Raises UsageError for a grid that does not fit.
    """
    grid, head = grid_of(settings), settings.head
    reader = _reader(settings, grid)
    encoder = _encoder(settings, reader.out_channels, grid, backend)
    neck_class = PyramidNeck if isinstance(settings.neck, PyramidSettings) else Neck
    neck = neck_class(encoder.out_channels, **settings.neck.model_dump(exclude={"name"}))  # the layer's own names and meaning
    classes = [len(task) for task in head.tasks]
    center_head = CenterHead(
        neck.out_channels,
        classes,
        shared_channels=head.shared_channels,
        branch_channels=head.branch_channels,
        velocity=head.velocity,
        iou=head.iou,
        deformable=None if head.deformable is None else head.deformable.model_dump(),
    )
    return CenterPoint(reader, encoder, neck, center_head, _second_stage(settings, neck))


def build_decoder(settings: CenterPointSettings) -> Decoder:
    """What turns the maps of `build_network`'s head into boxes."""
    decode = settings.decode
    if isinstance(decode.nms, RotatedNmsSettings):
        nms = RotatedNms(decode.nms.iou_threshold, decode.nms.max_in, decode.nms.max_out)
    else:
        nms = CircleNms(decode.nms.squared_radius, decode.nms.max_out)
    classes = tuple(len(task) for task in settings.head.tasks)
    alpha = tuple(decode.iou_alpha.get(name, IOU_ALPHA) for task in settings.head.tasks for name in task if settings.head.iou)
    groups = tuple(
        tuple(tuple(task.index(name) for name in group) for group in decode.groups if group[0] in task)
        for task in settings.head.tasks
        if decode.groups is not None
    )
    return Decoder(grid_of(settings), classes, nms, decode.score_threshold, decode.center_lower, decode.center_upper, alpha, groups)


def grid_of(settings: CenterPointSettings) -> BevGrid:
    """The grid of a network. Raises UsageError naming the number to change."""
    first = _SPARSE_STRIDE if settings.encoder_channels is not None else 1 if settings.encoder is None else settings.encoder.stride
    if isinstance(settings.neck, PyramidSettings):
        down, stride = first * 2 ** len(settings.neck.channels), first
    else:
        down = first * math.prod(settings.neck.strides)
        stride = round(down / settings.neck.up_strides[-1])
    grid = settings.grid
    layers = 1 if settings.encoder_channels is None else None
    return build_grid(grid.lower, grid.upper, grid.voxel_size, stride=stride, divisor=down, layers=layers)


def _reader(settings: CenterPointSettings, grid: BevGrid) -> Reader:
    reader = settings.reader
    if isinstance(reader, DynamicMeanReaderSettings):
        return VirtualMeanReader(grid.voxels) if reader.virtual else DynamicMeanReader(grid.voxels)
    if isinstance(reader, DynamicPillarReaderSettings):
        return DynamicPillarReader(grid.voxels, reader.channels)
    if isinstance(reader, PillarSummaryReaderSettings):
        bands = HeightBands(reader.bands.lower, reader.bands.upper, reader.bands.count)
        return PillarSummaryReader(grid.voxels, reader.channels, directions=reader.directions, bands=bands, virtual=reader.virtual)
    if isinstance(reader, MeanReaderSettings):
        return MeanReader(grid.voxels, _limit(reader.limit))
    columns = 16 if reader.virtual else 5
    kind = {"point_columns": columns, "virtual": reader.virtual, "z_offset": reader.z_offset}
    return PillarReader(grid.voxels, _limit(reader.limit), reader.channels, **kind)


def _encoder(
    settings: CenterPointSettings, channels: int, grid: BevGrid, backend: str
) -> PillarScatter | SparsePillarEncoder | SparseEncoder:
    if settings.encoder_channels is not None:
        return SparseEncoder(channels, grid.voxels.shape, settings.encoder_channels, backend=backend)
    encoder, map_shape = settings.encoder, grid.voxels.shape[1:]
    if encoder is None:
        return PillarScatter(channels, map_shape)
    return SparsePillarEncoder(channels, map_shape, encoder.channels, encoder.layers, backend=backend)


def _limit(limit: HardSettings) -> VoxelLimit:
    return VoxelLimit(limit.max_points, limit.max_voxels_training, limit.max_voxels)


def _second_stage(settings: CenterPointSettings, neck: Neck | PyramidNeck) -> SecondStage | None:
    stage = settings.second_stage
    if stage is None:
        return None
    channels = neck.out_channels if stage.features == "neck" else settings.head.shared_channels
    options = {"shared": stage.shared, "score": stage.score, "box": stage.box, "with_box": stage.with_box}
    return SecondStage(channels, velocity=settings.head.velocity, **options)
