"""nuScenes submission files (detection and tracking) as columns: read and written a few megabytes at a time.

File: {"meta": {...}, "results": {sample token: [box, ...]}}. A box has sample_token, translation (3,) metres, global; size (3,) = w l h;
rotation (4,) = w x y z; velocity (2,) m/s, global; and detection_name, detection_score, attribute_name, or tracking_id, tracking_name,
tracking_score. Schema: nuScenes devkit, `eval/detection/README.md` and `eval/tracking/README.md`.
"""

import contextlib
import gc
import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, repeat
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar

import numpy as np
import orjson

from perception.core.borders import boxes_from_nuscenes, boxes_to_nuscenes
from perception.core.boxes import Boxes3D
from perception.core.classes import NUSCENES_ATTRIBUTES, NUSCENES_DETECTION, NUSCENES_TRACKING, ClassSet
from perception.core.detections import Detections, Tracks
from perception.core.errors import DataError, nearest_hint, shown
from perception.core.files import atomic_write
from perception.core.json_stream import iter_object_of_lists

Task = Literal["detection", "tracking"]
Objects = TypeVar("Objects", Detections, Tracks)
MAX_BOXES = 500  # a sample; official limit of both tasks
CLASSES: dict[Task, ClassSet] = {"detection": NUSCENES_DETECTION, "tracking": NUSCENES_TRACKING}
LIDAR_META = {"use_camera": False, "use_lidar": True, "use_radar": False, "use_map": False, "use_external": False}
_ATTRIBUTES = (*NUSCENES_ATTRIBUTES, "")
_ATTRIBUTE_INDEX = {name: i for i, name in enumerate(_ATTRIBUTES)}
_VECTORS = {"translation": 3, "size": 3, "rotation": 4, "velocity": 2}
_SAMPLES_A_WRITE = 64
_MAX_ID_LENGTH = 256


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a submission: in which sample, in which of its boxes (None: the sample as a whole), and what."""

    sample: str
    box: int | None
    what: str

    def __str__(self) -> str:
        # Of a token only what fits on a line: no line breaks, control characters or halves of characters.
        token = self.sample if self.sample.isprintable() and 0 < len(self.sample) <= 60 else shown(self.sample)
        where = f"sample {token}" if self.sample or self.box is not None else "file"
        return f"{where}: {self.what}" if self.box is None else f"{where}: box {self.box}: {self.what}"


@dataclass(frozen=True, eq=False, repr=False)
class Submission:
    """All boxes of a submission; those of sample i are rows offset[i] to offset[i + 1].

    task         "detection" or "tracking"
    meta         the file's own "meta"
    tokens       (S,) sample tokens in the file's order
    offset       (S + 1,) int64
    translation  (N, 3), size (N, 3) = w l h, rotation (N, 4) = w x y z, velocity (N, 2): float64, global frame, as in the file
    label        (N,) int16 index into `classes`
    score        (N,) float64
    attribute    (N,) int16 index into the attribute names, the last of which is "" (detection only)
    tracking_id  (N,) str (tracking only)
    left_out     sample token -> numbers of its boxes that are not here because of their form, ascending
    """

    task: Task
    meta: dict[str, Any]
    tokens: list[str]
    offset: np.ndarray
    translation: np.ndarray
    size: np.ndarray
    rotation: np.ndarray
    velocity: np.ndarray
    label: np.ndarray
    score: np.ndarray
    attribute: np.ndarray | None = None
    tracking_id: np.ndarray | None = None
    left_out: dict[str, list[int]] = field(default_factory=dict)

    @property
    def classes(self) -> ClassSet:
        return CLASSES[self.task]

    @cached_property
    def sample_row(self) -> dict[str, int]:
        """Sample token -> number in `tokens`."""
        return {token: i for i, token in enumerate(self.tokens)}

    def rows(self, token: str) -> slice:
        """The rows of a sample's boxes; KeyError where the file has no such sample."""
        i = self.sample_row[token]
        return slice(int(self.offset[i]), int(self.offset[i + 1]))

    def detections(self, token: str) -> Detections:
        """The boxes of a sample in the global frame, in the file's order; KeyError where the file has no such sample."""
        rows = self.rows(token)
        return Detections(
            boxes_from_nuscenes(self.translation[rows], self.size[rows], self.rotation[rows], self.velocity[rows]),
            self.label[rows].astype(np.int64),
            self.score[rows],
            self.classes,
            attribute=None if self.attribute is None else _ATTRIBUTE_NAMES[self.attribute[rows]],
        )

    def __len__(self) -> int:
        return len(self.score)

    def __repr__(self) -> str:
        return f"Submission({self.task}, {len(self.tokens)} samples, {len(self)} boxes)"


_ATTRIBUTE_NAMES = np.array(_ATTRIBUTES)


def read_submission(path: Path, *, report: Callable[[Fault], None] | None = None) -> Submission:
    """Read a submission; whether it is of detection or tracking is seen from its boxes.

    report  receives every fault of form (boxes with one are left out); without it the first one raises DataError
    A file that is no JSON object with "results" raises DataError in either case. Values are not judged here: see `validation`.
    """
    path = Path(path)

    def raise_fault(fault: Fault) -> None:
        raise DataError(f"{path}: {fault}")

    reader = _Reader(report or raise_fault)
    meta: Any = None
    seen = False
    with _no_garbage_collection():
        for name, piece in iter_object_of_lists(path, "results", watch=reader.watch):
            if name is None:
                seen = True
                reader.add(piece)
            elif name == "meta":
                meta = piece["value"]
    if not seen:
        raise DataError(f"{path}: expected a nuScenes submission with the key 'results', found none")
    if not isinstance(meta, dict):
        reader.report(Fault("", None, f"meta: expected an object with use_lidar, use_camera, ..., got {shown(meta)}"))
    return reader.finish(meta if isinstance(meta, dict) else {})


@dataclass
class _Reader:
    """Collects the columns of a submission piece by piece."""

    report: Callable[[Fault], None]
    task: Task | None = None
    tokens: dict[str, int] = field(default_factory=dict)
    counts: list[int] = field(default_factory=list)
    parts: list[dict[str, Any]] = field(default_factory=list)
    left_out: dict[str, list[int]] = field(default_factory=dict)
    text: bytes = b""  # of the piece that is added next

    def watch(self, text: bytes) -> None:
        self.text = text

    def add(self, piece: dict[str, Any]) -> None:
        boxes: list[Any] = []
        keys: list[str] = []
        counts: list[int] = []
        for token, items in piece.items():
            if token in self.tokens:
                self.report(Fault(token, None, "comes twice in the file"))
                continue
            if not isinstance(items, list):
                self.report(Fault(token, None, f"expected a list of boxes, got {shown(items)}"))
                items = []
            self.tokens[token] = len(self.tokens)
            keys.append(token)
            counts.append(len(items))
            boxes += items
        if self.task is None and boxes:
            first = next((box for box in boxes if isinstance(box, dict)), {})
            self.task = "tracking" if "tracking_name" in first or "tracking_id" in first else "detection"
        is_sound, num_read = True, len(boxes)
        if boxes:
            try:
                part = _columns(boxes, self.task or "detection", may_hold_booleans=b"true" in self.text or b"false" in self.text)
                if list(part.pop("sample_token")) != list(chain.from_iterable(map(repeat, keys, counts))):
                    raise ValueError
            except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
                is_sound = False
                boxes, counts = self._sound_boxes(boxes, keys, counts)
                part = _columns(boxes, self.task or "detection")
                del part["sample_token"]
            self.parts.append(part)
        self.counts += counts
        # The parser keeps the last of two lists with one key and says nothing; but then the text has more lists than were read.
        lists_a_box = sum(isinstance(value, list) for value in boxes[0].values()) if boxes else 0
        if not is_sound or self.text.count(b"[") != len(piece) + lists_a_box * num_read:
            for token in _repeated_keys(self.text):
                self.report(Fault(token, None, "comes twice in the file"))

    def _sound_boxes(self, boxes: list[Any], keys: list[str], counts: list[int]) -> tuple[list[dict[str, Any]], list[int]]:
        """The boxes that are well formed, and their number for each sample; the others are reported."""
        sound: list[dict[str, Any]] = []
        kept_counts: list[int] = []
        source = iter(boxes)
        for key, count in zip(keys, counts, strict=True):
            kept = 0
            for number in range(count):
                box = next(source)
                faults = list(_faults_of_form(box, key, self.task or "detection"))
                for what in faults:
                    self.report(Fault(key, number, what))
                if faults:
                    self.left_out.setdefault(key, []).append(number)
                else:
                    sound.append(box)
                    kept += 1
            kept_counts.append(kept)
        return sound, kept_counts

    def finish(self, meta: dict[str, Any]) -> Submission:
        task = self.task or "detection"
        parts = self.parts or [_columns([], task)]
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0] if name != "sample_token"}
        return Submission(
            task, meta, list(self.tokens), np.concatenate([[0], np.cumsum(self.counts, dtype=np.int64)]), **columns, left_out=self.left_out
        )


def _columns(boxes: list[dict[str, Any]], task: Task, *, may_hold_booleans: bool = False) -> dict[str, Any]:
    """Boxes as columns; an error of some kind where any is not as it should be (found again by `_faults_of_form`)."""
    columns: dict[str, Any] = {"sample_token": list(map(itemgetter("sample_token"), boxes))}
    for name, width in _VECTORS.items():
        lists = list(map(itemgetter(name), boxes))
        if not (set(map(type, lists)) <= {list} and set(map(len, lists)) <= {width}):
            raise ValueError
        if may_hold_booleans and bool in set(map(type, chain.from_iterable(lists))):
            raise TypeError
        # An array of doubles takes numbers only; NumPy would also read texts as numbers, and takes twice the time.
        columns[name] = np.frombuffer(array("d", chain.from_iterable(lists))).reshape(len(boxes), width)
    columns["label"] = np.fromiter(map(CLASSES[task]._index.__getitem__, map(itemgetter(f"{task}_name"), boxes)), np.int16, len(boxes))
    scores = list(map(itemgetter(f"{task}_score"), boxes))
    if not set(map(type, scores)) <= {float, int}:
        raise TypeError
    columns["score"] = np.frombuffer(array("d", scores))
    if task == "detection":
        columns["attribute"] = np.fromiter(
            map(_ATTRIBUTE_INDEX.__getitem__, map(itemgetter("attribute_name"), boxes)), np.int16, len(boxes)
        )
    else:
        ids = list(map(itemgetter("tracking_id"), boxes))
        if not (set(map(type, ids)) <= {str} and max(map(len, ids), default=0) <= _MAX_ID_LENGTH):
            raise TypeError
        columns["tracking_id"] = np.array(ids, np.str_)
    return columns


def _repeated_keys(text: bytes) -> list[str]:
    """The keys of a JSON object that it has more than once."""
    keys: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> None:  # called for inner objects too, for the outermost last
        keys[:] = [key for key, _value in pairs]

    json.loads(text.decode(), object_pairs_hook=note)
    return [key for key, count in Counter(keys).items() if count > 1]


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Millions of boxes are made and none refers to another; looking for cycles among them takes a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextlib.contextmanager
def _settled_objects_left_alone() -> Iterator[None]:
    """Cycles are looked for among the objects made from here on only; the many that libraries keep would be walked again and again."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _faults_of_form(box: Any, token: str, task: Task) -> Iterator[str]:
    """What is wrong with the form of one box: fields missing, of wrong type or length, unknown names."""
    if not isinstance(box, dict):
        yield f"expected an object, got {shown(box)}"
        return
    names = ("sample_token", *_VECTORS, f"{task}_name", f"{task}_score", "attribute_name" if task == "detection" else "tracking_id")
    missing = [name for name in names if name not in box]
    if missing:
        yield f"lacks {', '.join(missing)}"
    if "sample_token" in box and box["sample_token"] != token:
        yield f"sample_token: expected that of its list, got {shown(box['sample_token'])}"
    for name, width in _VECTORS.items():
        if name in box and not (isinstance(box[name], list) and len(box[name]) == width and all(map(_is_number, box[name]))):
            yield f"{name}: expected {width} numbers, got {shown(box[name])}"
    name, score = box.get(f"{task}_name", ""), box.get(f"{task}_score", 0.0)
    if f"{task}_name" in box and not (isinstance(name, str) and name in CLASSES[task]):
        yield f"{task}_name: expected one of {', '.join(CLASSES[task])}, got {shown(name)}{nearest_hint(str(name), CLASSES[task].names)}"
    if not _is_number(score):
        yield f"{task}_score: expected a number, got {shown(score)}"
    attribute = box.get("attribute_name", "")
    if task == "detection" and not (isinstance(attribute, str) and attribute in _ATTRIBUTE_INDEX):
        yield f"attribute_name: expected an attribute or '', got {shown(attribute)}{nearest_hint(str(attribute), NUSCENES_ATTRIBUTES)}"
    tracking_id = box.get("tracking_id", "")
    if task == "tracking" and not (isinstance(tracking_id, str) and len(tracking_id) <= _MAX_ID_LENGTH):
        yield f"tracking_id: expected text of at most {_MAX_ID_LENGTH} characters, got {shown(tracking_id)}"


class SubmissionWriter:
    """Writes the samples of a submission as they come. Made by `submission_writer`."""

    def __init__(self, file: BinaryIO, meta: dict[str, Any] | None) -> None:
        self.num_boxes = 0
        self._file, self._lead = file, b""
        self._batch: dict[str, list[dict[str, Any]]] = {}
        file.write(_head(meta))

    def add(self, token: str, boxes: list[dict[str, Any]]) -> None:
        """A sample and its boxes as `detection_boxes` or `tracking_boxes` makes them; each token once."""
        self.num_boxes += len(boxes)
        self._batch[token] = boxes
        if len(self._batch) >= _SAMPLES_A_WRITE:
            self._flush()

    def close(self) -> None:
        """Write what is left; `submission_writer` does it."""
        self._flush()
        self._file.write(_TAIL)

    def _flush(self) -> None:
        if self._batch:
            self._file.write(self._lead + orjson.dumps(self._batch)[1:-1])
            self._lead, self._batch = b",", {}


@contextlib.contextmanager
def submission_writer(path: Path, *, meta: dict[str, Any] | None = None) -> Iterator[SubmissionWriter]:
    """A writer of the submission at `path`, which appears complete or not at all. `meta` without a value: lidar only."""
    with atomic_write(path) as file, _settled_objects_left_alone():
        writer = SubmissionWriter(file, meta)
        yield writer
        writer.close()


def write_submission(path: Path, samples: Iterable[tuple[str, list[dict[str, Any]]]], *, meta: dict[str, Any] | None = None) -> int:
    """Write a submission, sample by sample as they come, completely or not at all. Returns the number of boxes.

    samples  (sample token, boxes as `detection_boxes` or `tracking_boxes` makes them)
    """
    with submission_writer(path, meta=meta) as writer:
        for token, boxes in samples:
            writer.add(token, boxes)
    return writer.num_boxes


def join_submissions(path: Path, parts: Iterable[Path], *, meta: dict[str, Any] | None = None) -> None:
    """One submission of the samples of several, in their order, without parsing them: the bytes that one writer would have written.

    parts  files of `submission_writer` with the same `meta` and no sample twice; DataError for another file
    """
    head, lead = _head(meta), b""
    with atomic_write(path) as file:
        file.write(head)
        for part in parts:
            try:
                with part.open("rb") as source:
                    length = part.stat().st_size - len(head) - len(_TAIL)
                    if length < 0 or source.read(len(head)) != head:
                        raise DataError(f"{part}: expected a part of {path.name}, got another file; start the run over")
                    file.write(lead if length else b"")
                    while length:
                        block = source.read(min(length, 1 << 20))
                        file.write(block)
                        length -= len(block)
                        lead = b","
                        if not block:
                            raise DataError(f"{part}: the file was cut short while it was read")
            except OSError as error:
                raise DataError(f"{part}: expected a part of {path.name}, got {error.strerror or error}") from None
        file.write(_TAIL)


_TAIL = b"}}"


def _head(meta: dict[str, Any] | None) -> bytes:
    """What a submission begins with."""
    try:  # whatever a file that was read may hold: large numbers, halves of characters
        return b'{"meta":' + json.dumps(meta or LIDAR_META, separators=(",", ":")).encode() + b',"results":{'
    except RecursionError:
        raise DataError("meta: expected an object with use_lidar, use_camera, ..., got one nested too deep") from None


def best_boxes(objects: Objects) -> Objects:
    """The 500 objects of a sample with the highest scores, in the given order: more are not allowed. Ties go to the first."""
    return objects if len(objects) <= MAX_BOXES else objects[np.sort(np.argsort(-objects.score, kind="stable")[:MAX_BOXES])]


def detection_boxes(token: str, detections: Detections) -> list[dict[str, Any]]:
    """The boxes of one sample as a detection submission holds them. `detections` are in the global frame, of the ten classes."""
    rows = _box_rows(token, detections.boxes)
    attributes = [""] * len(detections) if detections.attribute is None else detections.attribute.tolist()
    for row, name, score, attribute in zip(rows, detections.names.tolist(), detections.score.tolist(), attributes, strict=True):
        row |= {"detection_name": name, "detection_score": score, "attribute_name": attribute}
    return rows


def tracking_boxes(token: str, tracks: Tracks, *, prefix: str) -> list[dict[str, Any]]:
    """The boxes of one sample as a tracking submission holds them, in the tracks' order; at most the 500 best (`best_boxes`).

    tracks  in the global frame, of the seven classes
    prefix  put before the track's number, so that ids of different drives differ
    """
    tracks = best_boxes(tracks)
    rows = _box_rows(token, tracks.boxes)
    for row, number, name, score in zip(rows, tracks.track_id.tolist(), tracks.names.tolist(), tracks.score.tolist(), strict=True):
        row |= {"tracking_id": f"{prefix}{number}", "tracking_name": name, "tracking_score": score}
    return rows


def _box_rows(token: str, boxes: Boxes3D) -> list[dict[str, Any]]:
    """What both tasks have in common. JSON has no NaN: an unknown velocity is written as zero."""
    translation, size, rotation, velocity = boxes_to_nuscenes(boxes)
    columns = (translation.tolist(), size.tolist(), rotation.tolist(), np.nan_to_num(velocity).tolist())
    return [
        {"sample_token": token, "translation": center, "size": wlh, "rotation": wxyz, "velocity": v}
        for center, wlh, wxyz, v in zip(*columns, strict=True)
    ]


def _is_number(value: Any) -> bool:
    """A JSON number that fits float64."""
    return type(value) is float or (type(value) is int and abs(value) < 2**1023)
