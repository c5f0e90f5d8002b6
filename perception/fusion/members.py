"""Which points lie in which mask: the masks of all cameras as pieces of columns, and points looked up in them.

No picture is unpacked: a mask has a few hundred pieces where it has ten thousands of pixels, and of a column only one or two pieces are
looked at. (A GPU looks up pictures of numbers, see `perception.fusion.on_gpu`.)
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from perception.core.errors import DataError
from perception.fusion.calibration import CameraView
from perception.fusion.instances import Instances


class Members(NamedTuple):
    """Points in masks, M of them: ordered by point, then camera. A point is a member of one instance at most in each camera.

    Arrays of NumPy, or tensors on a GPU.

    point     (M,) int64    row of the cloud
    instance  (M,) int64    over all cameras
    pixel     (M, 2) int64  column, row
    depth     (M,) float64  metres along the camera's axis
    """

    point: Any
    instance: Any
    pixel: Any
    depth: Any


class MaskIndex:
    """The masks of several pictures, C of them with I instances in all, counted in the order of the pictures.

    area, label, score, camera  (I,) of each instance; camera is the row of its picture
    """

    def __init__(self, pictures: Sequence[Instances]) -> None:
        self.sizes = np.array([picture.size for picture in pictures], np.int64).reshape(-1, 2)
        spans = [picture.spans for picture in pictures]
        counts = [len(picture) for picture in pictures]
        first_instance = np.cumsum([0, *counts])
        self.first_column = np.cumsum([0, *self.sizes[:, 0].tolist()])
        none = np.zeros(0, np.int64)
        self.area, self.label = (
            np.concatenate([none, *parts]) for parts in ([span.area for span in spans], [picture.label for picture in pictures])
        )
        self.score = np.concatenate([np.zeros(0), *[picture.score for picture in pictures]])
        self.camera = np.repeat(np.arange(len(pictures)), counts)
        # Pieces, instance after instance: the pixels of an instance in COCO's order, which is MVP's (by column, then row).
        self._instance = np.concatenate([none, *[span.instance + first for span, first in zip(spans, first_instance, strict=False)]])
        self._column = np.concatenate([none, *[span.column + first for span, first in zip(spans, self.first_column, strict=False)]])
        self._top, self._bottom = (np.concatenate([none, *[getattr(span, name) for span in spans]]) for name in ("top", "bottom"))

    def __len__(self) -> int:
        return len(self.area)

    @cached_property
    def by_column(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Where the pieces of each column of all pictures begin (and where the last ones end), their top, bottom and instance.

        In a column instances follow each other in order: the first piece that holds a pixel is that of the first instance.
        """
        order = np.argsort(self._column, kind="stable")
        begin = np.zeros(self.first_column[-1] + 1, np.int64)
        np.cumsum(np.bincount(self._column, minlength=self.first_column[-1]), out=begin[1:])
        return begin, self._top[order], self._bottom[order], self._instance[order]

    def pixels(self, rank: np.ndarray) -> np.ndarray:
        """(R, num, 2) int64 column and row of the pixels rank[i, j] of the i-th instance that has any, see `draw_ranks`.

        The pixels of an instance are counted by column, then row. Raises DataError for a rank beyond its last one.
        """
        rows = np.flatnonzero(self.area)
        if rank.shape[0] != len(rows):
            raise DataError(f"ranks: expected a row for each of the {len(rows)} instances with pixels, got shape {rank.shape}")
        if (is_wrong := (rank < 0) | (rank >= self.area[rows, None])).any():
            i, j = np.argwhere(is_wrong)[0]
            raise DataError(f"ranks: expected 0 to {self.area[rows[i]] - 1} for instance {rows[i]}, got {rank[i, j]}")
        end = np.cumsum(self._bottom - self._top)  # pixels up to and with each piece
        total = np.cumsum(self.area)[rows]
        wanted = (rank + (total - self.area[rows])[:, None]).ravel()
        piece = np.searchsorted(end, wanted, side="right")
        row = self._bottom[piece] - (end[piece] - wanted)
        column = self._column[piece] - self.first_column[self.camera[self._instance[piece]]]
        return np.stack([column, row], axis=-1).reshape(*rank.shape, 2)

    def members(self, points: np.ndarray, views: Sequence[CameraView]) -> Members:
        """points (N, 3 or more) float32 x, y, z in the lidar frame; views of the pictures, in their order.

        A pixel is the whole part of a point's place in the picture. As published, column 0 and row 0 are not seen. Points behind a camera,
        and those with a number that is NaN or infinite, are in no mask.
        """
        from perception.fusion.members_kernel import find_members  # here, because numba takes half a second

        begin, top, bottom, instance = self.by_column
        first = self.first_column[:-1]
        matrices = np.ascontiguousarray([view.lidar_to_pixels for view in views]).reshape(-1, 3, 4)
        room = count = 1024 + len(points) // 4
        found_by: list[np.ndarray] = []
        while not found_by or count > room:  # once; twice where much of a cloud is in masks
            room = max(room, count)
            found_by = [np.empty(room, np.int64) for _ in range(3)] + [np.empty(room)]
            count = find_members(points, matrices, self.sizes, first, begin, top, bottom, *found_by)
        point, piece, row, depth = (part[:count] for part in found_by)
        found = instance[piece]
        column = np.searchsorted(begin, piece, side="right") - 1 - first[self.camera[found]]
        return Members(point, found, np.stack([column, row], axis=1), depth)

    @cached_property
    def pieces(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each piece: where it begins in all pictures one behind the other, column after column; its pixels; and its instance."""
        camera = self.camera[self._instance]
        offset = np.cumsum([0, *self.sizes.prod(axis=1).tolist()])
        begin = offset[camera] + (self._column - self.first_column[camera]) * self.sizes[camera, 1] + self._top
        return begin, self._bottom - self._top, self._instance


def draw_ranks(area: np.ndarray, num: int, rng: np.random.Generator) -> np.ndarray:
    """(R, num) int64: for each instance that has pixels, `num` of them without replacement; see `MaskIndex.pixels`.

    area  (I,) pixels of each instance
    One with fewer pixels has each once, in random order, and then the first one drawn again and again.
    """
    area = area[area > 0]
    rank = np.empty((len(area), num), np.int64)
    for row, pixels in zip(rank, area.tolist(), strict=True):
        drawn = rng.choice(pixels, min(pixels, num), replace=False)
        row[: len(drawn)], row[len(drawn) :] = drawn, drawn[0]
    return rank
