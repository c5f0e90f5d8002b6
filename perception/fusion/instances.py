"""What a network, or a simulation, sees in one picture: objects with class, score, box and mask."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from perception.core.classes import NUSCENES_DETECTION, ClassSet
from perception.core.errors import DataError
from perception.core.expect import expect_array, expect_labels
from perception.core.masks import PictureMasks
from perception.core.rle import MAX_PIXELS, decode_rle, encode_rle, rle_runs


class Spans(NamedTuple):
    """Masks as pieces of columns, without pixels: S pieces, instance after instance, in each from left to right and from top to bottom.

    instance     (S,) int64  row of the instances
    column       (S,) int64  pixels from the left
    top, bottom  (S,) int64  first row of the piece, and the row behind its last one
    area         (N,) int64  pixels of each instance
    """

    instance: np.ndarray
    column: np.ndarray
    top: np.ndarray
    bottom: np.ndarray
    area: np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class Instances:
    """The N objects in one picture, in the order of whoever found them: where masks overlap, the first one counts.

    size     (width, height)  pixels of the picture
    label    (N,) int64       rows of `classes`, nuScenes' ten
    score    (N,) float64     0 to 1
    box      (N, 4) float64   x0, y0, x1, y1 in pixels
    rle      N masks {"size": [h, w], "counts": text} of the whole picture, in COCO's run-length code; a mask may be empty
    where    names the picture in messages
    Raises DataError where lengths, labels or scores do not fit, and for a mask of another size than the picture's.
    """

    size: tuple[int, int]
    label: np.ndarray
    score: np.ndarray
    box: np.ndarray
    rle: tuple[Mapping[str, Any], ...]
    where: str = "instances"
    classes: ClassSet = NUSCENES_DETECTION

    def __post_init__(self) -> None:
        count = len(self.rle)
        width, height = (int(n) for n in self.size)
        label = expect_array(f"{self.where}: label", self.label, (count,), "int64")
        expect_labels(f"{self.where}: label", label, len(self.classes))
        score = expect_array(f"{self.where}: score", self.score, (count,), "float64", finite=True)
        if ((score < 0) | (score > 1)).any():
            raise DataError(f"{self.where}: score: expected numbers of 0 to 1, got {score[(score < 0) | (score > 1)][0]}")
        box = expect_array(f"{self.where}: box", self.box, (count, 4), "float64", finite=True)
        for i, rle in enumerate(self.rle):
            if not isinstance(rle, Mapping) or list(rle.get("size", ())) != [height, width]:
                got = rle.get("size") if isinstance(rle, Mapping) else type(rle).__name__
                raise DataError(
                    f"{self.where}: mask {i}: expected the size of its picture, [{height}, {width}] rows and columns, got {got}; "
                    "masks of a resized picture must be pasted back"
                )
        for name, value in (("size", (width, height)), ("label", label), ("score", score), ("box", box), ("rle", tuple(self.rle))):
            object.__setattr__(self, name, value)

    @classmethod
    def empty(cls, size: tuple[int, int], where: str = "instances") -> "Instances":
        """A picture that shows nothing."""
        return cls(size, np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 4)), (), where)

    @classmethod
    def from_masks(
        cls, masks: Any, label: Any, score: Any, size: tuple[int, int], *, box: Any = None, where: str = "instances"
    ) -> "Instances":
        """From masks (N, H, W) bool, one after the other (any iterable of arrays). Without `box`, the smallest around each mask."""
        codes, around = [], []
        for mask in masks:
            mask = np.asarray(mask)
            codes.append(encode_rle(mask))
            around.append(_box_of(mask))
        boxes = np.array(around, np.float64).reshape(-1, 4) if box is None else box
        return cls(size, np.asarray(label, np.int64), np.asarray(score, np.float64), boxes, tuple(codes), where)

    @classmethod
    def from_picture(cls, picture: PictureMasks, where: str | None = None) -> "Instances":
        """What a file says of a picture; without scores they are 1."""
        score = np.ones(len(picture)) if picture.score is None else picture.score
        return cls(picture.size, picture.label, score, picture.box, picture.rle, where or picture.file_name, picture.classes)

    def to_picture(self, token: str, sample: str, file_name: str) -> PictureMasks:
        """As a file has it, see `perception.core.masks`. Empty masks are left out, and boxes are cut at the picture's border."""
        kept = self[self.spans.area > 0]
        width, height = self.size
        box = np.clip(kept.box, 0, [width, height, width, height])
        tight = np.array([_box_of(kept.mask(i)) for i in np.flatnonzero((box[:, 2:] <= box[:, :2]).any(axis=1))]).reshape(-1, 4)
        box[(box[:, 2:] <= box[:, :2]).any(axis=1)] = tight  # a network may give a box without an inside
        none = np.full(len(kept), "", np.str_)
        return PictureMasks(
            token, sample, file_name, self.size, kept.label, none, box, kept.spans.area, kept.rle, classes=self.classes, score=kept.score
        )

    def mask(self, index: int) -> np.ndarray:
        """(h, w) bool of one instance. Raises DataError where its code is damaged."""
        return decode_rle(self.rle[index], where=f"{self.where}: mask {index}")

    @cached_property
    def spans(self) -> Spans:
        """The masks as pieces of columns. Raises DataError where the code of one is damaged."""
        return self._spans_of_texts() or self._spans_of_runs()

    def _spans_of_texts(self) -> Spans | None:
        """The usual case, quickly; None where a mask is not in its usual form, or damaged."""
        from perception.fusion.spans_kernel import find_pieces  # here, because numba takes half a second

        texts = []
        for rle in self.rle:
            counts = rle.get("counts")
            if isinstance(counts, str) and counts.isascii():
                counts = counts.encode()
            if not isinstance(counts, bytes):
                return None
            texts.append(counts)
        width, height = self.size
        if not 0 < width * height <= MAX_PIXELS:
            return None
        text, end = np.frombuffer(b"".join(texts), np.uint8), np.cumsum([len(text) for text in texts], dtype=np.int64)
        room = count = len(text) + 64 * len(texts)
        while True:
            columns = [np.empty(room, np.int64) for _ in range(4)]
            area = np.zeros(len(texts), np.int64)
            count = find_pieces(text, end, height, width, *columns, area)
            if count <= room:
                return None if count < 0 else Spans(*(part[:count] for part in columns), area=area)
            room = count

    def _spans_of_runs(self) -> Spans:
        height = self.size[1]
        begins, ends, counts = [], [], []
        for i, rle in enumerate(self.rle):
            _, runs = rle_runs(rle, where=f"{self.where}: mask {i}")
            border = np.cumsum(runs)
            begin, end = border[:-1:2], border[1::2]  # of the runs of object
            if len(runs) and runs[1::2].min(initial=1) == 0:
                begin, end = begin[begin < end], end[begin < end]
            begins.append(begin)
            ends.append(end)
            counts.append(len(begin))
        begin, end = (np.concatenate([np.zeros(0, np.int64), *parts]) for parts in (begins, ends))
        instance = np.repeat(np.arange(len(counts)), counts)
        area = np.bincount(instance, weights=end - begin, minlength=len(counts)).astype(np.int64)
        if len(begin) == 0:
            return Spans(instance, begin, begin, end, area)
        # A run that goes on over the foot of a column is a piece in each column that it reaches.
        first, last = begin // height, (end - 1) // height
        pieces = last - first + 1
        row = np.repeat(np.arange(len(begin)), pieces)
        column = np.arange(len(row)) - np.repeat(np.cumsum(pieces) - pieces, pieces) + first[row]
        top = np.maximum(begin[row] - column * height, 0)
        bottom = np.minimum(end[row] - column * height, height)
        return Spans(instance[row], column, top, bottom, area)

    def __len__(self) -> int:
        return len(self.rle)

    def __getitem__(self, index: Any) -> "Instances":
        """The instances at an index: int (one row), slice, mask (N,) bool or rows (M,) int."""
        rows = np.atleast_1d(np.arange(len(self))[index])
        return replace(
            self, label=self.label[rows], score=self.score[rows], box=self.box[rows], rle=tuple(self.rle[i] for i in rows.tolist())
        )

    def __repr__(self) -> str:
        return f"Instances({self.where}, {len(self)} in {self.size[0]}x{self.size[1]})"


def _box_of(mask: np.ndarray) -> tuple[float, float, float, float]:
    """The smallest box around a mask; zeros where it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return 0.0, 0.0, 0.0, 0.0
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
