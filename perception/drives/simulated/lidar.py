"""One turn of a simulated lidar: rays from a moving sensor, and what becomes of them on the way back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation, Slerp

from cuda_ops import cast_rays
from perception.core import Transform
from perception.drives.simulated.lidars import LidarModel
from perception.drives.simulated.matter import SCENERY, Matter

LEAST_COSINE = 0.2  # rough surfaces answer at grazing incidence too
VOLUME_COSINE = 0.6  # leaves hang at any angle
_STAINS = 0.4  # of readings around reflectivity times cosine, as a logarithm
_ZERO_SPREAD = 1.0  # of the readings that are stored as 0, as a logarithm
_STRAYS = 2e-4  # share of rays that meet rain, exhaust or dust
_MIXED = 0.05  # share of the jumps between neighbours at which a return lies in between


@dataclass(frozen=True, eq=False)
class Turn:
    """The points of one turn in the order in which the recording stores them, in the sensor frame.

    points     (N, 4) float32  x, y, z in metres, intensity as stored
    ring       (N,) int32      beam
    owner      (N,) int32      object that was hit, else SCENERY
    is_return  (N,) bool       false for a ray that came to nothing, where the model keeps those
    """

    points: np.ndarray
    ring: np.ndarray
    owner: np.ndarray
    is_return: np.ndarray


class OwnReturns(NamedTuple):
    """What rays (C, B) meet of the vehicle that carries the lidar: distance (inf: nothing), reflectivity and cosine of incidence."""

    distance: np.ndarray
    reflectivity: np.ndarray
    cosine: np.ndarray


def scan(
    model: LidarModel,
    sensor_at: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    matter_at: Callable[[float], Sequence[Matter]],
    time_stamp: float,
    rng: np.random.Generator,
    *,
    num_pieces: int = 6,
    own: OwnReturns | None = None,
) -> Turn:
    """One turn, of which `time_stamp` (seconds) names the moment that the model says.

    sensor_at   times (K,) -> rotation (K, 3, 3) and translation (K, 3) of the sensor in the world; its axes as in the model's recordings
    matter_at   time -> everything there is, in the world, in one table or more; asked for once in each of `num_pieces` pieces of the turn
    own         what moves with the sensor and is not in `matter_at`
    World coordinates are float32 inside: keep them within some hundred metres of 0.
    """
    first = time_stamp - model.time_stamp * model.turn_seconds
    column_time = first + (np.arange(model.columns) + 1) / model.columns * model.turn_seconds
    rotation, translation = sensor_at(column_time)
    direction, lift = beams(model)  # (C, B, 3), (B,)
    origin = translation[:, None] + lift[:, None] * rotation[:, None, :, 2]  # (C, B, 3)
    ray = np.einsum("cij,cbj->cbi", rotation, direction)
    distance = np.full(ray.shape[:2], np.inf, np.float32)
    reading, cosine = np.zeros(ray.shape[:2], np.float32), np.ones(ray.shape[:2], np.float32)
    if own is not None:
        distance, reading, cosine = (values.copy() for values in own)
    owner = np.full(ray.shape[:2], SCENERY, np.int32)
    for columns in np.array_split(np.arange(model.columns), num_pieces):
        piece, size = slice(columns[0], columns[-1] + 1), (len(columns), model.num_beams)
        start, along = (np.ascontiguousarray(part[piece].reshape(-1, 3), np.float32) for part in (origin, ray))
        for matter in matter_at(float(column_time[piece].mean())):
            nearest, farthest = model.range_limits
            hits = cast_rays(start, along, matter.shapes, seed=int(rng.integers(2**62)), min_range=nearest, max_range=farthest)
            is_nearer = hits.distance.reshape(size) < distance[piece]
            hit = is_nearer.ravel()
            shape, normal = hits.primitive[hit], hits.normal[hit]
            across = np.abs(np.einsum("ni,ni->n", normal, along[hit]))
            distance[piece][is_nearer] = hits.distance[hit]
            cosine[piece][is_nearer] = np.where((normal == 0).all(axis=1), VOLUME_COSINE, across)
            reading[piece][is_nearer] = matter.reflectivity[shape] * shine(across, matter.gloss[shape])
            owner[piece][is_nearer] = matter.owner[shape]
    distance, reading, cosine, owner = _widened(model, (distance, reading, cosine, owner), rng)
    return _stored(model, _received(model, distance, reading, cosine, rng), owner, direction, lift, sensor_at, column_time, time_stamp)


def shine(cosine: np.ndarray, gloss: np.ndarray) -> np.ndarray:
    """What is left of the reflectivity of shining surfaces away from normal incidence, beside the cosine itself; 1 for rough ones."""
    return 1 - gloss + gloss * cosine**4


def beams(model: LidarModel) -> tuple[np.ndarray, np.ndarray]:
    """Directions (C, B, 3) of all rays in the sensor frame, unit length, and the height (B,) at which each beam leaves the sensor."""
    azimuth = np.deg2rad(model.azimuths_deg()[:, None] + model.azimuth_offsets_deg)
    elevation = np.deg2rad(model.elevations_deg)
    forward, left, up = np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation) + 0 * azimuth
    axes = (forward, left, up) if model.forward_axis == "x" else (-left, forward, up)
    return np.stack(axes, axis=-1), model.origin_heights


def sensor_poses(times: np.ndarray, pose_times: np.ndarray, poses: list[Transform]) -> tuple[np.ndarray, np.ndarray]:
    """Poses at `times` (K,) between the moments of `poses`: translation along the line, rotation by slerp; as `scan` wants them.

    Raises ValueError for a time before the first pose or after the last."""
    rotation = Slerp(pose_times, Rotation.from_matrix([pose.rotation for pose in poses]))(times).as_matrix()
    place = np.array([pose.translation for pose in poses])
    return rotation, np.stack([np.interp(times, pose_times, place[:, axis]) for axis in range(3)], axis=1)


def _widened(model: LidarModel, met: tuple[np.ndarray, ...], rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Distance and what else rays (C, B) have met, of beams that are no lines: one that passes an edge closely returns from it.

    So thin and far things look wider than they are; of a person 40 m away it makes a fifth.
    """
    distance = met[0]
    chance, draw = model.beam_width_deg / 2 / (360 / model.columns), rng.random(distance.shape)
    column = np.broadcast_to(np.arange(model.columns)[:, None], distance.shape)
    takes = column
    for shift, low, high in ((-1, 0, chance), (1, chance, 2 * chance)):
        with np.errstate(invalid="ignore"):  # the sky beside the sky
            is_nearer = distance - np.roll(distance, -shift, axis=0) > 0.3
        takes = np.where(is_nearer & (draw >= low) & (draw < high), (column + shift) % model.columns, takes)
    return tuple(np.take_along_axis(values, takes, axis=0) for values in met)


def _received(
    model: LidarModel, distance: np.ndarray, reflectivity: np.ndarray, cosine: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Measured range (inf: none) and reading 0..255 of each ray, both (C, B); of a ray without return, the reading that is stored."""
    size = distance.shape
    stray = rng.random(size) < _STRAYS
    measured = np.where(stray, np.minimum(distance, rng.uniform(1.5, 15, size)), distance).astype(np.float32)
    known = np.where(np.isfinite(measured), measured, 0.0)
    answer = np.maximum(cosine, LEAST_COSINE) * np.minimum(cosine / max(model.grazing, 1e-9), 1) ** 2
    reading = np.where(stray, 3.0, reflectivity * answer) * _unevenness(model, size, rng) * _at(model.gain, known)
    is_weak = reading < _at(model.floor, known)
    is_gap = rng.random(size) < _at(model.gap_chance, known) * (0.3 + 1.6 * np.exp(-reading / 12))
    after = np.roll(measured, -1, axis=0)
    before = np.roll(measured, 1, axis=0)  # a beam on an edge sees both surfaces: now and then the range lies between them
    with np.errstate(invalid="ignore"):
        to_before, to_after = np.abs(before - measured), np.abs(after - measured)
        is_edge = (np.isfinite(to_before) & (to_before > 1)) | (np.isfinite(to_after) & (to_after > 1))
        is_jump = np.isfinite(to_before) & (to_before > 0.3) & (to_before < 6)
        mixed = measured + (before - measured) * rng.uniform(0, 1, size)
    is_gap |= is_edge & (rng.random(size) < model.edge_chance)
    measured = np.where(is_jump & (rng.random(size) < _MIXED), mixed, measured)
    noise = model.range_noise * (1 + model.noise_growth * known) * np.minimum(1 / np.maximum(cosine, 0.05), 5.0) ** 0.7
    measured = measured + noise * rng.normal(0, 1, size)
    with np.errstate(invalid="ignore"):
        measured = np.round(measured / model.range_step) * model.range_step
    is_lost = is_weak | is_gap | _blind(model) | ~((measured >= model.range_limits[0]) & (measured <= model.range_limits[1]))
    if model.zero_below is not None:
        reading = np.where(reading * np.exp(rng.normal(0, _ZERO_SPREAD, size)) < _at(model.zero_below, known), 0.0, reading)
    if model.keeps_missing:  # a lost return mostly leaves a strong reading behind, whatever the surface
        leftover = np.where(rng.random(size) < 0.7, rng.normal(75, 42, size), model.missing_readings)
        reading = np.where(is_lost, np.where(is_gap & ~is_weak, np.maximum(leftover, 2.0), model.missing_readings), reading)
    return np.where(is_lost, np.inf, measured), np.clip(reading, 0, 255)


def _at(table: tuple[tuple[float, float], ...], where: np.ndarray) -> np.ndarray:
    places, values = np.array(table, np.float64).T
    return np.interp(where, places, values)


def _unevenness(model: LidarModel, size: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """(C, B) factors of readings: stains and grain of surfaces, alike in neighbouring rays, and the noise of each."""
    stains = gaussian_filter(rng.normal(size=size), (5.0, 1.0), mode="wrap", truncate=3.0)
    stains *= _STAINS * np.sqrt(4 * np.pi * 5.0 * 1.0)  # white noise leaves the filter with 1 / sqrt(4 pi a b) of its spread
    return np.exp(stains + rng.normal(0, model.reading_noise, size))


def _blind(model: LidarModel) -> np.ndarray:
    """(C, B) bool: rays that the carrying vehicle is in the way of."""
    azimuth, ring = model.azimuths_deg()[:, None] % 360, np.arange(model.num_beams)
    hidden = np.zeros((model.columns, model.num_beams), bool)
    for first, last, begin, end in model.blind:
        hidden |= (ring >= first) & (ring <= last) & ((azimuth - begin) % 360 <= end - begin)
    return hidden


def _stored(
    model: LidarModel,
    received: tuple[np.ndarray, np.ndarray],
    owner: np.ndarray,
    direction: np.ndarray,
    lift: np.ndarray,
    sensor_at: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    column_time: np.ndarray,
    time_stamp: float,
) -> Turn:
    """The sweep as its recording has it."""
    measured, reading = received
    is_return = np.isfinite(measured)
    points = direction * np.where(is_return, measured, 0.0)[..., None]
    points[..., 2] += np.where(is_return, lift, 0.0)
    if model.is_compensated:  # into the sensor's pose at the time stamp
        rotation, translation = sensor_at(column_time)
        at_stamp, place = sensor_at(np.array([time_stamp]))
        step = np.einsum("ji,cjk->cik", at_stamp[0], rotation)
        shift = (translation - place[0]) @ at_stamp[0]
        points = np.einsum("cij,cbj->cbi", step, points) + shift[:, None]
    stored = np.round(model.intensity_scale * reading**model.intensity_power / model.intensity_step) * model.intensity_step
    stored = np.minimum(stored, model.intensity_top)
    rows = np.concatenate([points, stored[..., None]], axis=-1).astype(np.float32)
    ring = np.broadcast_to(np.arange(model.num_beams, dtype=np.int32), is_return.shape)
    parts: list[np.ndarray] = [rows, ring, np.where(is_return, owner, SCENERY).astype(np.int32), is_return]
    if model.order == "ring":
        turn = np.argsort(model.azimuths_deg() % 360, kind="stable")
        parts = [part[turn].swapaxes(0, 1) for part in parts]
    flat = [part.reshape(-1, *part.shape[2:]) for part in parts]
    if not model.keeps_missing:
        flat = [part[flat[3]] for part in flat]
    return Turn(*flat)
