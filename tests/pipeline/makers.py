"""Data makers: drives without files, and a small detector that sees only points."""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perception.core import NUSCENES_DETECTION, Boxes3D, DataError, Detections, Frame, PointCloud, Sweep, Transform
from tests import makers

FIRST_US = 1_600_000_000_000_000
LIDAR_TO_EGO = Transform(np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), np.array([1.0, 0.0, 1.8]))


@dataclass
class ClumpDetector:
    """Points of one intensity above 0 are one object: its class is intensity modulo 10, its place and speed those of the points.

    The speed is seen from the ages of the points where there are two sweeps. It is a real detector: the same points give the same
    objects, and it keeps nothing between frames.
    """

    sweeps: int = 1
    seconds: float = 0.0  # that a frame takes

    def detect(self, cloud: PointCloud, lidar_to_ego: Transform) -> Detections:
        time.sleep(self.seconds)
        points, intensity = cloud.points.astype(np.float64), cloud.points[:, 3].astype(int)
        xyz = lidar_to_ego.apply(points[:, :3])
        clumps = np.unique(intensity[intensity > 0])
        center, velocity = np.zeros((len(clumps), 3)), np.full((len(clumps), 2), np.nan)
        for i, clump in enumerate(clumps):
            own, age = xyz[intensity == clump], points[intensity == clump, 4]
            center[i] = own[age == age.min()].mean(axis=0)
            if age.max() > age.min():
                velocity[i] = (center[i] - own[age == age.max()].mean(axis=0))[:2] / (age.max() - age.min())
        boxes = Boxes3D(center, np.tile([4.0, 2.0, 1.5], (len(clumps), 1)), np.zeros(len(clumps)), velocity)
        return Detections(boxes, clumps % 10, 0.2 + 0.7 / clumps, NUSCENES_DETECTION)


class SyntheticDrive:
    """Frames made when asked for: `num_objects` cars ahead, each `num_points` points, the ego at 5 m/s along x, the cars at 7.

    broken_at  number of a frame whose cloud cannot be read
    """

    def __init__(
        self,
        name: str = "drive",
        num_frames: int = 6,
        *,
        num_objects: int = 3,
        num_points: int = 4,
        step_us: int = 500_000,
        broken_at: int | None = None,
        error: Callable[[], Exception] = lambda: DataError("000003.bin: expected a readable lidar file, got Input/output error"),
        seed: int = 0,
    ) -> None:
        self.name, self.num_frames, self.num_objects, self.num_points = name, num_frames, num_objects, num_points
        self.step_us, self.broken_at, self.error, self.seed = step_us, broken_at, error, seed
        self.clouds_read = 0

    def __len__(self) -> int:
        return self.num_frames

    def __getitem__(self, index: int) -> Frame:
        number = range(self.num_frames)[index]
        return Frame(
            token=f"{self.name}-{number}",
            timestamp_us=FIRST_US + number * self.step_us,
            lidar_to_ego=LIDAR_TO_EGO,
            ego_to_global=self._pose(number),
            cameras={},
            truth=None,
            read_cloud=lambda: self._cloud(number),
            find_sweeps=lambda count: [self._sweep(n) for n in range(number - 1, max(number - 1 - count, -1), -1)],
        )

    def __iter__(self) -> Iterator[Frame]:
        return (self[i] for i in range(self.num_frames))

    def car_positions(self, number: int) -> np.ndarray:
        """(num_objects, 3) where the cars are in a frame, global."""
        seconds = number * self.step_us * 1e-6
        k = np.arange(self.num_objects)
        return np.column_stack([20 + 8.0 * (k % 10) + 7 * seconds, 6.0 * (k // 10) - 12, np.full(self.num_objects, 0.8)])

    def _pose(self, number: int) -> Transform:
        return Transform(np.eye(3), np.array([5 * number * self.step_us * 1e-6, 0.0, 0.0]))

    def _sweep(self, number: int) -> Sweep:
        return Sweep(f"{self.name}-{number}", self[number].timestamp_us, LIDAR_TO_EGO, self._pose(number), lambda: self._cloud(number))

    def _cloud(self, number: int) -> PointCloud:
        if number == self.broken_at:
            raise self.error()
        self.clouds_read += 1
        rng = np.random.default_rng([self.seed, number])
        centers = (self._pose(number) @ LIDAR_TO_EGO).inverse().apply(self.car_positions(number))
        xyz = np.repeat(centers, self.num_points, axis=0) + rng.normal(0, 0.2, (self.num_objects * self.num_points, 3))
        intensity = np.repeat(10 * np.arange(1, self.num_objects + 1), self.num_points)  # class 0: car
        return PointCloud(np.column_stack([xyz, intensity, np.zeros(len(xyz))]).astype(np.float32))


class Stream(SyntheticDrive):
    """A drive that does not know its length."""

    def __len__(self) -> int:
        raise TypeError("a stream has no length")

    def __iter__(self) -> Iterator[Frame]:
        return itertools.islice((SyntheticDrive.__getitem__(self, i) for i in range(self.num_frames)), self.num_frames)


def write_small_nuscenes(root: Path, *, num_scenes: int = 2, samples: int = 3) -> Path:
    """Scenes scene-0001, ... with clouds of five points, four of them above intensity 0."""
    return makers.write_nuscenes(root, makers.nuscenes_tables(tuple(f"scene-{i:04d}" for i in range(1, num_scenes + 1)), samples))


def contents(folder: Path) -> dict[str, bytes]:
    """Path in the folder -> content of each file."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
