"""Patterns on simulated surfaces: grain, worn ground, leaves, windows of houses; and clouds. All come from one tile of noise.

Patterns are drawn in coordinates of the surface and are functions of the place, the number of the shape and the seed alone.
"""

from dataclasses import dataclass
from enum import IntEnum
from functools import cache

import numpy as np

from cuda_ops import Kind
from perception.drives.simulated.matter import SCENERY, Matter

TILE_SIDE = 1024  # texels
_BLEACHED = np.array([1.9, 1.82, 1.65], np.float32)  # roads in the sun and dust are brighter than fresh asphalt
_OLIVE = np.array([0.85, 0.72, 0.62], np.float32)  # what hangs in the light is duller than one leaf
_FOCAL = 1260  # pixels, of a usual camera
_OCTAVES = (4, 8, 16, 32, 64, 128, 256, 512)


@cache
def noise_tile() -> np.ndarray:
    """(TILE_SIDE**2,) float32 noise, row by row, that repeats without a seam: soft patches with finer ones in them, mean 0, deviation 1."""
    rng = np.random.default_rng(0)
    total = np.zeros((TILE_SIDE, TILE_SIDE), np.float32)
    for cells in _OCTAVES:
        at = np.arange(TILE_SIDE, dtype=np.float32) * np.float32(cells / TILE_SIDE)
        low = at.astype(int)
        part = at - low
        part = (part * part * (3 - 2 * part))[:, None]
        grid = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
        rows = grid[low] * (1 - part) + grid[(low + 1) % cells] * part
        total += (rows[:, low] * (1 - part.T) + rows[:, (low + 1) % cells] * part.T) * np.float32(cells**-0.7)
    total -= total.mean()
    total = (total / total.std()).ravel()
    total.flags.writeable = False
    return total


def noise(u: np.ndarray, v: np.ndarray, texels: float) -> np.ndarray:
    """(R,) float32 noise at places u, v of a plane with so many texels a unit; it repeats every TILE_SIDE texels."""
    # floor by way of a large even number: a cast of negative ones would round towards 0
    column = (u * np.float32(texels) + np.float32(2**20)).astype(np.int32) & (TILE_SIDE - 1)
    row = (v * np.float32(texels) + np.float32(2**20)).astype(np.int32) & (TILE_SIDE - 1)
    row *= TILE_SIDE
    row += column
    return noise_tile().take(row)


def hashed(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """(R,) float32 in [0, 1) of four uint32 each (multiply and shift, as in the finalizer of MurmurHash3)."""
    h = a * np.uint32(0x9E3779B1) ^ b * np.uint32(0x85EBCA77) ^ c * np.uint32(0xC2B2AE3D) ^ d * np.uint32(0x27D4EB2F)
    h ^= h >> np.uint32(15)
    h *= np.uint32(0x2C1B3C6D)
    h ^= h >> np.uint32(12)
    h *= np.uint32(0x297A2D39)
    h ^= h >> np.uint32(15)
    return (h >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)


class Finish(IntEnum):
    """What kind of surface a shape has to the eye."""

    PLAIN = 0
    ROAD = 1  # asphalt, concrete, paving
    GRASS = 2
    PAINT = 3  # markings on a road
    LEAVES = 4
    FACADE = 5  # a house's wall: has windows
    GLASS = 6  # of vehicles
    SHEET = 7  # flat parts of objects: shine a little


def finishes(matter: Matter) -> np.ndarray:
    """(P,) int8 `Finish` of each shape, told by what it is: kind, owner, size and colour."""
    s, is_scenery = matter.shapes, matter.owner == SCENERY
    red, green, blue = matter.color.astype(np.int16).T
    finish = np.full(len(matter), Finish.PLAIN, np.int8)
    is_ground = np.isin(s.kind, (Kind.HEIGHT_FIELD, Kind.PLANE))
    finish[is_ground] = Finish.ROAD
    finish[is_ground & (green > red) & (green > blue)] = Finish.GRASS
    finish[is_ground & (np.minimum(np.minimum(red, green), blue) > 190)] = Finish.PAINT
    finish[np.isin(s.kind, (Kind.ELLIPSOID_VOLUME, Kind.BOX_VOLUME))] = Finish.LEAVES
    is_box = s.kind == Kind.BOX
    is_house = (s.size[:, 2] > 3.2) & (s.size[:, :2].min(axis=1, initial=np.inf) > 2.5) & (s.pass_chance == 0)
    finish[is_box & is_scenery & is_house] = Finish.FACADE
    finish[is_box & ~is_scenery] = Finish.SHEET
    finish[is_box & ~is_scenery & (s.pass_chance > 0.3)] = Finish.GLASS
    return finish


@dataclass(frozen=True, eq=False)
class Spots:
    """R places on surfaces.

    primitive  (R,) int32    whose
    own        (R, 3) float32  place in the shape's axes, about its centre; of ground in those of the street
    normal     (R, 3) float32  in the shape's axes
    distance   (R,) float32  metres from the camera
    """

    primitive: np.ndarray
    own: np.ndarray
    normal: np.ndarray
    distance: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> "Spots":
        return Spots(*(values.take(rows, axis=0) for values in (self.primitive, self.own, self.normal, self.distance)))

    def plane(self) -> tuple[np.ndarray, np.ndarray]:
        """u, v (R,) metres in the plane of the surface: from above for what faces up, else along the wall and upwards."""
        x, y, z = self.own.T
        ahead, aside, up = np.abs(self.normal.T)
        is_up = (up > ahead) & (up > aside)
        along_y = ahead > aside
        return np.where(is_up | ~along_y, x, y), np.where(is_up, y, z)

    def chance(self, number: int) -> np.ndarray:
        """(R,) float32 in [0, 1), the same for all places of a shape."""
        zero = np.zeros(len(self.primitive), np.uint32)
        return hashed(self.primitive.astype(np.uint32), zero + np.uint32(number), zero, zero)

    def fading(self, length: float) -> np.ndarray:
        """(R,) float32: 1 nearby, less where a pixel holds more than `length` metres of pattern, which would flicker."""
        return np.minimum(np.float32(length * _FOCAL / 2) / self.distance, 1.0)


def draw_patterns(matter: Matter, spots: Spots, finish: np.ndarray, color: np.ndarray, seed: int) -> np.ndarray:
    """Give each spot its pattern: `color` (R, 3), light that the surface gives back, in place. Returns gloss (R,), the share of light
    that is mirrored straight on.

    finish  (R,) of the spots' shapes, see `finishes`
    """
    color *= (1 + np.where(finish == Finish.LEAVES, np.float32(0.3), np.float32(0.12)) * (_grain(spots, seed) - np.float32(0.5)))[:, None]
    gloss = np.array([0, 0, 0, 0, 0, 0, 0.06, 0.03], np.float32)[finish]
    for kind, draw in ((Finish.ROAD, _road), (Finish.GRASS, _grass), (Finish.PAINT, _paint), (Finish.LEAVES, _leaves)):
        rows = np.flatnonzero(finish == kind)
        if len(rows):
            color[rows] *= draw(matter, spots[rows])
    rows = np.flatnonzero((finish == Finish.FACADE) & (np.abs(spots.normal[:, 2]) < 0.3))
    if len(rows):
        color[rows], gloss[rows] = _facade(matter, spots[rows], color[rows])
    rows = np.flatnonzero(finish == Finish.PLAIN)
    color[rows] *= (1 + np.float32(0.07) * noise(*spots[rows].plane(), 8))[:, None]
    return gloss


def _grain(spots: Spots, seed: int) -> np.ndarray:
    """(R,) in [0, 1): grains of 2, 4, 8, ... cm: three pixels of a camera, or more, so that they do not flicker far away."""
    size = np.exp2(np.ceil(np.log2(np.maximum(spots.distance * np.float32(3 / _FOCAL), 0.02)))).astype(np.float32)
    cell = np.floor(spots.own / size[:, None]).astype(np.int64).astype(np.uint32)
    return hashed(cell[:, 0], cell[:, 1], cell[:, 2], spots.primitive.astype(np.uint32) * np.uint32(7919) + np.uint32(seed & 0xFFFFFFFF))


def _road(matter: Matter, spots: Spots) -> np.ndarray:
    """Soft patches of metres and rough ones of decimetres; joints between the slabs of what is bright."""
    x, y = spots.own[:, 0], spots.own[:, 1]
    worn = 1 + np.float32(0.09) * noise(x, y, 5) + np.float32(0.07) * noise(x, y, 41) * spots.fading(0.2)
    is_paving = matter.color.mean(axis=1).take(spots.primitive) > 120
    near_joint = np.minimum(*(np.abs(w / np.float32(1.5) - np.rint(w / np.float32(1.5))) for w in (x, y))) < 0.012
    worn *= 1 - np.float32(0.22) * (is_paving & near_joint) * spots.fading(0.05)
    return worn[:, None] * np.where(is_paving[:, None], np.float32(1), _BLEACHED)


def _grass(_matter: Matter, spots: Spots) -> np.ndarray:
    """Dry patches, and blades."""
    x, y = spots.own[:, 0], spots.own[:, 1]
    dry = np.clip(np.float32(0.5) + np.float32(0.45) * noise(x, y, 9), 0, 1)[:, None]
    blades = 1 + np.float32(0.28) * noise(x, y, 90) * spots.fading(0.15)
    return blades[:, None] * (np.array([0.8, 0.95, 0.8], np.float32) + dry * np.array([0.75, 0.3, 0.25], np.float32))


def _paint(_matter: Matter, spots: Spots) -> np.ndarray:
    """Worn through here and there."""
    x, y = spots.own[:, 0], spots.own[:, 1]
    worn = np.clip(noise(x, y, 23) - np.float32(0.8), 0, 1) * spots.fading(0.3)
    return (1 - np.float32(0.5) * worn)[:, None]


def _leaves(matter: Matter, spots: Spots) -> np.ndarray:
    """Clumps of leaves, bright and dark; darker towards the bottom; each plant with its own green."""
    x, y, z = spots.own.T
    u, v = x + np.float32(0.8) * z, y - np.float32(0.7) * z
    clumps = np.float32(0.34) * noise(u, v, 33) * spots.fading(0.5) + np.float32(0.22) * noise(v, u, 120) * spots.fading(0.15)
    height = np.clip(z / matter.shapes.size[:, 2].take(spots.primitive) + np.float32(0.5), 0, 1)
    light = np.maximum(1 + clumps, np.float32(0.25)) * (np.float32(0.62) + np.float32(0.6) * height)
    tone = (spots.chance(1) - np.float32(0.5))[:, None] * np.array([0.45, 0.25, 0.15], np.float32)
    return light[:, None] * (_OLIVE + tone)


def _facade(matter: Matter, spots: Spots, color: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colour and gloss of walls with rows of windows: each house with its own paint, storeys, bays and sizes of windows."""
    u, _ = spots.plane()
    below_top = matter.shapes.size[:, 2].take(spots.primitive) / 2 - spots.own[:, 2]
    first, second, third = (spots.chance(i) for i in (2, 3, 4))
    storey, bay = np.float32(2.9) + np.float32(0.8) * first, np.float32(1.5) + np.float32(2.2) * second
    is_glazed = third > 0.72  # offices: bands of glass
    wide, high = np.where(is_glazed, 0.94, 0.4 + 0.3 * second), np.where(is_glazed, 0.66, 0.42 + 0.14 * first)
    column, row = np.floor(u / bay), np.floor((below_top - np.float32(0.6)) / storey)
    across, down = np.abs(u / bay - column - np.float32(0.5)), np.abs((below_top - np.float32(0.6)) / storey - row - np.float32(0.5))
    out = np.maximum((across - wide / 2) * bay, (down - high / 2) * storey)  # metres out of the pane
    is_pane, is_frame = (out < -0.06) & (row >= 0), (out < 0.03) & (row >= 0)
    code = spots.primitive.astype(np.uint32)
    kept = hashed(code, column.astype(np.int64).astype(np.uint32), row.astype(np.int64).astype(np.uint32), code + np.uint32(1))
    tint = 1 + (first - np.float32(0.5))[:, None] * np.array([0.5, 0.3, 0.1], np.float32)
    wall = color * tint * (np.float32(0.75) + np.float32(0.9) * second + np.float32(0.05) * noise(u, below_top, 12))[:, None]
    wall *= np.where(is_frame & ~is_pane, np.float32(0.72), np.float32(1))[:, None]
    pane = np.array([0.022, 0.027, 0.032], np.float32) * (np.float32(0.6) + kept)[:, None]
    has_curtain = (kept > 0.74) & ~is_glazed
    pane[has_curtain] = np.array([0.34, 0.32, 0.28], np.float32)
    return np.where(is_pane[:, None], pane, wall), np.where(
        is_pane, np.where(has_curtain, np.float32(0.03), np.float32(0.07)), np.float32(0)
    )


def cloudiness(directions: np.ndarray) -> np.ndarray:
    """(R,) float32 share of cloud, 0..1, in the sky along unit directions (R, 3); none near the horizon and below it."""
    x, y, up = directions.T
    far = 1 / (np.maximum(up, np.float32(0)) + np.float32(0.18))
    thick = noise(x * far, y * far, 210) - np.float32(0.35)
    return np.clip(thick * np.float32(1.4), 0, 1) * np.clip(up * np.float32(9) - np.float32(0.35), 0, 1)
