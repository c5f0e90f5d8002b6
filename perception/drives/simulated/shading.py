"""How surfaces look in daylight: sun, sky, what they mirror, and haze. Colours are worked out linear in light, gamma 2."""

import math
from dataclasses import dataclass

import numpy as np

from cuda_ops import Hits, Kind, Primitives, cast_rays, ray_tree
from perception.drives.simulated.matter import Matter
from perception.drives.simulated.texture import Finish, Spots, cloudiness, draw_patterns, finishes

GRAIN = 3  # of 255: the most that the noise of a sensor adds or takes
SHADOW_RANGE = 150.0  # metres from the camera up to which shadows are cast
SHELTER_RANGE = 45.0  # ... and up to which the ground under something is darker
_SHELTER_HEIGHT = 0.7  # metres of what stands over the ground and takes its skylight
_EXPOSURE = 1.8
_HORIZON = np.array([0.60, 0.64, 0.68], np.float32)
_ZENITH = np.array([0.10, 0.22, 0.48], np.float32)
_CLOUD = np.array([0.92, 0.92, 0.94], np.float32)
_SKYLIGHT = np.array([0.21, 0.25, 0.31], np.float32)  # of the sky on what faces up
_BOUNCE = np.array([0.17, 0.15, 0.13], np.float32)  # of the ground on what faces down
_SUNLIGHT = np.array([1.22, 1.12, 0.97], np.float32)
_STREET = np.array([0.10, 0.10, 0.095], np.float32)  # what mirrors see below the horizon
_UP = np.array([0, 0, 1], np.float32)
_HAZE_LENGTH = 900.0  # metres after which a third of the contrast is left


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


class Target:
    """Shapes that rays are cast against again and again."""

    def __init__(self, shapes: Primitives) -> None:
        self.shapes, self._tree = shapes, ray_tree(shapes)

    def cast(self, origins: np.ndarray, directions: np.ndarray, *, seed: int, min_range: float, max_range: float = math.inf) -> Hits:
        return cast_rays(origins, directions, self.shapes, seed=seed, min_range=min_range, max_range=max_range, tree=self._tree)


class Scene:
    """Matter that is to be shaded, with what all rays share: what kind of surface each shape has, and what throws shadows."""

    def __init__(self, matter: Matter, sun: Sun, seed: int, *, shadows: bool) -> None:
        self.matter, self.sun, self.seed = matter, sun, seed
        self.finish = finishes(matter)
        # the ground seldom shades anything, and rays that leave it are the dearest
        kind = matter.shapes.kind
        is_caster = (kind != Kind.HEIGHT_FIELD) & (kind != Kind.PLANE)
        self._casters = Target(matter.taken(is_caster).shapes) if shadows and is_caster.any() else None
        self._linear = _LINEAR.take(matter.color)

    def shade(
        self, origins: np.ndarray, directions: np.ndarray, hits: Hits, openness: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(R, 3) uint8 of what rays see, from GRAIN to 255 - GRAIN; and (R, 2) float32, which share of the sun and of the sky reaches it.

        directions  (R, 3) float32 of unit length
        hits        of the rays on the matter's shapes
        openness    (R, 2) float32 as it is returned, NaN where it must be found
        """
        light, found = np.empty(directions.shape, np.float32), np.ones((len(directions), 2), np.float32)
        is_sky = hits.primitive < 0
        rows = np.flatnonzero(is_sky)
        light[rows] = sky(directions.take(rows, axis=0), self.sun)
        rows = np.flatnonzero(~is_sky)
        if len(rows):
            # `take` is several times as quick as indexing with rows
            ray, distance = directions.take(rows, axis=0), hits.distance.take(rows)
            place = origins.take(rows, axis=0) + distance[:, None] * ray
            near = Hits(distance, hits.normal.take(rows, axis=0), hits.primitive.take(rows))
            known = np.full((len(rows), 2), np.nan, np.float32) if openness is None else openness.take(rows, axis=0)
            color, known = self._surface(place, ray, near, known)
            haze = -np.expm1(distance * np.float32(-1 / _HAZE_LENGTH))[:, None]
            light[rows], found[rows] = color + haze * (_HORIZON - color), known
        return _to_bytes(light), found

    def _surface(self, place: np.ndarray, ray: np.ndarray, hits: Hits, openness: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Light (R, 3) of places on surfaces, and their openness (R, 2), which is found where it is NaN."""
        finish = self.finish.take(hits.primitive)
        spots, normal = self._spots(place, hits, finish)
        color = self._linear.take(hits.primitive, axis=0)
        gloss = draw_patterns(self.matter, spots, finish, color, self.seed)
        facing = normal @ self.sun.direction
        # leaves face all ways: the side away from the sun is dim, not dark
        sunlit = np.where(finish == Finish.LEAVES, 0.42 + 0.45 * facing, facing)
        np.maximum(sunlit, 0.0, out=sunlit)
        openness = self._openness(place, normal, finish, sunlit, hits.distance, openness)
        up = (0.5 + 0.5 * normal[:, 2:]) * openness[:, 1:]
        color *= (sunlit * openness[:, 0])[:, None] * _SUNLIGHT + up * _SKYLIGHT + (0.5 - 0.5 * normal[:, 2:]) * _BOUNCE
        rows = np.flatnonzero(gloss)
        if len(rows):
            color[rows] += self._mirrored(ray.take(rows, axis=0), normal.take(rows, axis=0), gloss.take(rows))
        return color, openness

    def _openness(
        self, place: np.ndarray, normal: np.ndarray, finish: np.ndarray, sunlit: np.ndarray, distance: np.ndarray, openness: np.ndarray
    ) -> np.ndarray:
        is_unknown = np.isnan(openness[:, 0])
        found = np.where(np.isnan(openness), np.float32(1), openness)
        if self._casters is None:
            return found
        casters, above = self._casters, place + np.float32(0.02) * normal

        def is_blocked(rows: np.ndarray, direction: np.ndarray, reach: float) -> np.ndarray:
            toward = np.tile(direction, (len(rows), 1))
            hits = casters.cast(above.take(rows, axis=0), toward, seed=self.seed, min_range=0.03, max_range=reach)
            return np.asarray(hits.primitive >= 0)

        rows = np.flatnonzero(is_unknown & (sunlit > 0) & (distance < SHADOW_RANGE))
        found[rows, 0] = np.where(is_blocked(rows, self.sun.direction, 60.0), np.float32(0.06), np.float32(1))
        is_ground = (finish == Finish.ROAD) | (finish == Finish.GRASS) | (finish == Finish.PAINT)
        rows = np.flatnonzero(is_unknown & is_ground & (distance < SHELTER_RANGE))
        found[rows, 1] = np.where(is_blocked(rows, _UP, _SHELTER_HEIGHT), np.float32(0.25), np.float32(1))
        return found

    def _mirrored(self, ray: np.ndarray, normal: np.ndarray, gloss: np.ndarray) -> np.ndarray:
        """(R, 3) light of sky and street that smooth surfaces mirror, more at a grazing angle (Schlick's rule)."""
        toward = (ray * normal).sum(axis=1)
        mirrored = ray - 2 * toward[:, None] * normal
        share = gloss + (1 - gloss) * np.clip(1 + toward, 0, 1) ** 5 * np.float32(0.7)
        above = np.clip(mirrored[:, 2:] * 4 - np.float32(0.1), 0, 1)  # houses stand around the horizon
        return share[:, None] * (_STREET + above * (_gradient(mirrored[:, 2]) - _STREET))

    def _spots(self, place: np.ndarray, hits: Hits, finish: np.ndarray) -> tuple[Spots, np.ndarray]:
        """The places in the axes of what was hit, so that the pattern of a surface moves with it; and the normals in the world, those of an
        ellipsoid where leaves were hit.
        """
        s = self.matter.shapes
        is_field = (s.kind == Kind.HEIGHT_FIELD) | (s.kind == Kind.PLANE)
        middle = np.where(is_field[:, None], np.float32(0), s.center)  # the ground's pattern goes on from tile to tile
        yaw = np.where(is_field, np.float32(0), s.yaw)
        cos, sin = np.cos(yaw).take(hits.primitive), np.sin(yaw).take(hits.primitive)

        def turned(xyz: np.ndarray, sin: np.ndarray) -> np.ndarray:
            return np.stack([cos * xyz[:, 0] + sin * xyz[:, 1], cos * xyz[:, 1] - sin * xyz[:, 0], xyz[:, 2]], axis=1)

        own, normal = turned(place - middle.take(hits.primitive, axis=0), sin), hits.normal
        rows = np.flatnonzero(finish == Finish.LEAVES)
        outward = own.take(rows, axis=0) / s.size.take(hits.primitive.take(rows), axis=0)
        outward /= np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-6)
        own_normal = turned(normal, sin)
        own_normal[rows] = outward
        normal = turned(own_normal, -sin)
        return Spots(hits.primitive, own, own_normal, hits.distance), normal


def sky(directions: np.ndarray, sun: Sun) -> np.ndarray:
    """(R, 3) light of the sky along unit directions: bright and grey at the horizon and below, blue above with clouds, brighter around
    the sun.
    """
    light = _gradient(directions[:, 2])
    light += cloudiness(directions)[:, None] * (_CLOUD - light)
    glow = np.maximum(directions @ sun.direction, 0.0)
    for _ in range(3):  # to the eighth power
        glow *= glow
    return light + glow[:, None] * np.array([0.30, 0.27, 0.21], np.float32)


def _gradient(up: np.ndarray) -> np.ndarray:
    return _HORIZON + np.sqrt(np.maximum(up, 0))[:, None] * (_ZENITH - _HORIZON)


_LINEAR = (np.arange(256, dtype=np.float32) / 255) ** 2


def _to_bytes(light: np.ndarray) -> np.ndarray:
    """Light as 0..255, in place: bright things are pressed together as a camera does; `GRAIN` stays free at both ends."""
    light *= np.float32(-_EXPOSURE)
    np.expm1(light, out=light)
    np.negative(light, out=light)
    np.maximum(light, 0, out=light)
    np.sqrt(light, out=light)
    light *= 255
    light += 0.5
    return np.clip(light, GRAIN, 255 - GRAIN, out=light).astype(np.uint8)
