"""KITTI's annotated objects: the label files of the tracking benchmark and the tracklets of the raw recordings."""

import xml.etree.ElementTree as ET  # with a builder that refuses what makes XML dangerous, see _CarefulBuilder
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perception.core.borders import CAMERA_TO_FORWARD, boxes_from_kitti, boxes_from_kitti_tracklets
from perception.core.boxes import Boxes3D
from perception.core.classes import KITTI_TO_NUSCENES, NUSCENES_DETECTION
from perception.core.errors import DataError, shown
from perception.drives.kitti_calibration import Calibration
from perception.drives.kitti_text import expect_fields, read_bytes, read_rows, to_integer, to_number

LABEL_FIELDS = (
    "frame", "track_id", "type", "truncated", "occluded", "alpha", "left", "top", "right", "bottom", "height", "width", "length",
    "x", "y", "z", "rotation_y",
)  # fmt: skip
_MAX_FRAME = 10**6
# KITTI says "fully visible", "partly" and "largely occluded", without a share; nuScenes' levels are 4 (80-100 % visible) to 1 (0-40 %).
_VISIBILITY = {"0": 4, "1": 2, "2": 1}
_MAX_ELEMENTS, _MAX_DEPTH = 4_000_000, 64  # a drive of 400 frames with 100 objects in each has 0.7 million elements, six deep


@dataclass(frozen=True, eq=False)
class Labels:
    """The annotations of one drive whose class the detection benchmark has, in the order of the file.

    frame       (N,) int64    number of the frame
    track       (N,) int64    number of the object, the same in all frames
    label       (N,) int64    index into NUSCENES_DETECTION
    boxes       Boxes3D of length N, each in the ego frame of its own moment, velocity unknown
    visibility  (N,) int64    as of `Detections`
    """

    frame: np.ndarray
    track: np.ndarray
    label: np.ndarray
    boxes: Boxes3D
    visibility: np.ndarray


def read_labels(path: Path, calibration: Calibration) -> Labels:
    """From `label_02/0000.txt`: a line an object and frame, in the rectified frame of camera 0.

    DontCare, regions of the image with objects too far or too many to label, is left out: there the truth lacks objects.
    Raises DataError naming line and field, also where an object comes twice in a frame.
    """
    found = _Rows()
    for number, fields in enumerate(read_rows(path, "labels"), start=1):
        where = f"{path}: line {number}"
        expect_fields(where, fields, LABEL_FIELDS)
        frame = to_integer(where, "frame", fields[0], low=0, high=_MAX_FRAME)
        name = KITTI_TO_NUSCENES.get(fields[2])
        if name is None:
            continue
        track = to_integer(where, "track_id", fields[1], low=0, high=10**9)
        size = [to_number(where, name, fields[i], low=1e-3, high=1e3) for i, name in enumerate(LABEL_FIELDS[10:13], start=10)]
        place = [to_number(where, name, fields[i], low=-1e6, high=1e6) for i, name in enumerate(LABEL_FIELDS[13:16], start=13)]
        turn = to_number(where, "rotation_y", fields[16], low=-100, high=100)
        found.add(where, frame, track, name, [*size, *place, turn], fields[4])
    return found.labels(lambda *columns: boxes_from_kitti(*columns).transformed(calibration.rectified_to_ego @ CAMERA_TO_FORWARD.inverse()))


def read_tracklets(path: Path, calibration: Calibration) -> Labels:
    """From `tracklet_labels.xml`: an object has one size and a pose for each frame from its first one on, in the lidar frame.

    Poses that the annotators left unset are left out; those beside or behind the image are not, `Frame.labelled_view` tells them apart.
    Tilt (rx, ry) is dropped; it is 0 in the recordings. Raises DataError naming object, pose and field.
    """
    items, count = _items(_parse(path).find("tracklets"), f"{path}: tracklets")
    if len(items) != count:
        raise DataError(f"{path}: tracklets: expected {count} objects as its count says, got {len(items)}")
    found = _Rows()
    for track, item in enumerate(items):
        where = f"{path}: object {track}"
        name = KITTI_TO_NUSCENES.get(_text(where, item, "objectType"))
        if name is None:
            continue
        size = [to_number(where, key, _text(where, item, key), low=1e-3, high=1e3) for key in "hwl"]
        first = to_integer(where, "first_frame", _text(where, item, "first_frame"), low=0, high=_MAX_FRAME)
        poses, count = _items(item.find("poses"), f"{where}: poses")
        if len(poses) != count:
            raise DataError(f"{where}: expected {count} poses as their count says, got {len(poses)}")
        for i, pose in enumerate(poses):
            at = f"{where}: pose {i}"
            if _text(at, pose, "state") == "0":
                continue
            place = [to_number(at, key, _text(at, pose, key), low=-1e6, high=1e6) for key in ("tx", "ty", "tz")]
            turn = to_number(at, "rz", _text(at, pose, "rz"), low=-100, high=100)
            found.add(at, first + i, track, name, [*size, *place, turn], _text(at, pose, "occlusion"))
    return found.labels(lambda *columns: boxes_from_kitti_tracklets(*columns).transformed(calibration.lidar_to_ego))


class _Rows:
    """Annotations while they are read."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, int, int, int]] = []
        self._numbers: list[list[float]] = []
        self._seen: dict[tuple[int, int], str] = {}

    def add(self, where: str, frame: int, track: int, name: str, numbers: list[float], occlusion: str) -> None:
        first = self._seen.setdefault((frame, track), where)
        if first != where:
            raise DataError(f"{where}: object {track} comes twice in frame {frame}, first in {first.rpartition(': ')[2]}")
        self._rows.append((frame, track, NUSCENES_DETECTION.index(name), _VISIBILITY.get(occlusion, 0)))
        self._numbers.append(numbers)

    def labels(self, to_boxes: Callable[[np.ndarray, np.ndarray, np.ndarray], Boxes3D]) -> Labels:
        """`to_boxes` takes dimensions (N, 3), location (N, 3) and turn (N,)."""
        columns = np.array(self._rows, np.int64).reshape(-1, 4).T
        numbers = np.array(self._numbers, np.float64).reshape(-1, 7)
        return Labels(columns[0], columns[1], columns[2], to_boxes(numbers[:, :3], numbers[:, 3:6], numbers[:, 6]), columns[3])


class _CarefulBuilder(ET.TreeBuilder):
    """Builds the tree of a file from anywhere: no DOCTYPE, hence no entities that grow or that read other files; size and depth bounded."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path, self._count, self._depth = path, 0, 0

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:  # noqa: ARG002  # the parser gives three
        raise DataError(f"{self._path}: expected XML without DOCTYPE, got one ({shown(name)}); refused")

    def start(self, tag: Any, attrs: dict[Any, Any], /) -> Any:
        self._count += 1
        self._depth += 1
        if self._count > _MAX_ELEMENTS or self._depth > _MAX_DEPTH:
            raise DataError(f"{self._path}: expected at most {_MAX_ELEMENTS} elements, {_MAX_DEPTH} deep, got more; refused")
        return super().start(tag, attrs)

    def end(self, tag: str, /) -> Any:
        self._depth -= 1
        return super().end(tag)


def _parse(path: Path) -> ET.Element:
    content = read_bytes(path, "tracklets")
    parser = ET.XMLParser(target=_CarefulBuilder(path))  # noqa: S314
    try:
        parser.feed(content)
        return parser.close()
    except ET.ParseError as error:
        raise DataError(f"{path}: expected XML, got {error}") from None
    except (ValueError, LookupError) as error:  # an encoding that Python does not have, or not for XML
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: expected XML in a known encoding, got {shown(str(error))}") from None


def _items(parent: ET.Element | None, where: str) -> tuple[list[ET.Element], int]:
    """The items of a list of boost's archives, and what its count says."""
    if parent is None:
        raise DataError(f"{where}: expected a list, found none")
    return parent.findall("item"), to_integer(where, "count", _text(where, parent, "count"), low=0, high=_MAX_ELEMENTS)


def _text(where: str, element: ET.Element, key: str) -> str:
    text = element.findtext(key)
    if text is None:
        raise DataError(f"{where}: expected a field {key}, found none")
    return text.strip()
