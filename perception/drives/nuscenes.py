"""nuScenes drives: frames with poses, calibration, cameras and truth, read from the tables without the official devkit."""

import json
import logging
from collections.abc import Callable, Iterator
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from perception.core.borders import boxes_from_nuscenes
from perception.core.classes import CATEGORY_TO_CLASS, NUSCENES_DETECTION
from perception.core.detections import Detections
from perception.core.errors import DataError, UsageError, nearest_hint
from perception.core.files import inside
from perception.core.frame import Camera, Frame, Sweep
from perception.core.pointcloud import PointCloud
from perception.core.transform import Transform, quaternions_to_matrices
from perception.drives.clouds import read_rows
from perception.drives.images import read_image
from perception.drives.nuscenes_index import open_index

OnMissing = Literal["error", "skip", "empty"]
LIDAR = "LIDAR_TOP"
_LIDAR_COLUMNS = ("x", "y", "z", "intensity", "ring")
_OWN_FOLDER = "got a version's own folder; give the one above it: {}"
log = logging.getLogger(__name__)


class NuScenes:
    """One version of a nuScenes data set: `NuScenes("/data/nuscenes").drives("val")`.

    dataroot    folder that holds the version folders, `samples/` and `sweeps/`
    version     e.g. "v1.0-mini"; may be left out where the dataroot holds one version only
    on_missing  what to do with a frame whose lidar file is not there: raise ("error"), leave the frame out ("skip"), give it a cloud
                without points ("empty"); `missing` counts them. With an earlier sweep of a frame likewise, in `missing_sweeps`: "skip"
                leaves it out as if the drive did not have it, and no older one moves up; with "empty" it is there without points
    cameras, truth  set to False to leave them out of the frames, which is faster where nobody looks at them
    Raises UsageError for an unknown version or split, DataError for broken tables.
    """

    def __init__(
        self,
        dataroot: Path | str,
        version: str | None = None,
        *,
        on_missing: OnMissing = "error",
        cameras: bool = True,
        truth: bool = True,
        cache: Path | None = None,
        tell: Callable[[str], None] = log.info,
    ) -> None:
        self.dataroot = Path(dataroot)
        self.version = version or _only_version(self.dataroot)
        if not (self.dataroot / self.version / "sample.json").is_file():
            known = find_versions(self.dataroot)
            found = f"found {', '.join(known)}" if known else "found no version there"
            if not known and (self.dataroot / "sample.json").is_file():
                found = _OWN_FOLDER.format(self.dataroot.resolve().parent)
            hint = nearest_hint(self.version, known)
            raise UsageError(f"{self.dataroot}: version {self.version!r}: expected a folder with sample.json, {found}{hint}")
        self.index = open_index(self.dataroot / self.version, cache=cache, tell=tell)
        self.on_missing = expect_on_missing(on_missing)
        self.missing: set[str] = set()  # sample tokens whose lidar file was not there
        self.missing_sweeps: set[str] = set()  # sample_data tokens of the earlier sweeps whose file was not there
        self.has_cameras, self.has_truth = cameras, truth and len(self.index.tables["annotation"]) > 0
        if LIDAR not in self.index.names["channel"]:
            names = ", ".join(map(repr, self.index.names["channel"])) or "no lidar and no camera"
            raise DataError(f"{self._file('sensor')}: expected a sensor {LIDAR}, got {names}")
        to_class = [CATEGORY_TO_CLASS.get(name) for name in self.index.names["category"]]
        self._label_of_category = np.array([-1 if name is None else NUSCENES_DETECTION.index(name) for name in to_class], np.int64)
        self._attributes = np.array([*self.index.names["attribute"], ""])
        self._lidar_channel = self.index.names["channel"].index(LIDAR)
        self._has_intrinsics = np.isfinite(self.index.numbers("calibration", "intrinsics")).all(axis=(1, 2))
        self._calibrations: dict[int, Transform] = {}

    @property
    def scene_names(self) -> list[str]:
        """All scenes, in the order of the scene table."""
        return list(self.index.scene_row)

    def split(self, name: str) -> list[str]:
        """Scene names of a split, in the order of the scene table: an official one, or one of the version's own `splits.json`.

        Raises UsageError for an unknown split or one made for another version, DataError for scenes that the version lacks.
        """
        custom = self._custom_splits()
        official = official_splits()
        ending = {"mini_train": "mini", "mini_val": "mini", "test": "test"}.get(
            name, "trainval"
        )  # of the versions that have an official split
        if name in official and self.version.endswith(ending):
            scenes = official[name]
        elif name in custom:
            scenes = list(dict.fromkeys(custom[name]))
        elif name in official:
            raise UsageError(f"split {name!r} belongs to a version v1.0-{ending}, got {self.version}")
        else:
            known = sorted({*custom, *official})
            raise UsageError(f"split {name!r}: expected one of {', '.join(map(repr, known))}{nearest_hint(name, known)}")
        absent = [scene for scene in scenes if scene not in self.index.scene_row]
        if absent:
            counts = f"{len(absent)} of its {len(scenes)} scenes are not in scene.json"
            raise DataError(f"{self.dataroot / self.version}: split {name!r}: {counts}, first {absent[0]!r}")
        return sorted(scenes, key=self.index.scene_row.__getitem__)

    def drive(self, scene: str) -> "NuScenesDrive":
        """The drive of a scene by name."""
        if scene not in self.index.scene_row:
            raise UsageError(f"scene {scene!r}: not in {self.version}{nearest_hint(scene, self.scene_names)}")
        return NuScenesDrive(self, self.index.scene_row[scene])

    def drives(self, split: str | None = None) -> list["NuScenesDrive"]:
        """The drives of a split, or of all scenes."""
        return [self.drive(scene) for scene in (self.scene_names if split is None else self.split(split))]

    def frame(self, sample: int | str) -> Frame:
        """The frame of a sample, by row of the index or token."""
        index = self.index
        if isinstance(sample, str):
            if sample not in index.sample_row:
                raise UsageError(f"sample {sample!r}: not in {self.version}")
            sample = index.sample_row[sample]
        records = index.numbers("sample", "key_record")[sample].tolist()
        lidar = records[self._lidar_channel]
        token = index.text("sample", "token", sample)
        if lidar < 0:
            raise DataError(f"{self._file('sample_data')}: sample {token!r}: expected a key frame of {LIDAR}, found none")
        cameras: dict[str, int] = {}
        if self.has_cameras:
            calibration = index.numbers("record", "calibration")
            cameras = {
                channel: record
                for channel, record in zip(index.names["channel"], records, strict=True)
                if record >= 0 and self._has_intrinsics[calibration[record]]
            }
        ego_to_global, *camera_poses = self._ego_to_global([lidar, *cameras.values()])
        return Frame(
            token=token,
            timestamp_us=int(index.numbers("sample", "timestamp")[sample]),
            lidar_to_ego=self._sensor_to_ego(lidar),
            ego_to_global=ego_to_global,
            cameras={
                channel: self._camera(channel, record, pose) for (channel, record), pose in zip(cameras.items(), camera_poses, strict=True)
            },
            truth=self._truth(sample) if self.has_truth else None,
            read_cloud=partial(self._read_cloud, lidar, f"file of sample {token!r}", self.missing, token),
            find_sweeps=partial(self._find_sweeps, lidar, token),
        )

    def lidar_path(self, sample: int) -> Path:
        """The lidar file of a sample's key frame (row of the index)."""
        return self._path(int(self.index.numbers("sample", "key_record")[sample, self._lidar_channel]))

    def lidar_paths(self, samples: range) -> list[Path]:
        """The lidar files of the samples of one scene (rows of the index), of the sweeps between them and of those before the first."""
        index = self.index
        records = index.numbers("sample", "key_record")[samples, self._lidar_channel]
        records = records[records >= 0]
        if len(records) == 0:
            return []
        channel, sample = index.numbers("record", "channel"), index.numbers("record", "sample")
        scene, first = index.numbers("sample", "scene"), int(records.min())
        while first and channel[first - 1] == self._lidar_channel and scene[sample[first - 1]] == scene[samples[0]]:
            first -= 1  # records are sorted by scene, channel and time
        return [self._path(record) for record in range(first, int(records.max()) + 1)]

    def _truth(self, sample: int) -> Detections:
        """Annotations of the scored classes, in the global frame, in the order of the table."""
        index = self.index
        first = int(index.numbers("sample", "first_annotation")[sample])
        rows = np.arange(first, first + int(index.numbers("sample", "num_annotations")[sample]))
        label = self._label_of_category[index.numbers("annotation", "category")[rows]]
        rows, label = rows[label >= 0], label[label >= 0]

        def column(name: str) -> np.ndarray:
            return index.numbers("annotation", name)[rows]

        return Detections(
            boxes_from_nuscenes(column("translation"), column("size"), column("rotation"), column("velocity")[:, :2]),
            label,
            np.ones(len(rows)),
            NUSCENES_DETECTION,
            attribute=self._attributes[column("attribute")],
            num_points=column("num_lidar_pts"),
            instance=self._instances[column("instance")],
            visibility=column("visibility"),
        )

    @cached_property
    def _instances(self) -> np.ndarray:
        """(I,) str, the instances' tokens."""
        return np.array(self.index.texts("instance", "token"), dtype=np.str_)

    def _camera(self, channel: str, record: int, ego_to_global: Transform) -> Camera:
        index = self.index
        calibration = int(index.numbers("record", "calibration")[record])
        return Camera(
            name=channel,
            token=index.text("record", "token", record),
            size=(int(index.numbers("record", "width")[record]), int(index.numbers("record", "height")[record])),
            intrinsics=np.array(index.numbers("calibration", "intrinsics")[calibration]),
            camera_to_ego=self._sensor_to_ego(record),
            ego_to_global=ego_to_global,
            timestamp_us=int(index.numbers("record", "timestamp")[record]),
            read_image=partial(read_image, self._path(record)),
        )

    def _ego_to_global(self, records: list[int]) -> list[Transform]:
        """The ego pose of each record; all at once, because one quaternion takes as long as seven."""
        rotations = quaternions_to_matrices(self.index.numbers("record", "ego_rotation")[records])
        translations = self.index.numbers("record", "ego_translation")[records]
        return [Transform(rotation, translation) for rotation, translation in zip(rotations, translations, strict=True)]

    def _sensor_to_ego(self, record: int) -> Transform:
        row = int(self.index.numbers("record", "calibration")[record])
        if row not in self._calibrations:
            rotation, translation = (self.index.numbers("calibration", name)[row] for name in ("rotation", "translation"))
            self._calibrations[row] = Transform.from_quaternion(rotation, np.array(translation))
        return self._calibrations[row]

    def _file(self, table: str) -> Path:
        return self.dataroot / self.version / f"{table}.json"

    def _path(self, record: int) -> Path:
        name = self.index.text("record", "filename", record)
        return inside(self.dataroot, name, where=f"{self._file('sample_data')}: filename")

    def _find_sweeps(self, record: int, sample_token: str, count: int) -> list[Sweep]:
        """The lidar records of the same scene before a key frame's, nearest in time first; never more than `count` steps back."""
        index = self.index
        rows = np.arange(record, max(record - 1 - count, -1), -1)
        channel, scene = index.numbers("record", "channel")[rows], index.numbers("sample", "scene")[index.numbers("record", "sample")[rows]]
        rows = rows[(channel == channel[0]) & (scene == scene[0])][1:].tolist()  # sorted by scene and channel, so there are no gaps
        sweeps = []
        for row, ego_to_global in zip(rows, self._ego_to_global(rows), strict=True):
            token = index.text("record", "token", row)
            if self.on_missing == "skip" and not _is_there(self._path(row)):
                self.missing_sweeps.add(token)
                continue
            what = f"sweep {token!r} before sample {sample_token!r}"
            sweeps.append(
                Sweep(
                    token=token,
                    timestamp_us=int(index.numbers("record", "timestamp")[row]),
                    lidar_to_ego=self._sensor_to_ego(row),
                    ego_to_global=ego_to_global,
                    read_cloud=partial(self._read_cloud, row, what, self.missing_sweeps, token),
                )
            )
        return sweeps

    def _read_cloud(self, record: int, what: str, missing: set[str], token: str) -> PointCloud:
        """The lidar file of a record in its lidar frame; one that is not there goes into `missing` by `token`, or is an error."""
        path = self._path(record)
        rows = read_rows(path, _LIDAR_COLUMNS)
        if rows is None:
            if self.on_missing == "error":
                raise DataError(f"{path}: the lidar {what} is missing; on_missing='skip' or 'empty' (--on-missing) goes on without it")
            missing.add(token)
            rows = np.zeros((0, 5), np.float32)
        ring = rows[:, 4].astype(np.int64)
        rows[:, 4] = 0  # age
        return PointCloud(rows, ring)

    def _custom_splits(self) -> dict[str, list[str]]:
        path = self.dataroot / self.version / "splits.json"
        if not path.is_file():
            return {}
        try:
            if (size := path.stat().st_size) > 16 << 20:
                raise DataError(f"{path}: expected at most 16 MiB, got {size} bytes")
            splits: Any = json.loads(path.read_bytes())
        except OSError as error:
            raise DataError(f"{path}: expected a readable file, got {error.strerror or error}") from None
        except DataError:
            raise
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: invalid JSON: {error}") from None
        if not isinstance(splits, dict) or not all(isinstance(s, list) and all(isinstance(n, str) for n in s) for s in splits.values()):
            raise DataError(f"{path}: expected {{split: [scene names]}}")
        return splits


class NuScenesDrive:
    """The key frames of one scene, in time order (a `Drive`)."""

    def __init__(self, dataset: NuScenes, scene: int) -> None:
        self.dataset = dataset
        self.name = dataset.index.text("scene", "name", scene)
        first = int(dataset.index.numbers("scene", "first_sample")[scene])
        self._samples = range(first, first + int(dataset.index.numbers("scene", "num_samples")[scene]))

    @property
    def tokens(self) -> list[str]:
        """Sample tokens, one a frame."""
        return self.dataset.index.texts("sample", "token", slice(self._samples.start, self._samples.stop))

    @property
    def lidar_paths(self) -> list[Path]:
        """The files that its clouds are read from, earlier sweeps included; they need not be there."""
        return self.dataset.lidar_paths(self._samples)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Frame:
        return self.dataset.frame(self._samples[index])

    def __iter__(self) -> Iterator[Frame]:
        """The frames; under `on_missing="skip"` those without their lidar file are left out and counted."""
        for sample in self._samples:
            frame = self.dataset.frame(sample)
            if self.dataset.on_missing == "skip" and not _is_there(self.dataset.lidar_path(sample)):
                self.dataset.missing.add(frame.token)
                continue
            yield frame

    def __repr__(self) -> str:
        return f"NuScenesDrive({self.name}, {len(self)} frames)"


@cache
def official_splits() -> dict[str, list[str]]:
    """Scene names of the official splits; the numbers stand in `nuscenes_splits.json` beside this file."""
    numbers = json.loads((Path(__file__).parent / "nuscenes_splits.json").read_text())
    return {split: [f"scene-{number:04d}" for number in scenes] for split, scenes in numbers.items()}


def expect_on_missing(name: str) -> OnMissing:
    """The policy of that name; UsageError for another one."""
    for policy in ("error", "skip", "empty"):
        if name == policy:
            return policy
    raise UsageError(f"on_missing {name!r}: expected error, skip or empty")


def find_versions(dataroot: Path) -> list[str]:
    """Names of the version folders in a dataroot."""
    return sorted(path.parent.name for path in dataroot.glob("*/sample.json"))


def _only_version(dataroot: Path) -> str:
    if not dataroot.is_dir():
        raise DataError(f"{dataroot}: expected the folder of a nuScenes data set, found none")
    versions = find_versions(dataroot)
    if len(versions) == 1:
        return versions[0]
    if (dataroot / "sample.json").is_file():
        raise UsageError(f"{dataroot}: expected the folder above the versions, {_OWN_FOLDER.format(dataroot.resolve().parent)}")
    found = f"found {', '.join(versions)}: choose one with --version" if versions else "found none"
    raise UsageError(f"{dataroot}: expected a version folder (v1.0-mini, ...) with sample.json, {found}")


def _is_there(path: Path) -> bool:
    """Whether something has this name; what cannot be read is there."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True
