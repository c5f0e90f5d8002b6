"""One turn of a simulated lidar: rays from a moving sensor, and what becomes of them on the way back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from cuda_ops import cast_rays
from perception.core import Transform
from perception.core.transform import quaternions_to_matrices
from perception.drives.simulated.lidars import LidarModel
from perception.drives.simulated.matter import SCENERY, Matter

LEAST_COSINE = 0.2  # rough surfaces answer at grazing incidence too
VOLUME_COSINE = 0.6  # leaves hang at any angle
_SPREAD = 0.4  # of readings around reflectivity times cosine, as a logarithm
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
    device: str | None = None,
) -> Turn:
    """One turn, of which `time_stamp` (seconds) names the moment that the model says.

    sensor_at   times (K,) -> rotation (K, 3, 3) and translation (K, 3) of the sensor in the world; its axes as in the model's recordings
    matter_at   time -> everything there is, in the world, in one table or more; asked for once in each of `num_pieces` pieces of the turn.
                Best is what mostly comes first; a table that stays the same value is cast against once for all pieces
    own         what moves with the sensor and is not in `matter_at`
    device      where rays are cast ("cuda", ...; needs torch), with the same bits: NumPy on the CPU without it
    World coordinates are float32 inside: keep them within some hundred metres of 0.
    """
    first = time_stamp - model.time_stamp * model.turn_seconds
    column_time = first + (np.arange(model.columns) + 1) / model.columns * model.turn_seconds
    rotation, translation = sensor_at(np.append(column_time, time_stamp))
    start, along = _rays(model, rotation[:-1], translation[:-1])
    size = (model.columns, model.num_beams)
    distance, reading, cosine = np.full(size, np.inf, np.float32), np.zeros(size, np.float32), np.ones(size, np.float32)
    if own is not None:
        distance, reading, cosine = (values.copy() for values in own)
    owner = np.full(size, SCENERY, np.int32)
    nearest, farthest = model.range_limits
    placed = partial(_placed, device)
    for columns, matter in _tables(matter_at, column_time, num_pieces):
        seen, ways = distance[columns].reshape(-1), along[columns].reshape(-1, 3)
        shapes, tree = matter.on(device)
        limits = {"seed": int(rng.integers(2**62)), "min_range": nearest, "max_range": placed(np.minimum(seen, np.float32(farthest)))}
        hits = cast_rays(placed(start[columns].reshape(-1, 3)), placed(ways), shapes, tree=tree, **limits)
        found, normals, primitives = (np.asarray(part.cpu() if device else part) for part in hits)
        ray = np.flatnonzero((primitives >= 0) & (found < seen))
        shape, normal = primitives[ray], normals[ray]
        across = np.abs(np.einsum("ni,ni->n", normal, ways[ray]))
        is_volume = np.einsum("ni,ni->n", normal, normal) == 0
        seen[ray] = found[ray]
        cosine[columns].reshape(-1)[ray] = np.where(is_volume, VOLUME_COSINE, across)
        reading[columns].reshape(-1)[ray] = matter.reflectivity[shape]
        owner[columns].reshape(-1)[ray] = matter.owner[shape]
    return _stored(model, _received(model, distance, reading, cosine, rng), owner, rotation, translation)


def _tables(matter_at: Callable[[float], Sequence[Matter]], column_time: np.ndarray, num_pieces: int) -> list[tuple[slice, Matter]]:
    """Each table with the columns in which it is there; one that stays from piece to piece is one, in the place where it first came."""
    tables: list[tuple[slice, Matter]] = []
    for columns in np.array_split(np.arange(len(column_time)), num_pieces):
        begin, end = int(columns[0]), int(columns[-1]) + 1
        for matter in matter_at(float(column_time[begin:end].mean())):
            goes_on = [i for i, (before, other) in enumerate(tables) if other is matter and before.stop == begin]
            for i in goes_on[:1]:
                tables[i] = (slice(tables[i][0].start, end), matter)
            if not goes_on:
                tables.append((slice(begin, end), matter))
    return tables


def _placed(device: str | None, array: np.ndarray) -> Any:
    """An array where rays are cast."""
    if device is None:
        return array
    import torch

    return torch.from_numpy(array).to(device)


def _rays(model: LidarModel, rotation: np.ndarray, translation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Origins and directions (C, B, 3) float32 in the world, for poses (C, 3, 3) and (C, 3) of the sensor."""
    lift = model.origin_heights
    along = _turned(rotation, _directions(model))
    start = np.empty_like(along)
    start[:] = translation[:, None]
    if lift.any():
        start += lift[:, None] * rotation[:, None, :, 2]
    return start, along


def _turned(rotation: np.ndarray, xyz: np.ndarray) -> np.ndarray:
    """Vectors (3, C, B) float32, those of each column turned by its rotation (C, 3, 3), as (C, B, 3) float32."""
    result = np.empty((*xyz.shape[1:], 3), np.float32)
    for i, row in enumerate(rotation.astype(np.float32).transpose(1, 2, 0)[..., None]):  # sums of whole planes: faster than small matrices
        result[..., i] = row[0] * xyz[0] + row[1] * xyz[1] + row[2] * xyz[2]
    return result


@lru_cache(maxsize=16)
def _directions(model: LidarModel) -> np.ndarray:
    """Those of `beams`, (3, C, B) float32."""
    return np.ascontiguousarray(beams(model)[0].transpose(2, 0, 1), np.float32)


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
    if times.min() < pose_times[0] or times.max() > pose_times[-1]:
        got = f"{times.min()} to {times.max()}"
        raise ValueError(f"sensor_poses: expected times from {pose_times[0]} to {pose_times[-1]}, those of the poses, got {got}")
    before = np.clip(np.searchsorted(pose_times, times, side="right") - 1, 0, len(poses) - 2)
    share = ((times - pose_times[before]) / (pose_times[before + 1] - pose_times[before]))[:, None]
    turn = np.array([pose.quaternion for pose in poses])
    cosine = (turn[:-1] * turn[1:]).sum(axis=1)
    angle = np.maximum(np.arccos(np.minimum(np.abs(cosine), 1.0)), 1e-6)[before, None]  # below that, sines are lines
    one, other = turn[before], turn[before + 1] * np.where(cosine < 0, -1, 1)[before, None]  # q and -q turn alike: the shorter way
    rotation = quaternions_to_matrices(np.sin((1 - share) * angle) * one + np.sin(share * angle) * other)
    place = np.array([pose.translation for pose in poses])
    return rotation, place[before] + share * (place[before + 1] - place[before])


def _received(
    model: LidarModel, distance: np.ndarray, reflectivity: np.ndarray, cosine: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Measured range (inf: none) and reading 0..255 of each ray, both (C, B)."""
    size = distance.shape
    stray = rng.random(size) < _STRAYS
    measured = np.where(stray, np.minimum(distance, rng.uniform(1.5, 15, size)), distance).astype(np.float32)
    reading = np.where(stray, 3.0, reflectivity * np.maximum(cosine, LEAST_COSINE)) * np.exp(rng.normal(0, _SPREAD, size))
    known = np.where(np.isfinite(measured), measured, 0.0)
    ranges, weakest = np.array(model.floor).T
    is_weak = reading < np.interp(known, ranges, weakest)
    ranges, chance = np.array(model.gap_chance).T
    is_lost = rng.random(size) < np.interp(known, ranges, chance)
    is_lost |= _blind(model)
    if model.drops_weak:
        is_lost |= is_weak
    else:
        reading = np.where(is_weak, 0.0, reading)
    before = np.roll(measured, 1, axis=0)  # a beam on an edge sees both surfaces: now and then the range lies between them
    with np.errstate(invalid="ignore"):
        is_jump = np.isfinite(before) & np.isfinite(measured) & (np.abs(before - measured) > 0.3) & (np.abs(before - measured) < 6)
        mixed = measured + (before - measured) * rng.uniform(0, 1, size)
    measured = np.where(is_jump & (rng.random(size) < _MIXED), mixed, measured)
    noise = model.range_noise * (1 + model.noise_growth * known) * np.minimum(1 / np.maximum(cosine, 0.05), 5.0) ** 0.7
    measured = measured + noise * rng.normal(0, 1, size)
    with np.errstate(invalid="ignore"):
        measured = np.round(measured / model.range_step) * model.range_step
    is_lost |= ~((measured >= model.range_limits[0]) & (measured <= model.range_limits[1]))
    return np.where(is_lost, np.inf, measured), np.clip(reading, 0, 255)


def _blind(model: LidarModel) -> np.ndarray:
    """(C, B) bool: rays that the carrying vehicle is in the way of."""
    azimuth, ring = model.azimuths_deg()[:, None] % 360, np.arange(model.num_beams)
    hidden = np.zeros((model.columns, model.num_beams), bool)
    for first, last, begin, end in model.blind:
        hidden |= (ring >= first) & (ring <= last) & ((azimuth - begin) % 360 <= end - begin)
    return hidden


def _stored(
    model: LidarModel, received: tuple[np.ndarray, np.ndarray], owner: np.ndarray, rotation: np.ndarray, translation: np.ndarray
) -> Turn:
    """The sweep as its recording has it; poses (C + 1, 3, 3) and (C + 1, 3) of the sensor, the last one that of the time stamp."""
    measured, reading = received
    is_return = np.isfinite(measured)
    points = _directions(model) * np.where(is_return, measured, 0.0).astype(np.float32)  # (3, C, B)
    if model.origin_heights.any():
        points[2] += np.where(is_return, model.origin_heights, 0.0)
    if model.is_compensated:  # into the sensor's pose at the time stamp
        points = _turned(rotation[-1].T @ rotation[:-1], points)
        points += ((translation[:-1] - translation[-1]) @ rotation[-1])[:, None]
    else:
        points = points.transpose(1, 2, 0)
    stored = np.round(reading * model.intensity_scale / model.intensity_step) * model.intensity_step
    rows = np.empty((*is_return.shape, 4), np.float32)
    rows[..., :3], rows[..., 3] = points, stored
    ring = np.broadcast_to(np.arange(model.num_beams, dtype=np.int32), is_return.shape)
    parts: list[np.ndarray] = [rows, ring, np.where(is_return, owner, SCENERY).astype(np.int32), is_return]
    if model.order == "ring":
        turn = np.argsort(model.azimuths_deg() % 360, kind="stable")
        parts = [part[turn].swapaxes(0, 1) for part in parts]
    flat = [part.reshape(-1, *part.shape[2:]) for part in parts]
    if not model.keeps_missing:
        flat = [part[flat[3]] for part in flat]
    return Turn(*flat)
