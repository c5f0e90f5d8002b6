"""Clips that show their number, made without simulation, and work that fails or hangs. No torch: workers load this file."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from perception.core import NUSCENES_DETECTION, Boxes3D, DataError, Detections, Transform
from perception.training.packed import LabelledCloud, PackedClip, pack

MOUNT = Transform.from_yaw(np.pi / 2, (1.0, 0.0, 2.0))  # x of the lidar points left


def numbered_clip(number: int) -> PackedClip:
    """A clip whose one car has as many returns as its number + 1, and whose points have its intensity."""
    points = np.zeros((number + 1, 5), np.float32)
    points[:, 0], points[:, 3] = np.arange(number + 1), number % 256
    boxes = Boxes3D(np.array([[5.0, 0, 1]]), np.array([[4.0, 2, 1.5]]), np.zeros(1), np.zeros((1, 2)))
    truth = Detections(boxes, np.zeros(1, np.int64), np.ones(1), NUSCENES_DETECTION, num_points=np.array([number + 1]))
    return pack(f"clip {number}", points, MOUNT, truth)


@dataclass(frozen=True)
class NumberedSource:
    """Samples that show their number, as clips or as clouds, or that cannot be read; `names` are the classes in each."""

    count: int
    kind: str
    names: tuple[list[str], ...] = ()

    def __len__(self) -> int:
        return self.count

    def __call__(self, index: int) -> PackedClip | LabelledCloud:
        if self.kind == "broken":
            raise OSError("broken")
        clip = numbered_clip(index)
        if self.kind == "clips":
            return clip
        points = np.zeros((index + 1, 5), np.float32)
        points[:, 3] = index
        return LabelledCloud(clip.token, points, clip.truth, MOUNT.translation)

    def class_names(self) -> Iterator[list[str]]:
        yield from self.names


def streets(number: int) -> list[PackedClip]:
    """Four clips a street, with the numbers that a seed's clips have; later streets are sooner ready than earlier ones."""
    time.sleep(0.02 * (number % 3 == 0))
    return [numbered_clip(4 * number + k) for k in range(4)]


def no_street_two(number: int) -> list[PackedClip]:
    if number == 2:
        raise ValueError("no street 2")
    return streets(number)


def doubled(number: int) -> int:
    time.sleep(0.02 * (number % 2 == 0))
    return 2 * number


def fails_at_three(number: int) -> int:
    if number == 3:
        raise ZeroDivisionError("one third of nothing")
    return number


def bad_data_at_three(number: int) -> int:
    if number == 3:
        raise DataError("000003.bin: cut short")
    return number


def dies_at_three(number: int) -> int:
    if number == 3:
        os._exit(7)
    return number


def surroundings(number: int) -> dict[str, str]:
    """What a worker finds around it."""
    return {name: os.environ.get(name, "") for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")}


def sleeps(number: int) -> int:
    time.sleep(60)
    return number
