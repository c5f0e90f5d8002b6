"""Found and false objects by threshold: greedy matching of detections to truth, recall curves, nuScenes' AP and errors, without the devkit.

For questions that the official evaluation does not answer: objects of several classes taken as one group, objects with enough returns
only, recordings whose truth is complete in a part of the scene only. Where the questions are the devkit's, so are the answers.

One frame is judged by `judge`, many frames make a `Curve`:

    outcomes = [judge(found, truth, within(2.0), is_wanted=truth.num_points >= 10) for found, truth in frames]
    point = Curve(outcomes).at_recall(0.9)    # the highest threshold with a recall of 0.9, and the false ones at it
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from cuda_ops import iou_bev
from perception.core.boxes import Boxes3D
from perception.core.detections import Detections
from perception.core.errors import DataError
from perception.core.expect import expect_array

Near = Callable[[Boxes3D, Boxes3D], np.ndarray]
_RECALLS = np.linspace(0, 1, 101)
_FIRST = 11  # the first of them above nuScenes' lowest recall of 0.1
# Metres from the ego vehicle within which nuScenes' detection benchmark looks, and the distances of centres that its AP is the mean of.
CLASS_RANGES: Mapping[str, float] = {
    "car": 50.0,
    "truck": 50.0,
    "bus": 50.0,
    "trailer": 50.0,
    "construction_vehicle": 50.0,
    "pedestrian": 40.0,
    "motorcycle": 40.0,
    "bicycle": 40.0,
    "traffic_cone": 30.0,
    "barrier": 30.0,
}
AP_DISTANCES = (0.5, 1.0, 2.0, 4.0)


def within(metres: float) -> Near:
    """Pairs whose centres are less than `metres` apart in the ground plane, the closer the better: nuScenes' rule."""

    def near(found: Boxes3D, truth: Boxes3D) -> np.ndarray:
        offset = found.center[:, None, :2] - truth.center[None, :, :2]
        distance = np.hypot(offset[..., 0], offset[..., 1])
        return np.where(distance < metres, -distance, -np.inf)

    return near


def overlapping(iou: float) -> Near:
    """Pairs whose rectangles seen from above overlap by `iou` or more of their union, the more the better: KITTI's rule."""

    def near(found: Boxes3D, truth: Boxes3D) -> np.ndarray:
        overlap = iou_bev(rectangles(found), rectangles(truth))
        return np.where(overlap >= iou, overlap, -np.inf)

    return near


def rectangles(boxes: Boxes3D) -> np.ndarray:
    """(N, 5) float64: x, y, length, width, yaw."""
    return np.ascontiguousarray(np.column_stack([boxes.center[:, :2], boxes.size[:, :2], boxes.yaw]))


def of_classes(objects: Detections, names: Collection[str]) -> Detections:
    """The objects whose class is one of `names`."""
    return objects[np.isin(objects.names, list(names))]


@dataclass(frozen=True, eq=False, repr=False)
class Outcome:
    """What became of one frame's detections and of its truth.

    found, truth  N detections and M true objects, in one frame
    match      (N,) int64  row of the true object that a detection is matched to, -1 for none
    is_wanted  (M,) bool   true objects that are to be found; a detection of another one is neither right nor wrong
    is_hit     (N,) bool   matched to a wanted one
    is_false   (N,) bool   matched to none, where that counts
    is_double  (N,) bool   false, and near a true object that a better detection has taken
    """

    found: Detections
    truth: Detections
    match: np.ndarray
    is_wanted: np.ndarray
    is_hit: np.ndarray
    is_false: np.ndarray
    is_double: np.ndarray

    def missed(self, threshold: float) -> np.ndarray:
        """(M,) bool: wanted true objects that no detection with a score of `threshold` or more is matched to."""
        missed = self.is_wanted.copy()
        missed[self.match[self.is_hit & (self.found.score >= threshold)]] = False
        return missed


def judge(
    found: Detections, truth: Detections, near: Near, *, is_wanted: np.ndarray | None = None, is_judged: np.ndarray | None = None
) -> Outcome:
    """Match the detections of a frame to its truth: the highest score chooses first, and takes the free true object that is nearest.

    found, truth  in one frame; classes are not looked at (`of_classes`)
    near          (N, M) how near each pair is, -inf for pairs that are no match: `within`, `overlapping`
    is_wanted     (M,) bool  true objects that are to be found, all without it. The others take part: who finds one is not wrong
    is_judged     (N,) bool  detections that are wrong where they match nothing, all without it: those where the truth is complete
    Of equal scores the lower row chooses first; of equally near objects the lower row is taken. What is matched at a threshold is the same
    as if the detections below it were not there, so that one matching gives the whole curve.
    """
    wanted = np.ones(len(truth), bool) if is_wanted is None else expect_array("is_wanted", is_wanted, (len(truth),), "bool")
    judged = np.ones(len(found), bool) if is_judged is None else expect_array("is_judged", is_judged, (len(found),), "bool")
    nearness = near(found.boxes, truth.boxes)
    match, is_free = np.full(len(found), -1), np.ones(len(truth), bool)
    is_double = np.zeros(len(found), bool)
    for i in np.argsort(-found.score, kind="stable"):
        row = np.where(is_free, nearness[i], -np.inf)
        if np.isfinite(row).any():
            match[i] = row.argmax()
            is_free[match[i]] = False
        else:
            is_double[i] = np.isfinite(nearness[i]).any()
    is_hit = match >= 0
    is_hit[is_hit] = wanted[match[is_hit]]
    is_false = judged & (match < 0)
    return Outcome(found, truth, match, wanted, is_hit, is_false, is_double & is_false)


@dataclass(frozen=True)
class OperatingPoint:
    """What is found at one threshold.

    threshold  the lowest score that is still reported
    found      wanted true objects that are found
    wanted     all of them
    false      detections that are wrong, `double` ones among them
    frames     how many frames that is
    """

    threshold: float
    found: int
    wanted: int
    false: int
    double: int
    frames: int

    @property
    def recall(self) -> float:
        return self.found / self.wanted if self.wanted else float("nan")

    @property
    def precision(self) -> float:
        return self.found / (self.found + self.false) if self.found + self.false else float("nan")

    @property
    def false_a_frame(self) -> float:
        return self.false / self.frames if self.frames else float("nan")


class Curve:
    """Found and false objects of many frames by threshold."""

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        """outcomes: one a frame."""
        self._outcomes, self.frames = list(outcomes), len(outcomes)
        self.wanted = sum(int(outcome.is_wanted.sum()) for outcome in outcomes)
        score, hit, double = (self._column(name) for name in ("score", "is_hit", "is_double"))
        order = np.argsort(-score, kind="stable")
        self._order, self._score, self._is_hit = order, score[order], hit[order].astype(bool)
        self._hits, self._falses = np.cumsum(self._is_hit), np.cumsum(~self._is_hit)  # those that are neither are left out
        self._doubles = np.cumsum(double[order].astype(bool))

    def _column(self, name: str) -> np.ndarray:
        """(K,) of the detections that are right or wrong, frame after frame."""
        parts = [self._values(outcome, outcome.found.score if name == "score" else getattr(outcome, name)) for outcome in self._outcomes]
        return np.concatenate(parts) if parts else np.zeros(0)

    @staticmethod
    def _values(outcome: Outcome, values: np.ndarray) -> np.ndarray:
        return values[outcome.is_hit | outcome.is_false]

    @cached_property
    def points(self) -> list[OperatingPoint]:
        """One a score that occurs, the highest first."""
        last = np.flatnonzero(np.append(self._score[1:] != self._score[:-1], len(self._score) > 0))
        return [self._point(int(i)) for i in last]

    def _point(self, i: int) -> OperatingPoint:
        counts = int(self._hits[i]), self.wanted, int(self._falses[i]), int(self._doubles[i])
        return OperatingPoint(float(self._score[i]), *counts, self.frames)

    def at_threshold(self, threshold: float) -> OperatingPoint:
        """What is reported with a score of `threshold` or more."""
        count = int(np.searchsorted(-self._score, -threshold, side="right"))
        point = self._point(count - 1) if count else OperatingPoint(threshold, 0, self.wanted, 0, 0, self.frames)
        return replace(point, threshold=threshold)

    def at_count(self, found: int) -> OperatingPoint | None:
        """The highest threshold at which at least `found` wanted objects are found; None where they never are."""
        return next((point for point in self.points if point.found >= found), None)

    def at_recall(self, recall: float) -> OperatingPoint | None:
        """The highest threshold at which that share of the wanted objects is found; None where it never is."""
        return self.at_count(max(int(np.ceil(recall * self.wanted - 1e-9)), 1)) if self.wanted else None

    def at_false(self, false_a_frame: float) -> OperatingPoint | None:
        """The lowest threshold with at most so many false ones a frame; None where the best detection is one too many."""
        sound = [point for point in self.points if point.false_a_frame <= false_a_frame]
        return sound[-1] if sound else None

    @property
    def average_precision(self) -> float:
        """nuScenes' AP: the mean of the precision above 0.1, by recall from 0.11 to 1; NaN without wanted objects (the devkit says 0)."""
        if not self.wanted:
            return float("nan")
        if not len(self._score):
            return 0.0
        precision = self._hits / (self._hits + self._falses)
        precision = np.interp(_RECALLS, self._hits / self.wanted, precision, right=0)[_FIRST:]
        return float(np.clip(precision - 0.1, 0, None).mean() / 0.9)

    def average_error(self, errors: Sequence[np.ndarray]) -> float:
        """nuScenes' error of true positives: the running mean over the hits by score, averaged over the recalls from 0.11 to the highest.

        errors  one array a frame, (N,) one number a detection of it; those of hits are read, NaN is left out
        1 where a recall of 0.11 is not reached, as in the devkit; NaN without wanted objects or where no error is known.
        """
        if len(errors) != self.frames:
            raise DataError(f"average_error: expected errors of {self.frames} frames, got {len(errors)}")
        if not self.wanted:
            return float("nan")
        values = np.concatenate([self._values(o, np.asarray(e, np.float64)) for o, e in zip(self._outcomes, errors, strict=True)])
        values = values[self._order][self._is_hit]
        recall = self._hits / self.wanted
        score = np.interp(_RECALLS, recall, self._score, right=0) if len(recall) else np.zeros(101)
        last = int(np.flatnonzero(score).max(initial=0))
        if last < _FIRST:
            return 1.0
        known = np.isfinite(values)
        if not known.any():
            return float("nan")
        with np.errstate(invalid="ignore"):
            mean = np.cumsum(np.where(known, values, 0)) / np.cumsum(known)
        mean = np.where(np.cumsum(known) > 0, mean, 0.0)  # the devkit: 0 until the first known one
        by_recall = np.interp(score[::-1], self._score[self._is_hit][::-1], mean[::-1])[::-1]
        return float(by_recall[_FIRST : last + 1].mean())

    def __repr__(self) -> str:
        return f"Curve({self.frames} frames, {self.wanted} wanted objects, {len(self._score)} detections)"


def average_precisions(frames: Sequence[tuple[Detections, Detections]]) -> dict[str, float]:
    """nuScenes' AP of each class that the truth has in its range: the mean over four distances.

    frames  (found, truth) in the EGO frame, one a key frame; where `num_points` is known, truth without a return is left out
    Equal to the devkit's but for its rule on bicycles in racks, and where scores are equal.
    """
    result = {}
    for name, metres in CLASS_RANGES.items():
        pairs = [(of_classes(found, [name]), of_classes(truth, [name])) for found, truth in frames]
        pairs = [(found[distances(found) < metres], truth[distances(truth) < metres]) for found, truth in pairs]
        pairs = [(found, truth if truth.num_points is None else truth[truth.num_points > 0]) for found, truth in pairs]
        if any(len(truth) for _, truth in pairs):
            result[name] = float(np.mean([Curve([judge(*pair, within(d)) for pair in pairs]).average_precision for d in AP_DISTANCES]))
    return result


def distances(objects: Detections) -> np.ndarray:
    """(N,) metres of the centres from the origin, over ground."""
    return np.hypot(objects.boxes.center[:, 0], objects.boxes.center[:, 1])


def of_hits(outcome: Outcome, error: Callable[[Boxes3D, Boxes3D], np.ndarray]) -> np.ndarray:
    """(N,) `error(found, true)` of each hit's two boxes, NaN in the other rows."""
    result = np.full(len(outcome.found), np.nan)
    rows = np.flatnonzero(outcome.is_hit)
    result[rows] = error(outcome.found.boxes[rows], outcome.truth.boxes[outcome.match[rows]])
    return result


def heading_error(found: Boxes3D, truth: Boxes3D) -> np.ndarray:
    """(N,) radians from 0 to pi between the headings of boxes in pairs; above pi / 2 the box is taken back to front."""
    return np.abs((found.yaw - truth.yaw + np.pi) % (2 * np.pi) - np.pi)


def velocity_error(found: Boxes3D, truth: Boxes3D) -> np.ndarray:
    """(N,) m/s between the velocities of boxes in pairs, NaN where one is unknown."""
    return np.hypot(*(found.velocity - truth.velocity).T)


def overlap_of_pairs(found: Boxes3D, truth: Boxes3D) -> np.ndarray:
    """(N,) overlap of boxes in pairs, seen from above, by their union."""
    a, b = rectangles(found), rectangles(truth)
    return np.array([iou_bev(a[i : i + 1], b[i : i + 1])[0, 0] for i in range(len(a))])
