"""Clips kept on the device in integers, and a batch of samples made of them with a few operations."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from perception.core.classes import ClassSet
from perception.core.transform import Transform
from perception.detection.frames import network_mounting
from perception.detection.voxels import joined
from perception.training.packed import MILLISECOND, STEP, PackedClip
from perception.training.sample import Sample, sample_of
from perception.training.sample_batch import SampleBatch
from perception.training.upload import of_each, placed, uploaded


@dataclass(frozen=True, eq=False)
class PooledClip:
    """A clip whose cloud is on a device. What is small stays on the host until a batch needs it, and travels with that of the others.

    token      names it in errors
    place      (N, 3) int16, steps of 5 mm in the lidar frame
    age        (N,) int16 milliseconds
    intensity  (N,) uint8
    mounting   (4, 3) float32: what a step along x, y and z of the lidar frame is in the network's frame, and where the lidar is there
    boxes, labels, num_points, origin  as of a `Sample`, in the network's frame
    """

    token: str
    place: Tensor
    age: Tensor
    intensity: Tensor
    mounting: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    num_points: np.ndarray
    origin: np.ndarray

    def sample(self) -> Sample:
        """The clip with its points as float32 in the network's frame, on its device, without waiting for it."""
        return unpacked([self])[0]


def unpacked(clips: Sequence[PooledClip]) -> list[Sample]:
    """The samples of clips of one device, without waiting for it. Their parts lie one behind the other."""
    counts, device = [len(clip.age) for clip in clips], clips[0].age.device
    columns = zip(*((clip.boxes, clip.labels, clip.num_points) for clip in clips), strict=True)
    mountings, origins = np.stack([clip.mounting.ravel() for clip in clips], axis=1), np.stack([clip.origin for clip in clips])
    count, mounting, origin, *boxes = uploaded([np.array(counts, np.int32), mountings, origins, *map(np.concatenate, columns)], device)
    points = torch.empty((sum(counts), 5), dtype=torch.float32, device=device)
    sample = torch.repeat_interleave(count, output_size=len(points))
    # Not a matrix product: autocast would turn it into half precision, "high" float32 precision into TF32, and places into decimetres.
    x, y, z = joined([clip.place for clip in clips]).t().to(torch.float32, memory_format=torch.contiguous_format).unbind()
    along_x, along_y, along_z, shift = of_each(mounting, sample).view(4, 3, -1).unbind()
    points[:, :3] = torch.addcmul(shift, x, along_x).addcmul_(y, along_y).addcmul_(z, along_z).t()
    points[:, 3] = joined([clip.intensity for clip in clips])
    points[:, 4] = joined([clip.age for clip in clips]) * MILLISECOND
    tokens, box_counts = [clip.token for clip in clips], [len(clip.boxes) for clip in clips]
    return SampleBatch(tokens, points, *boxes, origin=origin, point_counts=counts, box_counts=box_counts).samples()


def samples_of(clips: Sequence[PooledClip]) -> list[Sample]:
    """`unpacked`; on a CPU one by one, which gives the same and stays in the cache."""
    return [clip.sample() for clip in clips] if clips[0].age.device.type == "cpu" else unpacked(clips)


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

    def samples(self, numbers: Sequence[int]) -> list[Sample]:
        """Some clips as samples of their own, on the device, without waiting for it."""
        return samples_of([self._clips[number] for number in numbers])

    def __getitem__(self, number: int) -> PooledClip:
        return self._clips[number]

    def __contains__(self, number: object) -> bool:
        return number in self._clips

    def __iter__(self) -> Iterator[int]:
        """The numbers of its clips, ascending."""
        return iter(self._clips)

    def __len__(self) -> int:
        return len(self._clips)


def pooled(clip: PackedClip, classes: ClassSet, frame: str, device: torch.device) -> PooledClip:
    """A clip on a device, with its truth in the network's frame; see `ClipPool`."""
    lidar_to_network, network_to_ego = network_mounting(frame, clip.lidar_to_ego)
    move = lidar_to_network or Transform.identity()
    truth = clip.truth.transformed(network_to_ego.inverse())
    sample = sample_of(clip.token, np.zeros((0, 5), np.float32), truth, classes, move.translation)
    mounting = np.vstack([move.rotation.T * STEP, move.translation]).astype(np.float32)
    count = len(clip.data) // 9
    data = torch.from_numpy(clip.data) if count else torch.zeros(0, dtype=torch.uint8)  # an empty array of NumPy has no stride
    data = placed(data, device)
    return PooledClip(
        clip.token,
        data[: 6 * count].view(torch.int16).view(count, 3),
        data[6 * count : 8 * count].view(torch.int16),
        data[8 * count :],
        mounting,
        *(part.numpy() for part in (sample.boxes, sample.labels, sample.num_points, sample.origin)),
    )
