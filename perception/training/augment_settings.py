"""Settings of the augmentation: how samples are changed before a network sees them. Everything is off unless asked for."""

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, BaseModel, Field


def _in_order(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"expected the lower number first, got {list(pair)}")
    return pair


Share = Annotated[float, Field(ge=0, le=1)]
Shares = Annotated[tuple[Share, Share], AfterValidator(_in_order)]
Metres = Annotated[float, Field(ge=0, le=1000)]
Factor = Annotated[float, Field(ge=0.1, le=10)]
Factors = Annotated[tuple[Factor, Factor], AfterValidator(_in_order)]
Spacing = Annotated[float, Field(ge=1e-3, le=0.2)]
Angle = Annotated[float, Field(ge=0, le=np.pi)]
Every = Annotated[int, Field(ge=1, le=16)]
NumSweeps = Annotated[int, Field(ge=1, le=100)]


class BankSettings(BaseModel, frozen=True, extra="forbid"):
    """Objects of other scenes, pasted where they were recorded (ground-truth sampling)."""

    file: Path = Field(description="of `perception object-bank`")
    counts: dict[str, Annotated[int, Field(ge=0, le=500)]] = Field(
        description="class -> objects that a sample shall have in the end; as published: car 2, truck 3, construction_vehicle 7, bus 4, "
        "trailer 6, barrier 2, motorcycle 6, bicycle 6, pedestrian 2, traffic_cone 2"
    )
    rate: Share = Field(1.0, description="share of the missing objects that is pasted")
    min_points: Annotated[int, Field(ge=1)] = Field(5, description="objects with fewer points, all sweeps counted, are not used")
    fade_from: Share = Field(1.0, description="share of the training from which on nothing is pasted; 0.75: not in the last quarter")
    clear_inside: bool = Field(False, description="take the scene's own points out of the pasted boxes")


class SweepSettings(BaseModel, frozen=True, extra="forbid"):
    """Clouds of fewer sweeps: the youngest ones are kept."""

    count: Annotated[tuple[NumSweeps, NumSweeps], AfterValidator(_in_order)] = Field(
        (1, 10), description="sweeps that are kept, each number as often as any other, the key sweep included"
    )
    key_only: Share = Field(0.0, description="share of the samples that keep the key sweep only, whatever `count` says")
    velocity_from: Annotated[int, Field(ge=0, le=100)] = Field(
        3, description="sweeps, below which the velocity of all boxes becomes unknown (NaN); 0: it stays"
    )


class BeamSettings(BaseModel, frozen=True, extra="forbid"):
    """Whole beams lost, as of a lidar with fewer or irregular ones.

    Beams are bins of elevation seen from where the lidar is at the key sweep; older sweeps are binned from there too.
    """

    chance: Share = Field(description="share of the samples that are changed")
    regular: Share = Field(0.5, description="share of these that keep one beam in so many; the others lose beams at random")
    spacing: Annotated[tuple[Spacing, Spacing], AfterValidator(_in_order)] = Field(
        (0.007, 0.0233), description="radians from beam to beam; 64 beams of KITTI's lidar 0.007, 32 of nuScenes' 0.0233"
    )
    keep_every: Annotated[tuple[Every, Every], AfterValidator(_in_order)] = Field((2, 3), description="one beam in so many")
    lost: Shares = Field((0.1, 0.5), description="share of the beams that is lost at random")


class PointDropSettings(BaseModel, frozen=True, extra="forbid"):
    """Single points lost, farther ones more: the share changes evenly from the lidar to `distance` metres."""

    chance: Share = Field(description="share of the samples that are changed")
    near: Shares = Field((0.0, 0.3), description="share lost at the lidar, drawn for each sample")
    far: Shares = Field((0.0, 0.6), description="share lost at `distance` and beyond")
    distance: Annotated[float, Field(gt=0, le=1000)] = 60.0


class ObjectDropSettings(BaseModel, frozen=True, extra="forbid"):
    """Single points of objects lost: dark clothes, wet paint, what is thinner than simulated."""

    chance: Share = Field(description="share of the objects that lose any")
    share: Shares = Field((0.0, 0.5), description="share of its points that an object loses, drawn for each")


class SectorSettings(BaseModel, frozen=True, extra="forbid"):
    """A sector that something next to the lidar hides."""

    chance: Share = Field(description="share of the samples that are changed")
    width: Annotated[tuple[Angle, Angle], AfterValidator(_in_order)] = Field((0.1, 0.5), description="radians")
    distance: Annotated[tuple[Metres, Metres], AfterValidator(_in_order)] = Field(
        (2.0, 20.0), description="metres from the lidar from which on points are lost"
    )


class IntensitySettings(BaseModel, frozen=True, extra="forbid"):
    """Other scales of intensity: 255 * gain * (intensity / 255) ** gamma, within 0..255."""

    gain: Factors = (0.7, 1.4)
    gamma: Factors = (0.7, 1.4)
    zero: Share = Field(0.0, description="share of the samples without any intensity (0)")


class AugmentSettings(BaseModel, frozen=True, extra="forbid"):
    """What `perception.training.augment` does to a sample. Axes are those of the network's frame, metres and radians."""

    bank: BankSettings | None = None
    flip_x: Share = Field(0.0, description="chance of x -> -x")
    flip_y: Share = Field(0.0, description="chance of y -> -y")
    rotation: Angle = Field(0.0, description="about z, up to so far either way")
    scale: Factors = Field((1.0, 1.0), description="of points, boxes and velocities")
    translation: tuple[Metres, Metres, Metres] = Field((0.0, 0.0, 0.0), description="standard deviations of shifts along x, y, z")
    height: Metres = Field(0.0, description="shift along z, up to so far either way: a lidar mounted higher or lower, an uneven road")
    tilt: Annotated[float, Field(ge=0, le=0.2)] = Field(0.0, description="pitch and roll, each up to so far either way; boxes stay upright")
    object_scale: Factors = Field((1.0, 1.0), description="of each object by itself, about the middle of its bottom face")
    object_stretch: tuple[Factors, Factors, Factors] = Field(
        ((1.0, 1.0), (1.0, 1.0), (1.0, 1.0)),
        description="of each object's length, width and height, each by itself, beside object_scale: builds that the data lacks",
    )
    sweeps: SweepSettings | None = None
    beams: BeamSettings | None = None
    point_drop: PointDropSettings | None = None
    object_drop: ObjectDropSettings | None = None
    sector: SectorSettings | None = None
    intensity: IntensitySettings | None = None
    jitter: Metres = Field(0.0, description="standard deviation of noise on each coordinate of each point")
    shuffle: bool = Field(False, description="shuffle the points; for readers that keep the first points of a voxel")
    min_points: Annotated[int, Field(ge=0)] = Field(1, description="returns of the key sweep, below which a box is dropped")

    @property
    def scales_objects(self) -> bool:
        """Whether objects change their size by themselves."""
        return any(factors != (1.0, 1.0) for factors in (self.object_scale, *self.object_stretch))
