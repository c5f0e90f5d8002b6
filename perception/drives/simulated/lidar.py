"""One turn of a simulated lidar: rays from a moving sensor, and what becomes of them on the way back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter

from cuda_ops import cast_rays
from perception.core import Transform
from perception.core.transform import quaternions_to_matrices
from perception.drives.simulated.lidars import LidarModel, Table
from perception.drives.simulated.matter import SCENERY, Matter

LEAST_COSINE = 0.2  # rough surfaces answer at grazing incidence too
VOLUME_COSINE = 0.6  # leaves hang at any angle
_STAINS = 0.4  # of readings around reflectivity times cosine, as a logarithm
_ZERO_SPREAD = 1.0  # of the readings that are stored as 0, as a logarithm
_STRAYS = 2e-4  # share of rays that meet rain, exhaust or dust
_MIXED = 0.05  # share of the jumps between neighbours at which a return lies in between
_NUM_STAINS = 8
_FINENESS, _FARTHEST = 0.1, 250.0  # metres between two rows of what depends on the range, and where they end
_GRAZING_NOISE = (np.minimum(1 / np.maximum(np.linspace(0, 1, 256), 0.05), 5.0) ** 0.7).astype(np.float32)  # factors, by cosine


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
    first, _ = turn_of(model, time_stamp)
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
        shape = primitives[ray]
        across = np.abs(np.einsum("ni,ni->n", normals[ray], ways[ray]))
        seen[ray] = found[ray]
        cosine[columns].reshape(-1)[ray] = np.where(matter.is_volume[shape], np.float32(VOLUME_COSINE), across)
        reading[columns].reshape(-1)[ray] = matter.reflectivity[shape] * shine(across, matter.gloss[shape])
        owner[columns].reshape(-1)[ray] = matter.owner[shape]
    distance, reading, cosine, owner = _widened(model, (distance, reading, cosine, owner), rng)
    return _stored(model, _received(model, distance, reading, cosine, rng), owner, rotation, translation)


def turn_of(model: LidarModel, time_stamp: float) -> tuple[float, float]:
    """When a turn begins and ends, seconds."""
    begin = time_stamp - model.time_stamp * model.turn_seconds
    return begin, begin + model.turn_seconds


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


def shine(cosine: np.ndarray, gloss: np.ndarray) -> np.ndarray:
    """What is left of the reflectivity of shining surfaces away from normal incidence, beside the cosine itself; 1 for rough ones."""
    square = cosine * cosine
    return 1 - gloss + gloss * (square * square)


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


def _widened(model: LidarModel, met: tuple[np.ndarray, ...], rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Distance and what else rays (C, B) have met, of beams that are no lines: one that passes an edge closely returns from it.

    So thin and far things look wider than they are; of a person 40 m away it makes a fifth.
    """
    distance = met[0]
    width, chance = distance.shape[1], model.beam_width_deg / 2 / (360 / model.columns)
    draw = rng.random(distance.shape, np.float32)
    with np.errstate(invalid="ignore"):  # the sky beside the sky
        farther = distance[1:] - distance[:-1]
        around = distance[:1] - distance[-1:]
    farther = np.concatenate([around, farther, around])  # than the column before
    takes_before = (farther[:-1] > 0.3) & (draw < chance)
    takes_after = (farther[1:] < -0.3) & (draw >= chance) & (draw < 2 * chance)
    before, after = np.flatnonzero(takes_before), np.flatnonzero(takes_after)
    ray = np.concatenate([before, after])
    source = np.concatenate([before - width, after + width]) % distance.size
    widened = []
    for values in met:
        wider = values.copy()
        wider.reshape(-1)[ray] = values.reshape(-1)[source]
        widened.append(wider)
    return tuple(widened)


def _received(
    model: LidarModel, distance: np.ndarray, reflectivity: np.ndarray, cosine: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Measured range (inf: none) and reading 0..255 of each ray, both (C, B); of a ray without return, the reading that is stored."""
    size, far = distance.shape, _tables_of(model)
    distance, cosine = distance.astype(np.float32, copy=False), cosine.astype(np.float32, copy=False)
    stray = rng.integers(distance.size, size=rng.binomial(distance.size, _STRAYS))
    measured, surface = distance.copy(), np.array(reflectivity, np.float32)
    measured.reshape(-1)[stray] = np.minimum(measured.reshape(-1)[stray], rng.uniform(1.5, 15, len(stray)))
    known = np.where(np.isfinite(measured), measured, np.float32(0))
    row = np.minimum(known * np.float32(1 / _FINENESS), np.float32(_FARTHEST / _FINENESS)).astype(np.intp)
    surface *= np.maximum(cosine, np.float32(LEAST_COSINE))
    if model.grazing:
        surface *= np.minimum(cosine * np.float32(1 / model.grazing), 1) ** 2
    surface.reshape(-1)[stray] = 3.0
    reading = surface * _unevenness(model, size, rng) * far.gain[row]
    is_weak = reading < far.floor[row]
    is_gap = rng.random(size, np.float32) < far.gap_chance[row] * (
        np.float32(0.3) + np.float32(1.6) * np.exp(reading * np.float32(-1 / 12))
    )
    # a beam on an edge sees both surfaces: now and then the range lies between them
    before = np.concatenate([measured[-1:], measured[:-1]])
    with np.errstate(invalid="ignore"):
        step = np.abs(before - measured)
    is_finite = np.isfinite(step)
    is_step = is_finite & (step > 1)
    edge = np.flatnonzero(is_step | np.concatenate([is_step[1:], is_step[:1]]))
    is_gap.reshape(-1)[edge[rng.random(len(edge), np.float32) < model.edge_chance]] = True
    jump = np.flatnonzero((step > 0.3) & (step < 6))
    jump = jump[rng.random(len(jump), np.float32) < _MIXED]
    flat = measured.reshape(-1)
    flat[jump] += (before.reshape(-1)[jump] - flat[jump]) * rng.random(len(jump), np.float32)
    noise = rng.standard_normal(size, np.float32)
    noise *= np.float32(model.range_noise) * (1 + np.float32(model.noise_growth) * known)
    noise *= _GRAZING_NOISE[(np.minimum(cosine, 1) * np.float32(len(_GRAZING_NOISE) - 1)).astype(np.intp)]
    measured += noise
    measured = np.rint(measured * np.float32(1 / model.range_step)) * np.float32(model.range_step)
    is_lost = is_weak | is_gap | _blind(model) | ~((measured >= model.range_limits[0]) & (measured <= model.range_limits[1]))
    if model.zero_below is not None:
        blurred = reading * np.exp(rng.standard_normal(size, np.float32) * np.float32(_ZERO_SPREAD))
        reading[blurred < far.zero_below[row]] = 0
    if model.keeps_missing:  # a lost return mostly leaves a strong reading behind, whatever the surface
        reading = np.where(is_lost, model.missing_readings.astype(np.float32), reading)
        gap = np.flatnonzero(is_gap & ~is_weak)
        gap = gap[rng.random(len(gap)) < 0.7]
        reading.reshape(-1)[gap] = np.maximum(rng.normal(75, 42, len(gap)), 2.0)
        gap = np.flatnonzero(is_gap & ~is_weak & (reading < 2))
        reading.reshape(-1)[gap] = 2.0
    return np.where(is_lost, np.float32(np.inf), measured), np.clip(reading, 0, 255)


class _Far(NamedTuple):
    """Columns of a `LidarModel`'s tables at every `_FINENESS` metres of range, float32."""

    gain: np.ndarray
    floor: np.ndarray
    gap_chance: np.ndarray
    zero_below: np.ndarray


@lru_cache(maxsize=16)
def _tables_of(model: LidarModel) -> _Far:
    ranges = (np.arange(int(_FARTHEST / _FINENESS) + 1) + 0.5) * _FINENESS

    def column(table: Table) -> np.ndarray:
        return np.interp(ranges, *np.array(table, np.float64).T).astype(np.float32)

    return _Far(*(column(table) for table in (model.gain, model.floor, model.gap_chance, model.zero_below or ((0, 0),))))


def _unevenness(model: LidarModel, size: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """(C, B) factors of readings: stains and grain of surfaces, alike in neighbouring rays, and the noise of each."""
    stains = _stains(size)[int(rng.integers(_NUM_STAINS)), :: int(rng.choice((-1, 1)))]
    first = int(rng.integers(size[0]))
    noise = rng.standard_normal(size, np.float32) * np.float32(model.reading_noise)
    noise[first:] += stains[: size[0] - first]
    noise[:first] += stains[size[0] - first :]
    return np.exp(noise)


@lru_cache(maxsize=16)
def _stains(size: tuple[int, ...]) -> np.ndarray:
    """(`_NUM_STAINS`, C, B) float32 logarithms of how dark and bright surfaces are; turns draw which of them, and from where on."""
    stains = gaussian_filter(np.random.default_rng(0).normal(size=(_NUM_STAINS, *size)), (0.0, 5.0, 1.0), mode="wrap", truncate=3.0)
    # white noise leaves the filter with 1 / sqrt(4 pi a b) of its spread
    return np.asarray(stains * _STAINS * np.sqrt(4 * np.pi * 5.0 * 1.0), np.float32)


@lru_cache(maxsize=16)
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
    points = _directions(model) * np.where(is_return, measured, np.float32(0)).astype(np.float32, copy=False)  # (3, C, B)
    if model.origin_heights.any():
        points[2] += np.where(is_return, model.origin_heights, 0.0)
    rows = np.empty((*is_return.shape, 4), np.float32)
    if model.is_compensated:  # into the sensor's pose at the time stamp
        turn = np.concatenate([rotation[-1].T @ rotation[:-1], ((translation[:-1] - translation[-1]) @ rotation[-1])[:, :, None]], axis=2)
        for i, (x, y, z, shift) in enumerate(turn.astype(np.float32).transpose(1, 2, 0)[..., None]):
            rows[..., i] = x * points[0] + y * points[1] + z * points[2] + shift
    else:
        rows[..., :3] = points.transpose(1, 2, 0)
    stored = model.intensity_scale * (reading if model.intensity_power == 1 else reading**model.intensity_power)
    rows[..., 3] = np.minimum(np.rint(stored / model.intensity_step) * model.intensity_step, model.intensity_top)
    ring = np.broadcast_to(np.arange(model.num_beams, dtype=np.int32), is_return.shape)
    parts: list[np.ndarray] = [rows, ring, np.where(is_return, owner, SCENERY).astype(np.int32), is_return]
    if model.order == "ring":
        turn = np.argsort(model.azimuths_deg() % 360, kind="stable")
        parts = [part[turn].swapaxes(0, 1) for part in parts]
    flat = [part.reshape(-1, *part.shape[2:]) for part in parts]
    if not model.keeps_missing:
        flat = [part[flat[3]] for part in flat]
    return Turn(*flat)
