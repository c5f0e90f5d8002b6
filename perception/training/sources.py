"""Samples by number from recordings and clips: opened in this process to be counted, and in each worker to be read. NumPy only."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from cuda_ops import points_in_boxes
from perception.core.detections import Detections
from perception.core.errors import DataError, UsageError
from perception.core.frame import Drive, Frame
from perception.detection.frames import network_mounting
from perception.drives.open import kind_of, open_drives
from perception.drives.sweeps import accumulate_sweeps
from perception.fusion import InstancesConfig
from perception.training.data_settings import ClipsSettings, DrivesSettings, FolderSettings
from perception.training.packed import LabelledCloud, PackedClip, pack
from perception.training.virtual_points import FusedClouds

_INTENSITY_TOP = 255.0  # of samples, whatever the recording has


class Source(Protocol):
    """Samples by number. Picklable: what is open stays behind and is opened again by whoever reads."""

    def __len__(self) -> int: ...

    def __call__(self, index: int) -> LabelledCloud | PackedClip:
        """Read a sample. Raises DataError for a file that cannot be read."""
        ...

    def class_names(self) -> Iterator[Sequence[str]]:
        """The classes of each sample's objects, in the order of the samples, without those that are known to have no return."""
        ...


@dataclass(frozen=True)
class DriveFrames:
    """Every frame with truth of the drives in some folders, in the order of folders, drives and time.

    frame      that the network is trained in
    sweeps     in a cloud, where the folder does not say otherwise
    instances  in the frames' pictures, for clouds with virtual points; their source is opened where the first frame is read
    Raises UsageError where no frame has truth, and what `open_drives` raises.

    Of a KITTI data set only what the labelled camera sees is annotated: points and objects elsewhere are left out. Its intensities are
    brought to 0..255, and velocities are unknown: annotations 0.1 s apart tell them to a metre per second or so.
    """

    folders: tuple[FolderSettings, ...]
    frame: str
    sweeps: int
    instances: InstancesConfig | None = None
    window: float | None = None

    def __len__(self) -> int:
        return len(self._frames)

    def __call__(self, index: int) -> LabelledCloud:
        drive, number, folder = self._frames[index]
        sweeps, within = (self.sweeps, self.window) if folder.sweeps is None else (folder.sweeps, None)
        options = {"is_kitti": kind_of(folder.root) == "kitti", "fused": self._fused(folder.root)}
        return labelled_cloud(drive[number], frame=self.frame, sweeps=sweeps, within=within, **options)

    def class_names(self) -> Iterator[Sequence[str]]:
        for drive, number, _ in self._frames:
            truth = drive[number].truth
            yield [] if truth is None else _met(truth)

    @cached_property
    def _frames(self) -> list[tuple[Drive, int, FolderSettings]]:
        frames = [
            (drive, number, folder) for folder in self.folders for drive in self._drives(folder) for number in _labelled(drive, folder)
        ]
        if not frames:
            raise UsageError(
                f"{', '.join(str(folder.root) for folder in self.folders)}: expected frames with truth to train on, found none"
            )
        return frames

    def _drives(self, folder: FolderSettings) -> list[Drive]:
        """The drives of a folder's splits, each once."""
        # KITTI's pictures tell the size of the labelled view.
        options = {"cameras": self.instances is not None or kind_of(folder.root) == "kitti"}
        found: dict[str, Drive] = {}
        for split in folder.splits or (None,):
            for drive in open_drives(folder.root, version=folder.version, split=split, on_missing=folder.on_missing, **options):
                found.setdefault(drive.name, drive)
        return list(found.values())

    def _fused(self, root: Path) -> FusedClouds | None:
        """What makes virtual points of the drives in a folder, one for all of its frames."""
        if self.instances is not None and root not in self._opened:
            self._opened[root] = FusedClouds(self.instances, root)
        return self._opened.get(root)

    @cached_property
    def _opened(self) -> dict[Path, FusedClouds]:
        return {}

    def __getstate__(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in ("folders", "frame", "sweeps", "instances", "window")}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)


@dataclass(frozen=True)
class ClipFiles:
    """The clips in a folder, in the order of their names. Raises UsageError for a folder without any."""

    folder: Path

    def __len__(self) -> int:
        return len(self._paths)

    def __call__(self, index: int) -> PackedClip:
        from perception.drives.simulated.clips import read_clip  # here: its neighbours take two seconds that drives do not need

        path = self._paths[index]
        clip = read_clip(path)
        return pack(str(path), clip.cloud.points, clip.lidar_to_ego, clip.truth)

    def class_names(self) -> Iterator[Sequence[str]]:
        from perception.drives.simulated.clips import read_clip

        for path in self._paths:
            yield _met(read_clip(path).truth)

    @cached_property
    def _paths(self) -> list[Path]:
        paths = sorted(self.folder.glob("clip-*.npz"))
        if not paths:
            raise UsageError(f"{self.folder}: expected clips (clip-000000.npz, ...), found none")
        return paths


def open_source(settings: DrivesSettings | ClipsSettings, *, frame: str, sweeps: int, window: float | None = None) -> Source:
    """The samples that settings name, for a network trained in `frame` on `sweeps` sweeps, or those of them within `window` seconds."""
    if isinstance(settings, ClipsSettings):
        return ClipFiles(settings.folder)
    return DriveFrames(settings.folders, frame, sweeps, settings.instances, window)


def labelled_cloud(
    record: Frame,
    *,
    frame: str,
    sweeps: int,
    within: float | None = None,
    is_kitti: bool = False,
    fused: FusedClouds | None = None,
) -> LabelledCloud:
    """A frame with truth as something to train on, in the network's frame; see `DriveFrames`.

    within  as `accumulate_sweeps` has it
    fused   adds virtual points: what is read in place of the sweeps alone
    Objects get the number of returns of the key sweep in their boxes where the recording does not have it, or where only a part of the
    cloud is used. Raises DataError for a frame without truth.
    """
    if record.truth is None:
        raise DataError(f"frame {record.token}: expected one with truth")
    points = accumulate_sweeps(record, sweeps, within=within).points if fused is None else fused(record, sweeps, within)
    ego = record.lidar_to_ego.apply(points[:, :3].astype(np.float64))
    truth = record.truth.transformed(record.ego_to_global.inverse())
    keep = np.ones(len(points), bool) if record.labelled_view is None else record.labelled_view.contains(ego)
    if truth.num_points is None or record.labelled_view is not None:
        is_key = np.arange(len(points)) < len(record.cloud)  # not by age: where the drive begins, the key sweep may come again
        truth = _counted(truth, ego[keep & is_key])
    points = points[keep]
    if fused is None:  # which has brought them there already
        points[:, 3] *= np.float32(_INTENSITY_TOP / record.intensity_top)
    if is_kitti:
        truth = _without_velocity(truth)
    lidar_to_network, network_to_ego = network_mounting(frame, record.lidar_to_ego)
    origin = np.zeros(3)
    if lidar_to_network is not None:
        points[:, :3] = lidar_to_network.apply(points[:, :3])
        origin = lidar_to_network.translation
    return LabelledCloud(record.token, points, truth.transformed(network_to_ego.inverse()), origin)


def _labelled(drive: Drive, folder: FolderSettings) -> list[int]:
    """The numbers of a drive's frames to train on: a drive has truth in all of its frames or in none."""
    if len(drive) == 0 or drive[0].truth is None:
        return []
    if folder.on_missing == "error":
        return list(range(len(drive)))
    there = {record.token for record in drive}
    return [number for number in range(len(drive)) if drive[number].token in there]


def _met(truth: Detections) -> list[str]:
    names = truth.names if truth.num_points is None else truth.names[truth.num_points > 0]
    return names.tolist()


def _counted(truth: Detections, points: np.ndarray) -> Detections:
    """Objects with the number of points (N, 3) in each of their boxes, all in one frame."""
    boxes = truth.boxes
    rows = np.column_stack([boxes.center, boxes.size, boxes.yaw])
    return replace(truth, num_points=points_in_boxes(points.astype(np.float32), rows).count.astype(np.int64))


def _without_velocity(truth: Detections) -> Detections:
    return replace(truth, boxes=replace(truth.boxes, velocity=np.full((len(truth), 2), np.nan)))
