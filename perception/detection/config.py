"""Settings of a detector: everything that a network needs to be built and its maps to be read. `perception.detection.build` uses them."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Discriminator, Field, Tag, model_validator

from perception.core.config import load_config, shipped_config

Finite = Annotated[float, Field(ge=-1e6, le=1e6)]
Metres = Annotated[float, Field(gt=0, le=1e4)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]
Channels = Annotated[int, Field(ge=1, le=4096)]
Triple = tuple[Finite, Finite, Finite]
IOU_ALPHA = 0.5  # of classes that `decode.iou_alpha` does not name


class GridSettings(BaseModel, frozen=True, extra="forbid"):
    """The range that the network looks at, in its frame, and its voxels: metres along x, y, z."""

    lower: Triple
    upper: Triple
    voxel_size: tuple[Metres, Metres, Metres]


class HardSettings(BaseModel, frozen=True, extra="forbid"):
    """Limits of a reader that keeps the first points of a voxel and the first voxels of a sample."""

    max_points: Annotated[int, Field(ge=1, le=1000)]
    max_voxels: Count = Field(description="of a sample")
    max_voxels_training: Count = Field(description="of a sample; the flipped views of `double_flip` have this limit too, as published")


class MeanReaderSettings(BaseModel, frozen=True, extra="forbid"):
    """The mean of a voxel's first points."""

    name: Literal["mean"]
    limit: HardSettings


class DynamicMeanReaderSettings(BaseModel, frozen=True, extra="forbid"):
    """The mean of all points of a voxel; with `virtual` of real and virtual points each."""

    name: Literal["dynamic_mean"]
    virtual: bool = False


class PillarReaderSettings(BaseModel, frozen=True, extra="forbid"):
    """A small network on a pillar's first points."""

    name: Literal["pillar"]
    channels: Annotated[tuple[Channels, ...], Field(min_length=1, max_length=4)]
    limit: HardSettings
    virtual: bool = Field(False, description="points carry the columns of virtual points (MVP): 16 instead of 5")
    z_offset: bool = Field(False, description="the offset from the middle of the pillar has z beside x and y, as in mmdetection3d")


class DynamicPillarReaderSettings(BaseModel, frozen=True, extra="forbid"):
    """A small network on all points of a pillar, as OpenPCDet has it."""

    name: Literal["dynamic_pillar"]
    channels: Annotated[tuple[Channels, ...], Field(min_length=1, max_length=4)]


class HeightBandsSettings(BaseModel, frozen=True, extra="forbid"):
    """Bands of height in which the points of a pillar are counted: a stem below a crown is no person. Metres, the network's frame."""

    lower: Finite
    upper: Finite
    count: Annotated[int, Field(ge=1, le=64)]

    @model_validator(mode="after")
    def _in_order(self) -> "HeightBandsSettings":
        if self.lower >= self.upper:
            raise ValueError(f"upper: expected a height above lower, {self.lower:g}, got {self.upper:g}")
        return self


class PillarSummaryReaderSettings(BaseModel, frozen=True, extra="forbid"):
    """Statistics of all points of a pillar and how far they reach in learned directions, then one layer: cheap, see `pillar_summary`."""

    name: Literal["pillar_summary"]
    channels: Channels
    directions: Annotated[int, Field(ge=2, le=256, multiple_of=2)] = Field(16, description="an even number: pairs of opposites")
    bands: HeightBandsSettings
    virtual: bool = Field(False, description="points carry the columns of virtual points (MVP), 16 instead of 5: more statistics")


ReaderSettings = (
    MeanReaderSettings | DynamicMeanReaderSettings | PillarReaderSettings | DynamicPillarReaderSettings | PillarSummaryReaderSettings
)


class SparsePillarSettings(BaseModel, frozen=True, extra="forbid"):
    """Sparse 2D convolutions on pillars; one entry a stage, and each stage but the first halves the map."""

    name: Literal["sparse_pillar"]
    channels: Annotated[tuple[Channels, ...], Field(min_length=1, max_length=6)]
    layers: tuple[Annotated[int, Field(ge=0, le=50)], ...] = Field(description="submanifold convolutions after the stage's first one")

    @model_validator(mode="after")
    def _one_entry_a_stage(self) -> "SparsePillarSettings":
        _expect_equal_lengths(self, "channels", "layers")
        return self

    @property
    def stride(self) -> int:
        """Pillars along x and y in one cell of the encoder's map."""
        return 2 ** (len(self.channels) - 1)


class NeckSettings(BaseModel, frozen=True, extra="forbid"):
    """The 2D network; one entry a stage."""

    layers: tuple[Annotated[int, Field(ge=0, le=50)], ...] = Field(description="convolutions after the stage's first one")
    strides: tuple[Literal[1, 2], ...] = Field(description="of the stage's first convolution")
    channels: tuple[Channels, ...]
    up_strides: tuple[float, ...] = Field(description="by which the stage's output is enlarged: 0.25, 0.5, 1, 2 or 4")
    up_channels: tuple[Channels, ...]

    @model_validator(mode="after")
    def _one_entry_a_stage(self) -> "NeckSettings":
        _expect_equal_lengths(self, *type(self).model_fields)
        if not set(self.up_strides) <= {0.25, 0.5, 1, 2, 4}:
            raise ValueError(f"up_strides: expected 0.25, 0.5, 1, 2 or 4, got {self.up_strides}")
        down, sizes = 1.0, []
        for stride, up in zip(self.strides, self.up_strides, strict=True):
            down *= stride
            sizes.append(down / up)
        if len(set(sizes)) != 1:
            raise ValueError(f"up_strides: expected outputs of one size, got strides {sizes} of the stages' outputs; change up_strides")
        return self


class PyramidSettings(BaseModel, frozen=True, extra="forbid"):
    """A neck whose stages halve the map, and a way back to the size of its input; one entry a stage."""

    name: Literal["pyramid"]
    channels: Annotated[tuple[Channels, ...], Field(max_length=6)]
    layers: tuple[Annotated[int, Field(ge=0, le=50)], ...] = Field(description="convolutions after the stage's first one, which halves")
    up_channels: tuple[Channels, ...] = Field(description="on the way back: of the result, of the map half as wide, and so on")

    @model_validator(mode="after")
    def _one_entry_a_stage(self) -> "PyramidSettings":
        _expect_equal_lengths(self, "channels", "layers", "up_channels")
        return self


class DeformableSettings(BaseModel, frozen=True, extra="forbid"):
    """Deformable convolutions in front of the branches (DCN). Defaults are det3d's; mmdetection3d's are 4, 1, 3 and false."""

    groups: Annotated[int, Field(ge=1, le=64)] = Field(1, description="parts of the channels that the convolution keeps apart")
    offset_groups: Annotated[int, Field(ge=1, le=64)] = Field(4, description="parts of the channels with offsets of their own")
    offset_kernel: Literal[1, 3] = Field(1, description="size of the convolution that says the offsets")
    relu: bool = Field(True, description="whether a ReLU comes behind them")


class HeadSettings(BaseModel, frozen=True, extra="forbid"):
    """Tasks, each a list of classes that compete in non-maximum suppression; labels count through all of them."""

    tasks: Annotated[tuple[Annotated[tuple[str, ...], Field(min_length=1)], ...], Field(min_length=1, max_length=100)]
    shared_channels: Channels = 64
    branch_channels: Channels = 64
    velocity: bool = True
    iou: bool = Field(False, description="a branch that says how well the box fits; it corrects the score, see decode.iou_alpha")
    deformable: DeformableSettings | None = None

    @model_validator(mode="after")
    def _groups_fit(self) -> "HeadSettings":
        if self.deformable is not None:
            for name in ("groups", "offset_groups"):
                if self.shared_channels % (count := getattr(self.deformable, name)):
                    raise ValueError(f"deformable.{name}: expected a divisor of shared_channels, {self.shared_channels}, got {count}")
        return self

    @model_validator(mode="after")
    def _different_classes(self) -> "HeadSettings":
        names = [name for task in self.tasks for name in task]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"tasks: expected each class once, got {', '.join(repeated)} twice")
        return self


class RotatedNmsSettings(BaseModel, frozen=True, extra="forbid"):
    """Overlap of boxes seen from above."""

    name: Literal["rotated"]
    iou_threshold: Annotated[float, Field(ge=0, le=1)] = 0.2
    max_in: Count = Field(1000, description="boxes of a task, or of each of its groups, that take part, the best")
    max_out: Count = Field(83, description="boxes of a task that are kept, the best")


class CircleNmsSettings(BaseModel, frozen=True, extra="forbid"):
    """Distance of centres."""

    name: Literal["circle"]
    squared_radius: tuple[Metres, ...] = Field(description="square metres, one a task (det3d's and mmdetection3d's `min_radius`)")
    max_out: Count = Field(83, description="boxes of a task that are kept, the best")


class DecodeSettings(BaseModel, frozen=True, extra="forbid"):
    """From maps to boxes."""

    score_threshold: Annotated[float, Field(ge=0, lt=1)] = 0.1
    center_lower: Triple = Field(description="metres x y z, the network's frame: limits of the middle of a box")
    center_upper: Triple
    nms: Annotated[
        Annotated[RotatedNmsSettings, Tag("rotated")] | Annotated[CircleNmsSettings, Tag("circle")], Discriminator(lambda v: _name(v))
    ]
    iou_alpha: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(
        {}, description=f"with head.iou, by class, {IOU_ALPHA} where it is not named: a score becomes score^(1 - alpha) * IoU^alpha"
    )
    groups: tuple[tuple[str, ...], ...] | None = Field(
        None,
        description="classes of which only the best counts at a place, and whose boxes suppress each other; each class in one of them, all"
        " of a group in one task. Without it a task is one group",
    )
    double_flip: bool = Field(False, description="detect in four mirrored views and average the maps: better and four times slower")


class SecondStageSettings(BaseModel, frozen=True, extra="forbid"):
    """Scores and boxes once more, from features at five points of each box."""

    shared: tuple[Channels, Channels] = (256, 256)
    score: tuple[Channels, Channels] = (256, 256)
    box: tuple[Channels, Channels] = (256, 256)
    features: Literal["head", "neck"] = Field("head", description="the map that is read: the head's shared one, or the neck's output")
    with_box: bool = Field(True, description="the box and its score are features too")


def _expect_equal_lengths(settings: BaseModel, *names: str) -> None:
    lengths = {name: len(getattr(settings, name)) for name in names}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise ValueError(f"expected one entry a stage in each list, at least one, got {lengths}")


def _name(value: Any) -> str:
    return str(value.get("name")) if isinstance(value, dict) else str(getattr(value, "name", None))


def _neck_name(value: Any) -> str:
    """A neck without a name is the published one, whose files have none."""
    name = _name(value)
    return "stacked" if name == "None" else name


class CenterPointSettings(BaseModel, frozen=True, extra="forbid"):
    """CenterPoint: objects as points."""

    name: Literal["centerpoint"]
    frame: Literal["nuscenes_lidar", "ego"] = Field(description="in which the network was trained, see `perception.detection.frames`")
    sweeps: Annotated[int, Field(ge=1, le=100)] = Field(10, description="sweeps of the lidar in one cloud, the key sweep included")
    window: Metres | None = Field(
        None,
        description="seconds of sweeps in a cloud: older ones are left out whatever the lidar's rate, and none comes again where there are"
        " fewer. Without it the oldest one comes again until there are `sweeps`, as the published networks saw it",
    )
    points: Literal["nuscenes", "waymo"] = Field(
        "nuscenes", description="columns behind x y z: intensity as recorded and age (s), or (waymo) tanh of the intensity and elongation"
    )
    grid: GridSettings
    reader: Annotated[
        Annotated[MeanReaderSettings, Tag("mean")]
        | Annotated[DynamicMeanReaderSettings, Tag("dynamic_mean")]
        | Annotated[PillarReaderSettings, Tag("pillar")]
        | Annotated[DynamicPillarReaderSettings, Tag("dynamic_pillar")]
        | Annotated[PillarSummaryReaderSettings, Tag("pillar_summary")],
        Discriminator(_name),
    ]
    encoder_channels: tuple[Channels, Channels, Channels, Channels] | None = Field(
        None, description="of the sparse encoder's four stages; none with pillars"
    )
    encoder: SparsePillarSettings | None = Field(None, description="between pillars and neck; None: pillars are put on the map as they are")
    neck: Annotated[Annotated[NeckSettings, Tag("stacked")] | Annotated[PyramidSettings, Tag("pyramid")], Discriminator(_neck_name)]
    head: HeadSettings
    decode: DecodeSettings
    second_stage: SecondStageSettings | None = None

    @model_validator(mode="after")
    def _parts_fit(self) -> "CenterPointSettings":
        is_pillar = isinstance(self.reader, PillarReaderSettings | DynamicPillarReaderSettings | PillarSummaryReaderSettings)
        if is_pillar != (self.encoder_channels is None):
            expected = "no encoder_channels with pillars" if is_pillar else "encoder_channels with a reader of voxels"
            raise ValueError(f"encoder_channels: expected {expected}, got {self.encoder_channels}")
        if self.encoder is not None and not is_pillar:
            raise ValueError(f"encoder: expected none with a reader of voxels, they have encoder_channels; got {self.encoder.name}")
        if isinstance(self.reader, PillarSummaryReaderSettings) and self.points != "nuscenes":
            raise ValueError(
                f"points: expected nuscenes with the reader pillar_summary, which looks at intensity and age, got {self.points}"
            )
        names = [name for task in self.head.tasks for name in task]
        if unknown := [name for name in self.decode.iou_alpha if name not in names]:
            raise ValueError(f"decode.iou_alpha: expected classes of head.tasks, {', '.join(names)}, got {', '.join(unknown)}")
        if self.decode.iou_alpha and not self.head.iou:
            raise ValueError("decode.iou_alpha: expected head.iou: true beside it, got false: without that branch it does nothing")
        if self.decode.groups is not None:
            _expect_groups(self.decode.groups, self.head.tasks)
        if self.decode.double_flip and any(-self.grid.lower[k] != self.grid.upper[k] for k in (0, 1)):
            lower, upper = self.grid.lower[:2], self.grid.upper[:2]
            raise ValueError(f"decode.double_flip: expected a grid that mirroring leaves in place, lower = -upper, got {lower} to {upper}")
        nms = self.decode.nms
        if isinstance(nms, CircleNmsSettings) and len(nms.squared_radius) != len(self.head.tasks):
            raise ValueError(f"decode.nms.squared_radius: expected one a task, {len(self.head.tasks)}, got {len(nms.squared_radius)}")
        return self


def _expect_groups(groups: tuple[tuple[str, ...], ...], tasks: tuple[tuple[str, ...], ...]) -> None:
    names, grouped = sorted(name for task in tasks for name in task), sorted(name for group in groups for name in group)
    if grouped != names:
        raise ValueError(f"decode.groups: expected each class of head.tasks once, {', '.join(names)}, got {', '.join(grouped)}")
    for group in groups:
        if not any(group and set(group) <= set(task) for task in tasks):
            raise ValueError(f"decode.groups: expected each to have classes of one task of head.tasks, got [{', '.join(group)}]")


class DetectorConfig(BaseModel, frozen=True, extra="forbid"):
    """A detector's file: `detector:` and under it the settings of one detector."""

    detector: CenterPointSettings


def load_detector_config(path: Path | str) -> DetectorConfig:
    """The settings in a YAML file, or in the one of this name that comes with the package ("centerpoint_pillar02").

    Raises UsageError for a missing or broken file and for every key that does not fit.
    """
    return load_config(_file_of(path), DetectorConfig)


def weights_beside(config: Path | str) -> Path | None:
    """The weights that come with settings: `compact.safetensors` beside `compact.yaml`; None where there is no such file.

    config  as `load_detector_config` takes it
    """
    weights = _file_of(config).with_suffix(".safetensors")
    return weights if weights.is_file() else None


def _file_of(config: Path | str) -> Path:
    """The YAML file that a path or name stands for; it need not be there."""
    path = Path(config)
    if not path.suffix and not path.exists():
        shipped = shipped_config(f"{path}.yaml")
        return shipped if shipped.is_file() else path
    return path
