"""Instances of a simulated drive: its exact masks, or masks with the faults of a network."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from perception.core.errors import DataError
from perception.core.frame import Camera
from perception.core.rle import encode_runs
from perception.fusion.instances import Instances
from perception.fusion.sources.file import FileInstances, FileSettings
from perception.fusion.sources.source import SourceSettings, name_of

Probability = Annotated[float, Field(ge=0, le=1)]


class SimulatedSettings(SourceSettings, frozen=True):
    """The masks of a simulated drive. Without the rest of the settings they are exact, and scores are 1."""

    name: Literal["simulated"] = "simulated"
    path: Path = Field(description="folder of the simulated data set, which holds masks/<drive>.json; or those files")
    min_pixels: int = Field(1, ge=1, description="smaller masks are not found")
    missed: Probability = Field(0.0, description="share of objects that are not found")
    merged: Probability = Field(0.0, description="share of objects that become one with a neighbour of their class whose box they touch")
    wrong_class: Probability = Field(0.0, description="share of objects whose class is another one of the ten")
    ragged: float = Field(0.0, ge=0, le=100, description="pixels: standard deviation of the edges, above and below, column by column")
    score: float = Field(1.0, ge=0, le=1, description="mean of the scores of what is found")
    score_spread: float = Field(0.0, ge=0, le=1, description="standard deviation of the scores, which stay within 0 and 1")
    seed: int = Field(0, ge=0, description="of the faults; each picture has faults of its own")


class SimulatedInstances:
    """The masks that a simulated drive comes with, and a network's faults on request. See `InstanceSource`."""

    def __init__(self, settings: SimulatedSettings) -> None:
        folder = Path(settings.path)
        path = folder / "masks" if (folder / "masks").is_dir() else folder
        if not path.exists() or (path.is_dir() and not any(path.glob("*.json"))):
            raise DataError(
                f"{folder}: expected a simulated data set with masks/<drive>.json, found none; simulate it with pictures (--cameras)"
            )
        self._settings, self._files = settings, FileInstances(FileSettings(path=path, on_missing=settings.on_missing))

    def find(self, cameras: Mapping[str, Camera], /) -> dict[str, Instances]:
        found = self._files.find(cameras)
        return {name: with_faults(shown, self._settings, name_of(cameras[name])) for name, shown in found.items()}


def with_faults(exact: Instances, settings: SimulatedSettings, picture: str) -> Instances:
    """What a network might have found in place of `exact`; `picture` names the picture, and with the seed decides on its faults.

    Draws are made for each object of `exact` whether they are needed or not, so that one kind of fault does not change the others.
    """
    digest = hashlib.blake2b(picture.encode(), digest_size=8).digest()
    rng = np.random.default_rng([settings.seed, int.from_bytes(digest, "little")])
    count, spans = len(exact), exact.spans
    is_missed, is_merged, is_wrong = ((settings.missed, settings.merged, settings.wrong_class) > rng.random((3, count)).T).T
    other = rng.integers(1, len(exact.classes), count)
    score = np.clip(settings.score + settings.score_spread * rng.standard_normal(count), 0, 1)
    label = np.where(is_wrong, (exact.label + other) % len(exact.classes), exact.label)
    kept = (spans.area >= settings.min_pixels) & ~is_missed
    owner = _merged(exact, is_merged & kept, kept)
    top, bottom = spans.top, spans.bottom
    if settings.ragged > 0:
        shift = np.rint(settings.ragged * rng.standard_normal((2, len(top)))).astype(np.int64)
        top, bottom = np.clip(top + shift[0], 0, exact.size[1]), np.clip(bottom + shift[1], 0, exact.size[1])
    if not (settings.ragged > 0 or is_merged.any()):
        changed = exact[kept]
        return Instances(exact.size, label[kept], score[kept], changed.box, changed.rle, exact.where, exact.classes)
    rows, boxes, codes = [], [], []
    height = exact.size[1]
    for row in np.flatnonzero(kept & (owner == np.arange(count))):
        own = (owner[spans.instance] == row) & kept[spans.instance] & (bottom > top)
        if not own.any():
            continue
        column = spans.column[own]
        codes.append(encode_runs((height, exact.size[0]), column * height + top[own], column * height + bottom[own]))
        boxes.append((column.min(), top[own].min(), column.max() + 1, bottom[own].max()))
        rows.append(row)
    box = np.array(boxes, np.float64).reshape(-1, 4)
    return Instances(exact.size, label[rows], score[rows], box, tuple(codes), exact.where, exact.classes)


def _merged(exact: Instances, is_merged: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """(N,) the instance that each one becomes part of: itself, or the first of its class whose box touches its own."""
    owner = np.arange(len(exact))
    low, high = exact.box[:, :2], exact.box[:, 2:]
    for row in np.flatnonzero(is_merged):
        touches = (low <= high[row]).all(axis=1) & (high >= low[row]).all(axis=1) & (exact.label == exact.label[row]) & kept
        touches &= owner == np.arange(len(exact))  # not one that is part of another already
        touches[row] = False
        if touches.any() and not (owner == row)[np.arange(len(exact)) != row].any():
            owner[row] = int(np.flatnonzero(touches)[0])
    return owner
