"""KITTI drives: frames of the tracking benchmark and of the raw recordings, with poses, calibration, cameras and truth.

The global frame is x east, y north, z up, from where the ego frame was in the first frame of the drive. The lidar frame is x forward,
y left, z up on the roof; where it is in the ego frame stands in `kitti_calibration`. The clouds are as recorded: the car moves during the
0.1 s of a turn, and the time of a frame is when the lidar faces forward, which also fires the cameras.
"""

import itertools
from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from perception.core.boxes import Boxes3D
from perception.core.classes import NUSCENES_DETECTION
from perception.core.detections import Detections
from perception.core.errors import DataError, UsageError, nearest_hint
from perception.core.frame import Camera, Frame, LabelledView, Sweep
from perception.core.pointcloud import PointCloud
from perception.core.rows import concatenate
from perception.core.transform import Transform
from perception.drives.clouds import read_rows
from perception.drives.images import read_image, read_image_size
from perception.drives.kitti_calibration import LABELLED_CAMERA, Calibration
from perception.drives.kitti_labels import Labels
from perception.drives.kitti_layout import SPLITS, Recording, find_recordings, folder_above
from perception.drives.nuscenes import OnMissing, expect_on_missing
from perception.drives.nuscenes_index import annotation_velocity

_IMAGE_ENDINGS = (".png", ".jpg")


class Kitti:
    """A folder of KITTI recordings: `Kitti("/data/kitti_tracking").drives("training")`.

    dataroot    folder that holds `training` and `testing` of the tracking benchmark (velodyne, calib, oxts or poses, label_02, image_02),
                or the recording days of the raw recordings (2011_09_26/2011_09_26_drive_0005_sync; synchronised and rectified)
    on_missing  what to do with a frame whose lidar file is not there (KITTI itself lacks a few): raise ("error"), leave the frame out
                ("skip"), give it a cloud without points ("empty"); `missing` counts them
    cameras, truth  set to False to leave them out of the frames
    Drives are named `training-0000` and `2011_09_26_drive_0005_sync`. Raises UsageError for a folder without recordings; what a drive is
    made of is read when it is first asked for, and broken files raise DataError then.
    """

    def __init__(self, dataroot: Path | str, *, on_missing: OnMissing = "error", cameras: bool = True, truth: bool = True) -> None:
        self.dataroot = Path(dataroot)
        self.on_missing = expect_on_missing(on_missing)
        self.missing: set[str] = set()  # tokens of frames whose lidar file was not there
        if not self.dataroot.is_dir():
            raise DataError(f"{self.dataroot}: expected the folder of a KITTI data set, found none")
        recordings = find_recordings(self.dataroot)
        if not recordings:
            above = folder_above(self.dataroot)
            got = f"got a part of it; give {above}" if above else "found neither"
            raise UsageError(f"{self.dataroot}: expected training/velodyne/0000 or 2011_09_26/2011_09_26_drive_0005_sync there, {got}")
        self._drives = {item.name: KittiDrive(self, item, cameras=cameras, truth=truth) for item in recordings}

    @property
    def drive_names(self) -> list[str]:
        """All drives: of the tracking benchmark, then raw ones, by name."""
        return list(self._drives)

    def drive(self, name: str) -> "KittiDrive":
        """A drive by name."""
        if name not in self._drives:
            raise UsageError(f"drive {name!r}: not in {self.dataroot}{nearest_hint(name, self.drive_names)}")
        return self._drives[name]

    def drives(self, split: str | None = None) -> list["KittiDrive"]:
        """The drives of a split (training, testing, raw), or all of them. UsageError for another split or one that is not there."""
        if split is not None and split not in SPLITS:
            raise UsageError(f"split {split!r}: expected one of {', '.join(map(repr, SPLITS))}{nearest_hint(split, SPLITS)}")
        drives = [drive for drive in self._drives.values() if split in (None, drive.split)]
        if not drives:
            raise UsageError(f"split {split!r}: {self.dataroot} has no drives of it")
        return drives

    def frame(self, token: str) -> Frame:
        """The frame of a token: the drive's name, a hyphen and the frame's number."""
        name, _, number = token.rpartition("-")
        if name not in self._drives or not (number.isascii() and number.isdecimal() and len(number) <= 10):
            raise UsageError(f"frame {token!r}: not in {self.dataroot}")
        drive = self._drives[name]
        if int(number) >= len(drive) or drive.token(int(number)) != token:
            raise UsageError(f"frame {token!r}: not in {self.dataroot}")
        return drive[int(number)]


class KittiDrive:
    """The frames of one recording, in time order (a `Drive`)."""

    def __init__(self, dataset: Kitti, recording: Recording, *, cameras: bool, truth: bool) -> None:
        self.dataset = dataset
        self.name, self.split = recording.name, recording.split
        self._recording, self._has_cameras, self._wants_truth = recording, cameras, truth

    @cached_property
    def calibration(self) -> Calibration:
        """Where the sensors are."""
        return self._recording.read_calibration()

    @cached_property
    def _motion(self) -> tuple[list[int], list[Transform]]:
        times, poses = self._recording.read_motion(self.calibration)
        self._expect_numbers(self._recording.clouds, self._cloud_names, len(times))
        return times, poses

    @cached_property
    def _cloud_names(self) -> set[str]:
        return _file_names(self._recording.clouds, (".bin",))

    @cached_property
    def _image_names(self) -> dict[str, set[str]]:
        """Channel -> names of its images, of the channels that have any and a calibration."""
        known = {camera: folder for camera, folder in self._recording.images.items() if camera in self.calibration.cameras}
        found = {camera: _file_names(folder, _IMAGE_ENDINGS) for camera, folder in known.items()} if self._has_cameras else {}
        return {camera: names for camera, names in found.items() if names}

    @cached_property
    def _image_sizes(self) -> dict[str, tuple[int, int]]:
        """(width, height) of each channel's first image; all have one size."""
        return {camera: read_image_size(self._recording.images[camera] / min(names)) for camera, names in self._image_names.items()}

    @cached_property
    def _labelled_view(self) -> LabelledView:
        mounting = self.calibration.cameras[LABELLED_CAMERA]
        size = self._image_sizes.get(LABELLED_CAMERA, mounting.size)
        return LabelledView(LABELLED_CAMERA, size, mounting.intrinsics, mounting.camera_to_ego)

    @cached_property
    def _truth(self) -> list[Detections] | None:
        """Each frame's objects in the global frame, or None where the drive has no labels."""
        if not (self._wants_truth and self._recording.labels.is_file()):
            return None
        labels = self._recording.read_labels(self.calibration)
        times, poses = self._motion
        if len(labels.frame) and labels.frame.max() >= len(times):
            raise DataError(f"{self._recording.labels}: expected frames 0..{len(times) - 1}, got {labels.frame.max()}")
        return _detections_of_frames(labels, np.array(times, np.int64), poses, self.name)

    def token(self, index: int) -> str:
        """The name of a frame: the drive's and its number."""
        return f"{self.name}-{index:0{self._recording.digits}d}"

    @property
    def tokens(self) -> list[str]:
        """One a frame."""
        return [self.token(i) for i in range(len(self))]

    @property
    def lidar_paths(self) -> list[Path]:
        """The files that its clouds are read from; they need not be there."""
        return [self._cloud_path(number) for number in range(len(self))]

    def __len__(self) -> int:
        return len(self._motion[0])

    def __getitem__(self, index: int) -> Frame:
        number = range(len(self))[index]
        times, poses = self._motion
        return Frame(
            token=self.token(number),
            timestamp_us=times[number],
            lidar_to_ego=self.calibration.lidar_to_ego,
            ego_to_global=poses[number],
            cameras=self._cameras(number),
            truth=None if self._truth is None else self._truth[number],
            read_cloud=partial(self._read_cloud, number),
            find_sweeps=partial(self._sweeps_before, number),
            labelled_view=None if self._truth is None else self._labelled_view,
            intensity_top=1.0,
        )

    def __iter__(self) -> Iterator[Frame]:
        """The frames; under `on_missing="skip"` those without their lidar file are left out and counted."""
        for number in range(len(self)):
            if self.dataset.on_missing == "skip" and self._cloud_path(number).name not in self._cloud_names:
                self.dataset.missing.add(self.token(number))
                continue
            yield self[number]

    def __repr__(self) -> str:
        return f"KittiDrive({self.name}, {len(self)} frames)"

    def _cameras(self, number: int) -> dict[str, Camera]:
        """The cameras whose image of this frame is there; they fire as the lidar faces forward, at the frame's own time and pose."""
        cameras = {}
        for camera, names in self._image_names.items():
            name = next((name for ending in _IMAGE_ENDINGS if (name := f"{number:0{self._recording.digits}d}{ending}") in names), None)
            if name is None:
                continue
            mounting = self.calibration.cameras[camera]
            cameras[camera] = Camera(
                name=camera,
                token="",
                size=self._image_sizes[camera],
                intrinsics=mounting.intrinsics,
                camera_to_ego=mounting.camera_to_ego,
                ego_to_global=self._motion[1][number],
                timestamp_us=self._motion[0][number],
                read_image=partial(read_image, self._recording.images[camera] / name),
            )
        return cameras

    def _cloud_path(self, number: int) -> Path:
        return self._recording.clouds / f"{number:0{self._recording.digits}d}.bin"

    def _read_cloud(self, number: int) -> PointCloud:
        """The lidar file of a frame in the lidar frame; rows of four float32: x, y, z, intensity (0..1)."""
        path, token = self._cloud_path(number), self.token(number)
        rows = read_rows(path, ("x", "y", "z", "intensity"))
        if rows is None:
            if self.dataset.on_missing == "error":
                how = "on_missing='skip' or 'empty' (--on-missing) goes on without it"
                raise DataError(f"{path}: the lidar file of frame {token!r} is missing; {how}") from None
            self.dataset.missing.add(token)
            return PointCloud(np.zeros((0, 5), np.float32))
        points = np.zeros((len(rows), 5), np.float32)  # the last column is the age of the key sweep
        points[:, :4] = rows
        return PointCloud(points)

    def _sweeps_before(self, number: int, count: int) -> list[Sweep]:
        """The frames before a frame, nearest first; each is one turn. With `on_missing="skip"` those without a file are passed over."""
        times, poses = self._motion
        passes_over = self.dataset.on_missing == "skip"
        there = (n for n in range(number - 1, -1, -1) if not passes_over or self._cloud_path(n).name in self._cloud_names)
        return [
            Sweep(self.token(n), times[n], self.calibration.lidar_to_ego, poses[n], partial(self._read_cloud, n))
            for n in itertools.islice(there, count)
        ]

    def _expect_numbers(self, folder: Path, names: set[str], count: int) -> None:
        """DataError for files whose number is no frame's, which says that clouds and poses are not of one recording."""
        foreign = sorted(names - {f"{number:0{self._recording.digits}d}.bin" for number in range(count)})
        if foreign:
            raise DataError(
                f"{folder}: expected the {count} frames that have poses, {0:0{self._recording.digits}d}.bin and on, "
                f"got {len(foreign)} others, first {foreign[0][:40]!r}"
            )


def _detections_of_frames(labels: Labels, times: np.ndarray, poses: list[Transform], drive: str) -> list[Detections]:
    """Each frame's annotations in the global frame, with the velocity of each object over its neighbouring annotations."""
    order = np.argsort(labels.frame, kind="stable")
    track, frame = labels.track[order], labels.frame[order]
    ends = np.searchsorted(frame, np.arange(len(times) + 1))
    rows = [order[start:stop] for start, stop in itertools.pairwise(ends)]
    moved = [labels.boxes[own].transformed(pose) for own, pose in zip(rows, poses, strict=True)]
    boxes = concatenate(moved) if moved else Boxes3D.empty()  # in `order`

    by_track = np.lexsort((frame, track))  # rows of one object follow each other in time
    same = track[by_track][1:] == track[by_track][:-1]
    before, after = np.full(len(order), -1), np.full(len(order), -1)
    before[by_track[1:][same]], after[by_track[:-1][same]] = by_track[:-1][same], by_track[1:][same]
    velocity = annotation_velocity(boxes.center, times[frame], before, after)

    result = []
    for (start, stop), own in zip(itertools.pairwise(ends), rows, strict=True):
        part = boxes[start:stop]
        result.append(
            Detections(
                Boxes3D(part.center, part.size, part.yaw, velocity[start:stop, :2]),
                labels.label[own],
                np.ones(len(own)),
                NUSCENES_DETECTION,
                instance=np.array([f"{drive}-{number}" for number in labels.track[own]], dtype=np.str_),
                visibility=labels.visibility[own],
            )
        )
    return result


def _file_names(folder: Path, endings: tuple[str, ...]) -> set[str]:
    """Names of the files in a folder with one of the endings. DataError where the folder cannot be read."""
    try:
        return {path.name for path in folder.iterdir() if path.suffix in endings and not path.name.startswith(".")}
    except OSError as error:
        raise DataError(f"{folder}: expected a folder of files {' or '.join(endings)}, got {error.strerror or error}") from None
