"""One recorded moment of a drive, and what a drive is."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from perception.core.detections import Detections
from perception.core.errors import DataError, UsageError
from perception.core.expect import expect_array
from perception.core.pointcloud import PointCloud
from perception.core.transform import Transform


@dataclass(frozen=True, eq=False, repr=False)
class Camera:
    """One image with its calibration, taken at its own time from its own ego pose.

    name           channel, e.g. CAM_FRONT
    token          sample_data token, or "" where the recording has none
    size           (width, height) pixels
    intrinsics     (3, 3) float64  pinhole matrix, pixels
    camera_to_ego  Transform       camera axes: x right, y down, z forward
    ego_to_global  Transform       at the image's own timestamp
    timestamp_us   int             microseconds
    read_image     () -> (H, W, 3) uint8 RGB; reads the file when called
    """

    name: str
    token: str
    size: tuple[int, int]
    intrinsics: np.ndarray
    camera_to_ego: Transform
    ego_to_global: Transform
    timestamp_us: int
    read_image: Callable[[], np.ndarray]

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "intrinsics", expect_array(f"Camera {self.name}.intrinsics", self.intrinsics, (3, 3), "float64", finite=True)
        )

    @property
    def image(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB, read from the file at each access."""
        return self.read_image()

    def project(self, points_camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (N, 2) and depth (N,) in metres of points (N, 3) in the camera frame; pixels are NaN where depth <= 0."""
        points = np.asarray(points_camera, dtype=np.float64)
        depth = points[:, 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            pixels = (points @ self.intrinsics.T)[:, :2] / depth[:, None]
        pixels[depth <= 0] = np.nan
        return pixels, depth

    def __repr__(self) -> str:
        return f"Camera({self.name}, {self.size[0]}x{self.size[1]}, t={self.timestamp_us})"


@dataclass(frozen=True, eq=False, repr=False)
class Sweep:
    """One turn of the lidar, with the poses of its own moment.

    token          the recording's own name of the turn (nuScenes: sample_data token)
    timestamp_us   int, microseconds
    lidar_to_ego   how the lidar is mounted
    ego_to_global  pose of the ego vehicle at `timestamp_us`
    read_cloud     () -> PointCloud in the lidar frame of this turn, age 0; reads the file when called
    """

    token: str
    timestamp_us: int
    lidar_to_ego: Transform
    ego_to_global: Transform
    read_cloud: Callable[[], PointCloud]

    def __post_init__(self) -> None:
        _expect_time(f"Sweep {self.token}", self.timestamp_us)

    @property
    def cloud(self) -> PointCloud:
        """The points in the lidar frame of this turn, read from the file at each access."""
        return self.read_cloud()

    @property
    def lidar_to_global(self) -> Transform:
        return self.ego_to_global @ self.lidar_to_ego

    def __repr__(self) -> str:
        return f"Sweep({self.token}, t={self.timestamp_us})"


def no_sweeps(count: int) -> list[Sweep]:  # noqa: ARG001
    """The earlier turns in a recording that has none."""
    return []


@dataclass(frozen=True, eq=False, repr=False)
class LabelledView:
    """Where a frame's truth is complete: what one camera sees. An object elsewhere may be unlabelled, so that what is detected there is
    neither right nor wrong.

    camera         name of the camera whose image was labelled; the frame need not have the image
    size           (width, height) pixels
    intrinsics     (3, 3) float64  pinhole matrix, pixels
    camera_to_ego  Transform       camera axes: x right, y down, z forward
    """

    camera: str
    size: tuple[int, int]
    intrinsics: np.ndarray
    camera_to_ego: Transform

    def __post_init__(self) -> None:
        where = f"LabelledView {self.camera}.intrinsics"
        object.__setattr__(self, "intrinsics", expect_array(where, self.intrinsics, (3, 3), "float64", finite=True))

    def contains(self, points_ego: np.ndarray) -> np.ndarray:
        """(N,) bool: whether the image shows each of the points (N, 3) of the ego frame, hidden ones included; False for NaN."""
        points = expect_array("points_ego", points_ego, (None, 3), "float64")
        x, y, depth = (self.camera_to_ego.inverse().apply(points) @ self.intrinsics.T).T
        width, height = self.size  # compared without dividing by the depth: no x is >= 0 and < width * depth where that is 0 or less
        is_inside: np.ndarray = (x >= 0) & (x < width * depth) & (y >= 0) & (y < height * depth)
        return is_inside

    def __repr__(self) -> str:
        return f"LabelledView({self.camera}, {self.size[0]}x{self.size[1]})"


@dataclass(frozen=True, eq=False, repr=False)
class Frame:
    """One recorded moment: a lidar key sweep and what belongs to it.

    token          the recording's own name of the moment (nuScenes: sample token)
    timestamp_us   int, microseconds, of the key sweep
    lidar_to_ego   how the lidar is mounted
    ego_to_global  pose of the ego vehicle at `timestamp_us`
    cameras        channel name -> Camera
    truth          annotated objects in the GLOBAL frame, or None where the recording has no annotations
    read_cloud     () -> PointCloud in the lidar frame; reads the file when called
    find_sweeps    count -> the turns of the lidar before this one, nearest first, `count` or fewer; no file of points is read for it
    labelled_view  where `truth` is complete, or None where that is all around the vehicle
    intensity_top  what full intensity is in its clouds: 255 (nuScenes) or 1 (KITTI)
    """

    token: str
    timestamp_us: int
    lidar_to_ego: Transform
    ego_to_global: Transform
    cameras: dict[str, Camera]
    truth: Detections | None
    read_cloud: Callable[[], PointCloud]
    find_sweeps: Callable[[int], list[Sweep]] = no_sweeps
    labelled_view: LabelledView | None = None
    intensity_top: float = 255.0

    def __post_init__(self) -> None:
        _expect_time(f"Frame {self.token}", self.timestamp_us)

    @property
    def cloud(self) -> PointCloud:
        """The key sweep in the lidar frame, read from the file at each access."""
        return self.read_cloud()

    @property
    def lidar_to_global(self) -> Transform:
        return self.ego_to_global @ self.lidar_to_ego

    def previous_sweeps(self, count: int) -> list[Sweep]:
        """The turns of the lidar before the key sweep, nearest first: `count`, or fewer at the start of a drive. Files are not read yet."""
        if not isinstance(count, (int, np.integer)) or isinstance(count, bool) or count < 0:
            raise UsageError(f"Frame {self.token}: expected a number of sweeps, 0 or more, got {count!r}")
        return self.find_sweeps(int(count))

    def __repr__(self) -> str:
        truth = "no truth" if self.truth is None else f"{len(self.truth)} true objects"
        return f"Frame({self.token}, t={self.timestamp_us}, {len(self.cameras)} cameras, {truth})"


def _expect_time(name: str, timestamp_us: int) -> None:
    if not isinstance(timestamp_us, (int, np.integer)) or timestamp_us < 0:
        raise DataError(f"{name}: expected timestamp_us as an integer >= 0, got {timestamp_us!r}")


@runtime_checkable
class Drive(Protocol):
    """A sequence of frames in time order. `len` may raise TypeError where a stream does not know its length."""

    name: str

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Frame]: ...

    def __getitem__(self, index: int) -> Frame: ...
