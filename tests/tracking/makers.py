"""Scenes for trackers, written in code, and the greedy association once more in plain Python."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from perception.core import NUSCENES_DETECTION, NUSCENES_TRACKING, Boxes3D, Detections, Tracks
from perception.core.borders import boxes_from_nuscenes
from perception.tracking import GreedyTracker, ParityConfig, ParityTracker, load_tracker_config

START_US = 1_532_402_927_647_951  # a real one: float32 or seconds in float64 would blur it
HALF_SECOND = 500_000
SIZE = {"pedestrian": (0.7, 0.6, 1.7), "bus": (11.0, 2.9, 3.5), "motorcycle": (2.1, 0.8, 1.5)}
Frame = tuple[Detections, int]
UNKNOWN = math.nan


def frame_of(*objects: tuple, **columns: Any) -> Detections:
    """Detections of (class name, x, y, vx, vy, score); what is left out at the end is 0, 0 m/s and score 0.9."""
    full = [(*o, *(0.0, 0.0, 0.9)[len(o) - 3 :]) if len(o) < 6 else o for o in objects]
    center = [(x, y, 1.0) for _, x, y, *_ in full]
    size = [SIZE.get(o[0], (4.5, 1.9, 1.6)) for o in full]
    boxes = Boxes3D(center, size, np.zeros(len(full)), [o[3:5] for o in full])
    label = [NUSCENES_DETECTION.index(o[0]) for o in full]
    return Detections(boxes, np.array(label, np.int64), [o[5] for o in full], NUSCENES_DETECTION, **columns)


NOTHING = frame_of()


def one_car_driving(
    speed: float = 10.0,
    *,
    frames: int = 8,
    rate: float = 2.0,
    acceleration: float = 0.0,
    missed: Iterable[int] = (),
    name: str = "car",
    known: bool = True,
) -> list[Frame]:
    """One object along x from 0, `rate` frames a second; the frames in `missed` are empty. `known`: its velocity is measured."""
    result = []
    for i in range(frames):
        t = i / rate
        velocity = (speed + acceleration * t, 0.0) if known else (UNKNOWN, UNKNOWN)
        seen = frame_of((name, speed * t + 0.5 * acceleration * t * t, 0.0, *velocity))
        result.append((NOTHING if i in set(missed) else seen, START_US + round(t * 1e6)))
    return result


def crossing_pedestrians(*, gap: float = 0.4, rate: float = 2.0, frames: int = 13) -> list[Frame]:
    """Two that walk towards each other at 1.4 m/s along x and pass at `gap` metres half way; always listed eastbound first."""
    result = []
    middle = (frames - 1) / 2 / rate
    for i in range(frames):
        x = 1.4 * (i / rate - middle)
        seen = frame_of(("pedestrian", x, 0.0, 1.4, 0.0, 0.8), ("pedestrian", -x, gap, -1.4, 0.0, 0.7))
        result.append((seen, START_US + round(i / rate * 1e6)))
    return result


def random_drive(seed: int, *, frames: int = 8, objects: int = 12, unknown: float = 0.0, extent: float = 30.0) -> list[Frame]:
    """Moving objects of all ten classes with misses, clutter and uneven steps; all scores differ. `unknown`: share of NaN velocities."""
    rng = np.random.default_rng(seed)
    names = rng.choice(NUSCENES_DETECTION.names, objects)
    position, velocity = rng.uniform(-extent, extent, (objects, 2)), rng.normal(0, 3, (objects, 2))
    result, now = [], START_US
    for _ in range(frames):
        seen = np.flatnonzero(rng.random(objects) < 0.8)
        rows = [(names[k], *(position[k] + rng.normal(0, 0.1, 2)), *(velocity[k] + rng.normal(0, 0.3, 2))) for k in seen]
        rows += [("car", *rng.uniform(-extent, extent, 2), *rng.normal(0, 5, 2)) for _ in range(rng.integers(3))]
        scores = (rng.permutation(len(rows)) + rng.uniform(0, 0.5, len(rows)) + 0.1) / (len(rows) + 1)
        order = rng.permutation(len(rows))
        rows = [(*row[:3], *((UNKNOWN, UNKNOWN) if rng.random() < unknown else row[3:]), s) for row, s in zip(rows, scores, strict=True)]
        result.append((frame_of(*(rows[k] for k in order)), now))
        step = float(rng.choice([0.1, 0.5, 0.5, 1.0]))
        position = position + velocity * step
        now += round(step * 1e6)
    return result


def greedy(**changes: Any) -> GreedyTracker:
    """The tracker with the settings that come with the package, some changed. A number for `gate` or `max_age` holds for all classes."""
    settings = load_tracker_config().tracker.model_dump()
    for key, value in changes.items():
        settings[key] = dict.fromkeys(NUSCENES_TRACKING, value) if key in ("gate", "max_age") and not isinstance(value, dict) else value
    return GreedyTracker(load_tracker_config().tracker.__class__.model_validate(settings))


def parity(assignment: str = "greedy", max_age: int = 3) -> ParityTracker:
    return ParityTracker(ParityConfig.model_validate({"parity": True, "assignment": assignment, "max_age": max_age}))


def follow(tracker: Any, frames: Iterable[Frame]) -> list[Tracks]:
    return [tracker.update(detections, now) for detections, now in frames]


def seen_ids(tracks: Tracks) -> dict[int, int]:
    """Row of the detections -> track id, for the tracks that were seen."""
    assert tracks.detection_index is not None
    return {int(row): int(i) for row, i in zip(tracks.detection_index, tracks.track_id, strict=True) if row >= 0}


def columns_of(tracks: Tracks) -> dict[str, np.ndarray]:
    """All columns by name, without what is None."""
    boxes = {name: getattr(tracks.boxes, name) for name in ("center", "size", "yaw", "velocity")}
    names = ("label", "score", "track_id", "age", "hits", "coasted", "detection_index", "attribute", "num_points", "covariance")
    return boxes | {name: value for name in names if (value := getattr(tracks, name)) is not None}


def assert_same_tracks(one: Tracks, two: Tracks) -> None:
    a, b = columns_of(one), columns_of(two)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def greedy_by_hand(
    detections: Sequence[dict], tracks: Sequence[dict], *, now_us: int, gate: Sequence[float], growth: float, horizon: float
) -> dict[int, int]:
    """Detection -> track, by the method's words: the confident choose first, each the closest free track of its class within the gate.

    Both have `x, y, v` (None: unknown) and `label`; detections a `score`, tracks `seen_us`. Ties go to what comes first in its list.
    """
    taken: dict[int, int] = {}
    for i in sorted(range(len(detections)), key=lambda i: -detections[i]["score"]):
        one, best, best_distance = detections[i], None, math.inf
        for j, two in enumerate(tracks):
            if j in taken.values() or one["label"] != two["label"]:
                continue
            elapsed = (now_us - two["seen_us"]) * 1e-6
            v, w = one["v"] or two["v"] or (0.0, 0.0), two["v"] or one["v"] or (0.0, 0.0)
            # Half way: the detection goes back, the track goes on, for half of the time each.
            dx = one["x"] - two["x"] - 0.5 * elapsed * (v[0] + w[0])
            dy = one["y"] - two["y"] - 0.5 * elapsed * (v[1] + w[1])
            distance = math.sqrt(dx * dx + dy * dy)
            if distance <= gate[one["label"]] * (1.0 - growth + growth * min(elapsed, horizon) / 0.5) and distance < best_distance:
                best, best_distance = j, distance
        if best is not None:
            taken[i] = best
    return taken


class Fixture:
    """The oracle of the published tracker, from its folder: see the README there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with np.load(folder / "detections.npz", allow_pickle=False) as file:
            self.columns = {name: file[name] for name in file.files}
        self.num_frames = len(self.columns["frame_timestamp"])
        self.true_object = self.columns["true_object"]

    def expected(self, name: str) -> dict[str, np.ndarray]:
        with np.load(self.folder / f"{name}.npz", allow_pickle=False) as file:
            return {key: file[key] for key in file.files}

    def rows(self, frame: int) -> np.ndarray:
        return np.flatnonzero(self.columns["frame"] == frame)

    def timestamp_us(self, frame: int) -> int:
        return round(float(self.columns["frame_timestamp"][frame]) * 1e6)

    def is_first(self, frame: int) -> bool:
        return bool(self.columns["frame_first"][frame])

    def scene(self, frame: int) -> int:
        return int(self.columns["frame_scene"][frame])

    def detections(self, frame: int) -> Detections:
        rows, c = self.rows(frame), self.columns
        names = [str(c["class_names"][k]) for k in c["class_id"][rows]]
        boxes = boxes_from_nuscenes(c["translation"][rows], c["size"][rows], c["rotation"][rows], c["velocity"][rows])
        return Detections(boxes, np.array([NUSCENES_DETECTION.index(n) for n in names], np.int64), c["score"][rows], NUSCENES_DETECTION)


def identity_changes(rows: Iterable[tuple[int, int, int]]) -> tuple[int, int]:
    """How often a true object comes back under another id than before, and how often one was seen. Rows: (scene, true object, track id)."""
    last: dict[tuple[int, int], int] = {}
    changes = seen = 0
    for scene, true_object, track_id in rows:
        if true_object >= 0:
            seen += 1
            changes += last.get((scene, true_object), track_id) != track_id
            last[scene, true_object] = track_id
    return changes, seen
