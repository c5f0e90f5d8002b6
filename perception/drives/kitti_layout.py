"""Where KITTI's recordings keep what: the tracking benchmark's folders and those of the raw recordings, behind one value."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from perception.core.errors import DataError
from perception.core.transform import Transform
from perception.drives.kitti_calibration import CAMERAS, Calibration, read_raw_calibration, read_tracking_calibration
from perception.drives.kitti_labels import Labels, read_labels, read_tracklets
from perception.drives.kitti_poses import poses_from_oxts, read_odometry_poses, read_oxts_file, read_oxts_folder
from perception.drives.kitti_text import read_timestamps

SPLITS = ("training", "testing", "raw")  # the tracking benchmark's two, and the raw recordings
_STEP_US = 100_000  # the tracking benchmark has no times; the lidar turns ten times a second
_DRIVE = re.compile(r"[0-9]{4}_[0-9]{2}_[0-9]{2}_drive_[0-9]{4}_sync", re.ASCII)
_DATE = re.compile(r"[0-9]{4}_[0-9]{2}_[0-9]{2}", re.ASCII)


@dataclass(frozen=True, eq=False)
class Recording:
    """Where one drive's parts are.

    name              unique in the data set
    split             one of SPLITS
    clouds            folder of the lidar's files
    digits            of a frame's number in the names of files
    images            channel (image_02, ...) -> folder of its images; none where the folder is not there
    labels            file of the annotations, which need not be there
    read_calibration  () -> Calibration
    read_motion       (calibration) -> (timestamps in microseconds, ego_to_global), one each a frame
    read_labels       (calibration) -> Labels
    """

    name: str
    split: str
    clouds: Path
    digits: int
    images: dict[str, Path]
    labels: Path
    read_calibration: Callable[[], Calibration]
    read_motion: Callable[[Calibration], tuple[list[int], list[Transform]]]
    read_labels: Callable[[Calibration], Labels]


def find_recordings(root: Path) -> list[Recording]:
    """All drives of a folder that holds `training`, `testing` (tracking benchmark) or recording days (raw), in the order of their names."""
    recordings = []
    for split in ("training", "testing"):
        for sequence in _folders(root / split / "velodyne"):
            if sequence.name.isdecimal():
                recordings.append(_tracking(root / split, sequence.name))
    for date in _folders(root):
        if _DATE.fullmatch(date.name):
            recordings += [_raw(drive) for drive in _folders(date) if _DRIVE.fullmatch(drive.name)]
    return recordings


def has_recordings(root: Path) -> bool:
    """Whether a folder looks like one of KITTI's."""
    return any((root / split / "velodyne").is_dir() for split in ("training", "testing")) or any(
        _DATE.fullmatch(date.name) and any(_DRIVE.fullmatch(drive.name) for drive in _folders(date)) for date in _folders(root)
    )


def folder_above(root: Path) -> Path | None:
    """The folder that should have been given where `root` is a part of KITTI's layout, or None."""
    resolved = root.resolve()
    for above in resolved.parents[:3]:
        if has_recordings(above):
            return above
    return None


def _tracking(folder: Path, sequence: str) -> Recording:
    return Recording(
        name=f"{folder.name}-{sequence}",
        split=folder.name,
        clouds=folder / "velodyne" / sequence,
        digits=6,
        images={camera: path for camera in CAMERAS if (path := folder / camera / sequence).is_dir()},
        labels=folder / "label_02" / f"{sequence}.txt",
        read_calibration=partial(read_tracking_calibration, folder / "calib" / f"{sequence}.txt"),
        read_motion=partial(_tracking_motion, folder, sequence),
        read_labels=partial(read_labels, folder / "label_02" / f"{sequence}.txt"),
    )


def _tracking_motion(folder: Path, sequence: str, calibration: Calibration) -> tuple[list[int], list[Transform]]:
    """From the inertial packets, or from poses of the odometry benchmark where those are not there; one line is one frame."""
    oxts, odometry = folder / "oxts" / f"{sequence}.txt", folder / "poses" / f"{sequence}.txt"
    if oxts.is_file():
        poses = poses_from_oxts(read_oxts_file(oxts), calibration.imu_to_ego)
    elif odometry.is_file():
        poses = read_odometry_poses(odometry, calibration)
    else:
        raise DataError(f"{oxts}: expected inertial packets there, or poses in {odometry}, found neither")
    return [_STEP_US * number for number in range(len(poses))], poses


def _raw(folder: Path) -> Recording:
    return Recording(
        name=folder.name,
        split="raw",
        clouds=folder / "velodyne_points" / "data",
        digits=10,
        images={camera: path for camera in CAMERAS if (path := folder / camera / "data").is_dir()},
        labels=folder / "tracklet_labels.xml",
        read_calibration=partial(read_raw_calibration, folder.parent),
        read_motion=partial(_raw_motion, folder),
        read_labels=partial(read_tracklets, folder / "tracklet_labels.xml"),
    )


def _raw_motion(folder: Path, calibration: Calibration) -> tuple[list[int], list[Transform]]:
    """Times of the lidar and the packet of the same number: the nearest one in these synchronised recordings, at most 5 ms off."""
    times = read_timestamps(folder / "velodyne_points" / "timestamps.txt")
    return times, poses_from_oxts(read_oxts_folder(folder / "oxts" / "data", len(times)), calibration.imu_to_ego)


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder by name; none where it is not there or cannot be read."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        return []
