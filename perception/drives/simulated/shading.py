"""How surfaces look in daylight: sun, sky, haze, and a little unevenness. Colours are worked out linear in light, gamma 2."""

import math
from dataclasses import dataclass

import numpy as np

from cuda_ops import Hits, Kind, cast_rays
from perception.drives.simulated.matter import Matter

GRAIN = 3  # of 255: the most that the noise of a sensor adds or takes
SHADOW_RANGE = 150.0  # metres from the camera up to which shadows are cast
_HORIZON = np.array([0.62, 0.68, 0.74], np.float32)
_ZENITH = np.array([0.10, 0.25, 0.58], np.float32)
_SKYLIGHT = np.array([0.36, 0.41, 0.50], np.float32)  # of the sky on what faces up
_BOUNCE = np.array([0.20, 0.18, 0.16], np.float32)  # of the ground on what faces down
_SUNLIGHT = np.array([0.86, 0.80, 0.70], np.float32)
_HAZE_LENGTH = 700.0  # metres after which a third of the contrast is left


@dataclass(frozen=True)
class Sun:
    """Where the sun stands in the frame of the matter: `azimuth_deg` counter-clockwise from x, `elevation_deg` above the horizon."""

    azimuth_deg: float = 140.0
    elevation_deg: float = 42.0

    @property
    def direction(self) -> np.ndarray:
        """(3,) float32 unit vector towards it."""
        azimuth, elevation = math.radians(self.azimuth_deg), math.radians(self.elevation_deg)
        flat = math.cos(elevation)
        return np.array([flat * math.cos(azimuth), flat * math.sin(azimuth), math.sin(elevation)], np.float32)


DAYLIGHT = Sun()


def shade(matter: Matter, origins: np.ndarray, directions: np.ndarray, hits: Hits, sun: Sun, seed: int, *, shadows: bool) -> np.ndarray:
    """(R, 3) uint8 of what rays see, from GRAIN to 255 - GRAIN.

    directions  (R, 3) float32 of unit length
    hits        of the rays on `matter.shapes`
    """
    light = np.empty(directions.shape, np.float32)
    is_sky = hits.primitive < 0
    rows = np.flatnonzero(is_sky)
    light[rows] = sky(directions.take(rows, axis=0), sun)
    rows = np.flatnonzero(~is_sky)
    if len(rows):
        # `take` is several times as quick as indexing with rows
        ray, primitive, distance = directions.take(rows, axis=0), hits.primitive.take(rows), hits.distance.take(rows)
        place = origins.take(rows, axis=0) + distance[:, None] * ray
        own = _own_axes(matter, primitive, place)
        normal, is_leaf = _normals(matter, primitive, own, hits.normal.take(rows, axis=0))
        color = _LINEAR.take(matter.color).take(primitive, axis=0)
        color *= _unevenness(own, primitive, distance, is_leaf, seed)[:, None]
        color *= _light(matter, place, normal, is_leaf, distance, sun, seed, shadows=shadows)
        haze = -np.expm1(distance * np.float32(-1 / _HAZE_LENGTH))[:, None]
        light[rows] = color + haze * (_HORIZON - color)
    return _to_bytes(light)


def sky(directions: np.ndarray, sun: Sun) -> np.ndarray:
    """(R, 3) light of the sky along unit directions: bright and grey at the horizon and below, blue above, brighter around the sun."""
    up = np.maximum(directions[:, 2], 0.0)
    light = _HORIZON + np.sqrt(up)[:, None] * (_ZENITH - _HORIZON)
    glow = np.maximum(directions @ sun.direction, 0.0)
    for _ in range(3):  # to the eighth power
        glow *= glow
    return light + glow[:, None] * np.array([0.25, 0.22, 0.17], np.float32)


def _light(
    matter: Matter, place: np.ndarray, normal: np.ndarray, is_leaf: np.ndarray, distance: np.ndarray, sun: Sun, seed: int, *, shadows: bool
) -> np.ndarray:
    """(R, 3) light on surfaces: Lambert's law for the sun, the sky and the ground by how much of them a surface faces."""
    facing = normal @ sun.direction
    # leaves face all ways: the side away from the sun is dim, not dark
    sunlit = np.where(is_leaf, 0.45 + 0.4 * facing, facing)
    np.maximum(sunlit, 0.0, out=sunlit)
    if shadows:
        rows = np.flatnonzero((sunlit > 0) & (distance < SHADOW_RANGE))
        start = place.take(rows, axis=0) + np.float32(0.02) * normal.take(rows, axis=0)
        toward_sun = np.broadcast_to(sun.direction, start.shape).copy()
        blocker = cast_rays(start, toward_sun, matter.shapes, seed=seed, min_range=0.03, max_range=60.0).primitive
        sunlit[rows[blocker >= 0]] *= np.float32(0.12)
    up = 0.5 + 0.5 * normal[:, 2:]
    return sunlit[:, None] * _SUNLIGHT + up * _SKYLIGHT + (1 - up) * _BOUNCE


def _own_axes(matter: Matter, primitive: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Places (R, 3) in the axes of what was hit, so that the pattern of a surface moves with it."""
    s = matter.shapes
    moved = place - s.center.take(primitive, axis=0)
    cos, sin = np.cos(s.yaw).take(primitive), np.sin(s.yaw).take(primitive)
    x, y = cos * moved[:, 0] + sin * moved[:, 1], cos * moved[:, 1] - sin * moved[:, 0]
    moved[:, 0], moved[:, 1] = x, y
    return moved


def _normals(matter: Matter, primitive: np.ndarray, own: np.ndarray, normal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`normal` (R, 3), filled in place with those of an ellipsoid where a volume was hit; and (R,) bool whether it was one."""
    s = matter.shapes
    is_leaf = np.isin(s.kind, (Kind.ELLIPSOID_VOLUME, Kind.BOX_VOLUME)).take(primitive)
    if is_leaf.any():
        rows = np.flatnonzero(is_leaf)
        of = primitive[rows]
        outward = own[rows] / s.size[of]
        outward /= np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-6)
        cos, sin = np.cos(s.yaw[of]), np.sin(s.yaw[of])
        x, y = outward[:, 0], outward[:, 1]
        normal[rows] = np.stack([cos * x - sin * y, sin * x + cos * y, outward[:, 2]], axis=1)
    return normal, is_leaf


def _unevenness(own: np.ndarray, primitive: np.ndarray, distance: np.ndarray, is_leaf: np.ndarray, seed: int) -> np.ndarray:
    """(R,) factor around 1: grains of some centimetres, larger far away where smaller ones would flicker, and soft patches of metres."""
    # grains of 2, 4, 8, ... cm: three pixels of a camera with a focal length of 1,260 pixels, or more
    size = np.exp2(np.ceil(np.log2(np.maximum(distance * np.float32(3 / 1260), 0.02)))).astype(np.float32)
    cell = np.floor(own / size[:, None]).astype(np.int64).astype(np.uint32)
    grain = _hash(cell[:, 0], cell[:, 1], cell[:, 2], primitive.astype(np.uint32) * np.uint32(7919) + np.uint32(seed & 0xFFFFFFFF))
    x, y, z = own[:, 0], own[:, 1], own[:, 2]
    patch = np.sin(0.9 * x + 2 * np.sin(0.37 * y + 0.5 * z)) * np.sin(0.7 * (y + z) + 2 * np.sin(0.43 * x))
    return 1 + np.where(is_leaf, np.float32(0.5), np.float32(0.1)) * (grain - np.float32(0.5)) + np.float32(0.05) * patch


def _hash(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """(R,) float32 in [0, 1) of four uint32 each (multiply and shift, as in the finalizer of MurmurHash3)."""
    h = a * np.uint32(0x9E3779B1) ^ b * np.uint32(0x85EBCA77) ^ c * np.uint32(0xC2B2AE3D) ^ d * np.uint32(0x27D4EB2F)
    h ^= h >> np.uint32(15)
    h *= np.uint32(0x2C1B3C6D)
    h ^= h >> np.uint32(12)
    h *= np.uint32(0x297A2D39)
    h ^= h >> np.uint32(15)
    return (h >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)


_LINEAR = (np.arange(256, dtype=np.float32) / 255) ** 2


def _to_bytes(light: np.ndarray) -> np.ndarray:
    """Light 0..1 as 0..255, in place; `GRAIN` stays free at both ends."""
    np.maximum(light, 0, out=light)
    np.sqrt(light, out=light)
    light *= 255
    light += 0.5
    return np.clip(light, GRAIN, 255 - GRAIN, out=light).astype(np.uint8)
