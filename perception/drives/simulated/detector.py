"""A detector that looks at the truth and errs like a real one: a stand-in for a network, to try trackers and metrics on.

What is imitated: misses that come in bursts and grow with distance and occlusion, errors of position, size, yaw (also by half a turn)
and velocity, second boxes of a neighbouring class, false alarms of which some stay for a few frames, and scores that say something
about all of it. The figures of `DetectorNoise` were chosen so that the official mAP lies near that of published lidar detectors.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np

from perception.core import NUSCENES_DETECTION, Boxes3D, Detections, concatenate
from perception.drives.simulated.catalog import SIZES, attribute_name, draw_size
from perception.drives.simulated.street import SimulatedObject, SimulatedScene

NEIGHBOURS: Mapping[str, str] = {
    "car": "truck",
    "truck": "car",
    "bus": "truck",
    "trailer": "truck",
    "construction_vehicle": "truck",
    "pedestrian": "traffic_cone",
    "motorcycle": "bicycle",
    "bicycle": "motorcycle",
    "traffic_cone": "pedestrian",
    "barrier": "traffic_cone",
}
# Chance that a fully visible object near the ego vehicle is found.
RECALL: Mapping[str, float] = {
    "car": 0.985,
    "truck": 0.93,
    "bus": 0.95,
    "trailer": 0.85,
    "construction_vehicle": 0.75,
    "pedestrian": 0.965,
    "motorcycle": 0.93,
    "bicycle": 0.88,
    "traffic_cone": 0.92,
    "barrier": 0.92,
}


@dataclass(frozen=True)
class DetectorNoise:
    """How a simulated detector errs. Standard deviations are in metres, radians or m/s.

    max_range        metres from the ego vehicle within which anything is reported
    recall           class -> chance to find a visible object nearby
    persistence      correlation of the luck of an object from one frame to the next: misses come in bursts
    burst_chance     chance a frame that an object vanishes for about `burst_frames` frames whatever its visibility
    center, center_per_metre  position error, and what a metre of distance adds
    size, yaw        relative size error; yaw error of vehicles (people have eight times as much)
    flip_chance      yaw wrong by half a turn
    velocity, velocity_share  velocity error, and the share of the speed that is added to it
    velocity_gross_chance, velocity_gross  how often the velocity is nonsense, and how much of it
    duplicate_chance second box of a neighbouring class
    false_alarms     mean number a frame that come and go; `ghosts` is the mean number that stay for some frames
    """

    max_range: float = 55.0
    recall: Mapping[str, float] = field(default_factory=lambda: dict(RECALL))
    persistence: float = 0.7
    burst_chance: float = 0.012
    burst_frames: float = 3.0
    center: float = 0.10
    center_per_metre: float = 0.005
    size: float = 0.05
    yaw: float = 0.06
    flip_chance: float = 0.03
    velocity: float = 0.3
    velocity_share: float = 0.05
    velocity_gross_chance: float = 0.04
    velocity_gross: float = 3.0
    duplicate_chance: float = 0.07
    false_alarms: float = 14.0
    ghosts: float = 3.0


def simulate_detections(scene: SimulatedScene, rng: np.random.Generator, noise: DetectorNoise | None = None) -> list[Detections]:
    """One `Detections` a frame, in the GLOBAL frame, classes NUSCENES_DETECTION, attributes set, highest score first."""
    noise = noise or DetectorNoise()
    ego = np.array([pose.translation for pose in scene.ego_to_global])
    found: list[list[Detections]] = [[] for _ in range(len(scene))]
    for thing in scene.objects:
        for frame, detection in _seen(thing, ego, rng, noise):
            found[frame].append(detection)
    for _ in range(rng.poisson(noise.ghosts * len(scene) / 4)):
        first, kind, place = int(rng.integers(len(scene))), _any_class(rng), _place(rng, noise.max_range)
        spot = scene.ego_to_global[first].apply(place)
        for frame in range(first, min(first + int(rng.integers(2, 7)), len(scene))):
            found[frame].append(_false_alarm(kind, spot + rng.normal(0, [0.25, 0.25, 0.05]), 0.05 + 0.5 * rng.beta(1.5, 3.5), rng))
    for frame, pose in enumerate(scene.ego_to_global):
        for _ in range(rng.poisson(noise.false_alarms)):
            spot = pose.apply(_place(rng, noise.max_range))
            found[frame].append(_false_alarm(_any_class(rng), spot, 0.05 + 0.6 * rng.beta(1.0, 7.0), rng))
    return [_reported(detections, place, noise.max_range) for detections, place in zip(found, ego, strict=True)]


def _seen(thing: SimulatedObject, ego: np.ndarray, rng: np.random.Generator, noise: DetectorNoise) -> list[tuple[int, Detections]]:
    """(frame, one or two detections) for the frames in which the detector finds an object; ego (F, 3) positions."""
    distance = np.hypot(*(thing.center - ego)[:, :2].T)
    chance = _find_chance(thing, distance, noise)
    luck = _correlated(len(distance), noise.persistence, rng)
    margin = _normal_quantile(chance) - luck
    is_found = thing.present & (distance < noise.max_range) & (margin > 0) & ~_bursts(len(distance), rng, noise)
    boxes, margin, speed = _blurred(thing, distance, margin, rng, noise)
    seen = []
    for frame in np.flatnonzero(is_found):
        score = _score(float(margin[frame]), rng)
        row = slice(frame, frame + 1)
        attribute = str(thing.attribute[frame]) if rng.random() < 0.85 else attribute_name(thing.class_name, float(speed[frame]))
        detection = _one(boxes[row], thing.class_name, score, attribute)
        if rng.random() < noise.duplicate_chance:
            detection = concatenate([detection, _duplicate(detection, thing.class_name, rng)])
        seen.append((int(frame), detection))
    return seen


def _find_chance(thing: SimulatedObject, distance: np.ndarray, noise: DetectorNoise) -> np.ndarray:
    """(F,) chance to be found: falls with distance, sooner for small objects, and with what nearer objects hide."""
    reach = 40.0 + 8.0 * np.sqrt(thing.size[0] * thing.size[2])  # metres at which a visible object is found in half of the frames: 49 .. 90
    by_distance = 1 / (1 + np.exp((distance - reach) / 7.0))
    by_visibility = np.clip((thing.visibility + 0.15) / 0.45, 0.0, 1.0)
    return np.clip(noise.recall.get(thing.class_name, 0.9) * by_distance * by_visibility, 1e-4, 1 - 1e-4)


def _blurred(
    thing: SimulatedObject, distance: np.ndarray, margin: np.ndarray, rng: np.random.Generator, noise: DetectorNoise
) -> tuple[Boxes3D, np.ndarray, np.ndarray]:
    """Boxes with errors for all F frames, the margin lowered where the position is bad, and the speed that was estimated."""
    frames = len(distance)
    bulk = np.clip(np.sqrt(thing.size[0]) / 2, 0.4, 2.0)  # the middle of a long box is harder to tell
    spread = bulk * (noise.center + noise.center_per_metre * distance) * (1 + (1 - thing.visibility))
    steady = np.stack([_correlated(frames, 0.9, rng) for _ in range(2)], axis=1)  # most of the error stays from frame to frame
    error = spread[:, None] * (0.8 * steady + 0.6 * rng.normal(size=(frames, 2)))
    center = thing.center + np.column_stack([error, rng.normal(0, 0.06, frames)])
    size = thing.size * np.exp(rng.normal(0, noise.size, 3) + rng.normal(0, noise.size / 2, (frames, 3)))
    is_loose = thing.class_name in ("pedestrian", "traffic_cone")
    is_flipped = rng.random(frames) < noise.flip_chance * (3 if is_loose else 1)
    yaw = thing.yaw + rng.normal(0, noise.yaw * (8 if is_loose else 1), frames) + np.pi * is_flipped
    true_speed = np.hypot(*thing.velocity.T)
    sigma = noise.velocity + noise.velocity_share * true_speed
    sigma = np.where(rng.random(frames) < noise.velocity_gross_chance, noise.velocity_gross, sigma) / np.sqrt(2)
    velocity = thing.velocity + sigma[:, None] * rng.normal(size=(frames, 2))
    boxes = Boxes3D(center, size, (yaw + np.pi) % (2 * np.pi) - np.pi, velocity)
    return boxes, margin - 0.6 * np.hypot(*error.T), np.hypot(*velocity.T)


def _correlated(count: int, persistence: float, rng: np.random.Generator) -> np.ndarray:
    """(count,) standard normal numbers of which neighbours correlate by `persistence` (first-order autoregression)."""
    fresh = rng.normal(size=count)
    values, value = np.empty(count), 0.0
    for i in range(count):
        value = fresh[i] if i == 0 else persistence * value + np.sqrt(1 - persistence**2) * fresh[i]
        values[i] = value
    return values


def _bursts(count: int, rng: np.random.Generator, noise: DetectorNoise) -> np.ndarray:
    """(count,) bool: frames in which the object is gone for no visible reason."""
    is_gone = np.zeros(count, dtype=bool)
    for start in np.flatnonzero(rng.random(count) < noise.burst_chance):
        is_gone[start : start + rng.geometric(1 / noise.burst_frames)] = True
    return is_gone


def _normal_quantile(probability: np.ndarray) -> np.ndarray:
    """Inverse of the standard normal distribution."""
    return np.array([NormalDist().inv_cdf(p) for p in probability.tolist()])


def _score(margin: float, rng: np.random.Generator) -> float:
    return float(np.clip(1 / (1 + np.exp(1.3 - 1.15 * margin + rng.normal(0, 0.45))), 0.05, 0.98))


def _duplicate(detection: Detections, class_name: str, rng: np.random.Generator) -> Detections:
    """A second, weaker box around the same place, labelled with a class that is easily mistaken for the first."""
    boxes = detection.boxes
    other = NEIGHBOURS[class_name]
    center = boxes.center + rng.normal(0, [0.2, 0.2, 0.05])
    moved = Boxes3D(center, boxes.size * rng.uniform(0.9, 1.15), boxes.yaw, boxes.velocity + rng.normal(0, 0.3, 2))
    score = max(float(detection.score[0]) * rng.uniform(0.15, 0.6), 0.05)
    return _one(moved, other, score, attribute_name(other, float(moved.speed[0])))


def _any_class(rng: np.random.Generator) -> str:
    """Half of the false alarms are cars and people; the rest is spread evenly."""
    return str(rng.choice(["car", "pedestrian"])) if rng.random() < 0.5 else str(rng.choice(list(SIZES)))


def _place(rng: np.random.Generator, max_range: float) -> np.ndarray:
    """(3,) somewhere around the ego vehicle, ego frame, at least 4 m away; z is the ground."""
    angle, radius = rng.uniform(-np.pi, np.pi), max(4.0, max_range * np.sqrt(rng.random()))
    return np.array([radius * np.cos(angle), radius * np.sin(angle), 0.0])


def _false_alarm(class_name: str, spot: np.ndarray, score: float, rng: np.random.Generator) -> Detections:
    """A box of a usual size on the ground at `spot` (3,), with a small velocity."""
    size = draw_size(class_name, rng)
    velocity = rng.normal(0, 0.3, 2) if rng.random() < 0.85 else rng.normal(0, 2.5, 2)
    boxes = Boxes3D((spot + np.array([0, 0, size[2] / 2]))[None], size[None], rng.uniform(-np.pi, np.pi, 1), velocity[None])
    return _one(boxes, class_name, score, attribute_name(class_name, float(np.hypot(*velocity)), parked=True))


def _one(boxes: Boxes3D, class_name: str, score: float, attribute: str) -> Detections:
    label = np.array([NUSCENES_DETECTION.index(class_name)])
    return Detections(boxes, label, np.array([score]), NUSCENES_DETECTION, attribute=np.array([attribute]))


def _reported(detections: list[Detections], ego: np.ndarray, max_range: float) -> Detections:
    """What lies within range of the ego position (3,), highest score first."""
    if not detections:
        return Detections.empty(NUSCENES_DETECTION)
    frame = concatenate(detections)
    frame = frame[np.hypot(*(frame.boxes.center - ego)[:, :2].T) < max_range]
    return frame[np.argsort(-frame.score, kind="stable")]
