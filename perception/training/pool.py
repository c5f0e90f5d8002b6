"""Clips kept on the device in integers, and samples made of them with a few operations."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from perception.core.classes import ClassSet
from perception.core.transform import Transform
from perception.detection.frames import network_mounting
from perception.training.packed import MILLISECOND, STEP, PackedClip
from perception.training.sample import Sample, sample_of


@dataclass(frozen=True, eq=False)
class PooledClip:
    """A clip on a device.

    token      names it in errors
    place      (N, 3) int16, steps of 5 mm in the lidar frame
    age        (N,) int16 milliseconds
    intensity  (N,) uint8
    mounting   (4, 3) float32: what a step along x, y and z of the lidar frame is in the network's frame, and where the lidar is there
    truth      a sample without points: boxes, labels, counts and origin in the network's frame
    """

    token: str
    place: Tensor
    age: Tensor
    intensity: Tensor
    mounting: Tensor
    truth: Sample

    def sample(self) -> Sample:
        """The clip with its points as float32 in the network's frame, on its device, without waiting for it."""
        points = torch.empty((len(self.age), 5), dtype=torch.float32, device=self.age.device)
        place = self.place.to(torch.float32)
        # Not a matrix product: autocast would turn it into half precision, "high" float32 precision into TF32, and places into decimetres.
        moved = torch.addcmul(self.mounting[3], place[:, 0:1], self.mounting[0])
        moved = torch.addcmul(moved, place[:, 1:2], self.mounting[1])
        points[:, :3] = torch.addcmul(moved, place[:, 2:3], self.mounting[2])
        points[:, 3] = self.intensity
        points[:, 4] = self.age * MILLISECOND
        truth = self.truth
        return Sample(self.token, points, truth.boxes.clone(), truth.labels, truth.num_points, truth.origin)


class ClipPool:
    """The newest clips, by number, on one device.

    classes  of the network, in the order of its labels through all tasks
    frame    of the network, see `perception.detection.frames`
    """

    def __init__(self, classes: ClassSet, frame: str, device: torch.device | str) -> None:
        self._classes, self._frame, self._device = classes, frame, torch.device(device)
        self._clips: dict[int, PooledClip] = {}  # in ascending order of their numbers

    def add(self, number: int, clip: PackedClip) -> None:
        """Copy a clip to the device. Numbers ascend; ValueError for one that does not."""
        if self._clips and number <= (newest := next(reversed(self._clips))):
            raise ValueError(f"ClipPool.add: expected a number above {newest}, the newest clip's, got {number}")
        self._clips[number] = pooled(clip, self._classes, self._frame, self._device)

    def drop_before(self, number: int) -> None:
        """Forget the clips below a number."""
        while self._clips and (oldest := next(iter(self._clips))) < number:
            del self._clips[oldest]

    def clear(self) -> None:
        """Forget all clips."""
        self._clips.clear()

    def __getitem__(self, number: int) -> PooledClip:
        return self._clips[number]

    def __contains__(self, number: object) -> bool:
        return number in self._clips

    def __iter__(self) -> Iterator[int]:
        """The numbers of its clips, ascending."""
        return iter(self._clips)

    def __len__(self) -> int:
        return len(self._clips)

    @property
    def num_bytes(self) -> int:
        """Of its clouds on the device."""
        return sum(9 * len(clip.age) for clip in self._clips.values())


def pooled(clip: PackedClip, classes: ClassSet, frame: str, device: torch.device) -> PooledClip:
    """A clip on a device, with its truth in the network's frame; see `ClipPool`."""
    lidar_to_network, network_to_ego = network_mounting(frame, clip.lidar_to_ego)
    move = lidar_to_network or Transform.identity()
    truth = clip.truth.transformed(network_to_ego.inverse())
    sample = sample_of(clip.token, np.zeros((0, 5), np.float32), truth, classes, move.translation)
    mounting = np.vstack([move.rotation.T * STEP, move.translation]).astype(np.float32)
    count = len(clip.data) // 9
    data = torch.from_numpy(clip.data) if count else torch.zeros(0, dtype=torch.uint8)  # an empty array of NumPy has no stride
    data = _placed(data, device)
    return PooledClip(
        clip.token,
        data[: 6 * count].view(torch.int16).view(count, 3),
        data[6 * count : 8 * count].view(torch.int16),
        data[8 * count :],
        _placed(torch.from_numpy(mounting), device),
        placed(sample, device),
    )


def placed(sample: Sample, device: torch.device) -> Sample:
    """A sample of the CPU on a device, without waiting for what the device is at."""
    parts = (sample.points, sample.boxes, sample.labels, sample.num_points, sample.origin)
    return Sample(sample.token, *(_placed(part, device) for part in parts))


def _placed(tensor: Tensor, device: torch.device) -> Tensor:
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)  # torch keeps the pinned block until the copy has ended
