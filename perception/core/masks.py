"""Instance masks of pictures in COCO's annotation format, one JSON file a drive.

Beside COCO's own fields (images, categories, annotations with a run-length coded `segmentation`, and the `score` that COCO's result files
have) an image names its `sample_data_token` and `sample_token`, an annotation its `sample_data_token` and `instance_token`: names of
nuScenes' tables. Source: the public COCO data format.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from perception.core.classes import NUSCENES_DETECTION, ClassSet
from perception.core.errors import DataError, UsageError, nearest_hint, shown
from perception.core.files import write_bytes
from perception.core.rle import MAX_PIXELS, decode_rle

MAX_BYTES = 256 << 20  # of a file that is read; a drive of 40 key frames has about 2 MiB, one of 2,000 frames with four cameras 160
_HAIR = 1e-3  # pixels


@dataclass(frozen=True, eq=False)
class PictureMasks:
    """The N instances that one picture shows.

    token      sample_data token of the picture
    sample     sample token of its key frame, "" where the file names none
    file_name  of the picture, below the data root
    size       (width, height) pixels
    label      (N,) int64     rows of `classes`
    instance   (N,) str       instance token, "" where the file names none
    box        (N, 4) float64 x0, y0, x1, y1 in pixels: a mask begins at x0 and ends before x1
    area       (N,) int64     pixels
    rle        N masks {"size": [h, w], "counts": text}, see `mask`
    where      names of the N annotations in messages; without them the file name and the row
    score      (N,) float64   0 to 1, what a network thinks of its finds; None for truth
    """

    token: str
    sample: str
    file_name: str
    size: tuple[int, int]
    label: np.ndarray
    instance: np.ndarray
    box: np.ndarray
    area: np.ndarray
    rle: tuple[Mapping[str, Any], ...]
    where: tuple[str, ...] = ()
    classes: ClassSet = NUSCENES_DETECTION
    score: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.label)

    def mask(self, index: int) -> np.ndarray:
        """(h, w) bool of one instance. Raises DataError where the code is damaged or has another number of pixels than `area`."""
        where = self.where[index] if self.where else f"{self.file_name}: instance {index}"
        mask = decode_rle(self.rle[index], where=f"{where}: segmentation")
        if (pixels := np.count_nonzero(mask)) != self.area[index]:
            raise DataError(f"{where}: area: expected the {pixels} pixels of its mask, got {self.area[index]}")
        return mask

    def __repr__(self) -> str:
        return f"PictureMasks({self.file_name}, {len(self)} instances)"


def write_masks(path: Path, pictures: Sequence[PictureMasks], *, info: Mapping[str, str] | None = None) -> None:
    """Write pictures of one class set into a COCO file, completely or not at all; the same pictures give the same bytes.

    info  what the file says about itself
    Ids count from 1, as COCO's own tools expect: images, annotations, categories (a class's row + 1).
    """
    classes = pictures[0].classes if pictures else NUSCENES_DETECTION
    document: dict[str, Any] = {
        "info": dict(info or {}),
        "licenses": [],
        "categories": [{"id": i + 1, "name": name, "supercategory": ""} for i, name in enumerate(classes.names)],
        "images": [],
        "annotations": [],
    }
    for number, picture in enumerate(pictures, start=1):
        if picture.classes != classes:
            raise DataError(f"{path}: expected pictures of one class set, got another one for {picture.file_name}")
        width, height = picture.size
        document["images"].append(
            {"id": number, "file_name": picture.file_name, "width": width, "height": height}
            | {"sample_data_token": picture.token, "sample_token": picture.sample}
        )
        for i in range(len(picture)):
            x0, y0, x1, y1 = picture.box[i].tolist()
            document["annotations"].append(
                {"id": len(document["annotations"]) + 1, "image_id": number, "category_id": int(picture.label[i]) + 1}
                | {"segmentation": dict(picture.rle[i]), "bbox": [x0, y0, x1 - x0, y1 - y0], "area": int(picture.area[i]), "iscrowd": 0}
                | {"instance_token": str(picture.instance[i]), "sample_data_token": picture.token}
                | ({} if picture.score is None else {"score": float(picture.score[i])})
            )
    write_bytes(Path(path), orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY))


def read_masks(
    path: Path | str, *, classes: ClassSet = NUSCENES_DETECTION, class_of: Callable[[str], str | None] | None = None
) -> dict[str, PictureMasks]:
    """The pictures of a COCO file by their sample_data token, in the file's order, those without instances too.

    classes   labels are rows of it, by the categories' names
    class_of  the class of a category's name, UsageError for an unknown one; annotations of a category without a class (None) are left
              out. Without it categories have the names of `classes`
    A file without tokens has its pictures by their file name. Raises DataError in one line, with the row, for a file that is missing, above
    MAX_BYTES or no such document, and for what does not fit together; masks are decoded, and judged, when they are asked for.
    """
    path = Path(path)
    document = _read(path)
    rows = {name: _rows(path, document, name) for name in ("categories", "images", "annotations")}
    labels: dict[int, int] = {}
    for i, row in enumerate(rows["categories"]):
        where = f"{path}: categories[{i}]"
        _add(labels, _whole(row, "id", where), _label(row.get("name"), classes, class_of, where), where)
    images: dict[int, int] = {}
    for i, row in enumerate(rows["images"]):
        _add(images, _whole(row, "id", f"{path}: images[{i}]"), i, f"{path}: images[{i}]")
    members: list[list[int]] = [[] for _ in images]
    for i, row in enumerate(rows["annotations"]):
        number = _whole(row, "image_id", f"{path}: annotations[{i}]")
        if number not in images:
            raise DataError(f"{path}: annotations[{i}]: image_id: expected the id of an image, got {number}")
        members[images[number]].append(i)
    found: dict[str, PictureMasks] = {}
    for i, row in enumerate(rows["images"]):
        where = f"{path}: images[{i}]"
        own = [(f"{path}: annotations[{k}]", rows["annotations"][k]) for k in members[i]]
        picture = _picture(row, where, own, labels, classes)
        key = picture.token or picture.file_name
        if key in found:
            raise DataError(f"{where}: expected pictures of different names, got {shown(key)} again")
        found[key] = picture
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise DataError(f"{path}: expected at most {MAX_BYTES >> 20} MiB, got {size} bytes")
        document = orjson.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: expected a readable file, got {error.strerror or error}") from None
    except orjson.JSONDecodeError as error:
        raise DataError(f"{path}: invalid JSON: {error}") from None
    if not isinstance(document, dict):
        raise DataError(f"{path}: expected an object with images, categories and annotations, got {shown(document)}")
    return document


def _rows(path: Path, document: dict[str, Any], name: str) -> list[dict[str, Any]]:
    rows = document.get(name)
    if not isinstance(rows, list):
        raise DataError(f"{path}: {name}: expected a list, got {shown(rows)}")
    for i, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DataError(f"{path}: {name}[{i}]: expected an object, got {shown(row)}")
    return rows


def _label(name: object, classes: ClassSet, class_of: Callable[[str], str | None] | None, where: str) -> int:
    """The row of `classes` for a category's name, -1 for one without a class."""
    if class_of is not None and isinstance(name, str):
        try:
            name = class_of(name)
        except UsageError as error:
            raise DataError(f"{where}: name: {error}") from None
        if name is None:
            return -1
    if not isinstance(name, str) or name not in classes:
        hint = nearest_hint(str(name), classes.names)
        raise DataError(f"{where}: name: expected one of {', '.join(classes.names)}, got {shown(name)}{hint}")
    return classes.index(name)


def _add(known: dict[int, int], number: int, value: int, where: str) -> None:
    if number in known:
        raise DataError(f"{where}: id: expected different ids, got {number} again")
    known[number] = value


def _picture(
    row: dict[str, Any], where: str, annotations: list[tuple[str, dict[str, Any]]], labels: dict[int, int], classes: ClassSet
) -> PictureMasks:
    width, height = _whole(row, "width", where), _whole(row, "height", where)
    if not (width > 0 and height > 0 and width * height <= MAX_PIXELS):
        raise DataError(f"{where}: expected width and height of 1 to {MAX_PIXELS} pixels in all, got {width} x {height}")
    token = _text(row, "sample_data_token", where)
    label, box, area, rle, instance, score, kept = [], [], [], [], [], [], []
    for place, own in annotations:
        category = _whole(own, "category_id", place)
        if category not in labels:
            raise DataError(f"{place}: category_id: expected the id of a category, got {category}")
        if labels[category] < 0:
            continue
        if _text(own, "sample_data_token", place) not in ("", token):
            raise DataError(
                f"{place}: sample_data_token: expected that of its image, {shown(token)}, got {shown(own['sample_data_token'])}"
            )
        segmentation = own.get("segmentation")
        if not isinstance(segmentation, dict) or segmentation.get("size") != [height, width]:
            raise DataError(f"{place}: segmentation: expected a run-length code of size [{height}, {width}], got {shown(segmentation)}")
        label.append(labels[category])
        box.append(_box(own, width, height, place))
        area.append(_whole(own, "area", place))
        rle.append(segmentation)
        instance.append(_text(own, "instance_token", place))
        score.append(_score(own, place))
        kept.append(place)
    has_scores = any(one is not None for one in score)
    return PictureMasks(
        token=token,
        sample=_text(row, "sample_token", where),
        file_name=_text(row, "file_name", where),
        size=(width, height),
        label=np.array(label, np.int64),
        instance=np.array(instance, np.str_),
        box=np.array(box, np.float64).reshape(-1, 4),
        area=np.array(area, np.int64),
        rle=tuple(rle),
        where=tuple(kept),
        classes=classes,
        score=np.array([1.0 if one is None else one for one in score]) if has_scores else None,
    )


def _box(row: dict[str, Any], width: int, height: int, where: str) -> list[float]:
    box = row.get("bbox")
    if isinstance(box, list) and len(box) == 4 and all(isinstance(n, (int, float)) and not isinstance(n, bool) for n in box):
        x, y, wide, high = box
        # float32 arithmetic of who wrote the file may end a hair beyond the border
        if x >= 0 and y >= 0 and wide > 0 and high > 0 and x + wide <= width + _HAIR and y + high <= height + _HAIR:
            return [x, y, min(x + wide, width), min(y + high, height)]
    raise DataError(f"{where}: bbox: expected x, y, width, height within {width} x {height} pixels, got {shown(box)}")


def _score(row: dict[str, Any], where: str) -> float | None:
    score = row.get("score")
    if score is not None and not (isinstance(score, (int, float)) and not isinstance(score, bool) and 0 <= score <= 1):
        raise DataError(f"{where}: score: expected a number of 0 to 1, got {shown(score)}")
    return score


def _whole(row: dict[str, Any], name: str, where: str) -> int:
    """A whole number of 0 to 2^53; COCO's own files write areas as 12.0."""
    value = row.get(name)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 2**53:
        raise DataError(f"{where}: {name}: expected a whole number, 0 or more, got {shown(value)}")
    return value


def _text(row: dict[str, Any], name: str, where: str) -> str:
    value = row.get(name, "")
    if not isinstance(value, str):
        raise DataError(f"{where}: {name}: expected text, got {shown(value)}")
    return value
