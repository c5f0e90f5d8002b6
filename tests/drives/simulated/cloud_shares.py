"""Statistics of one sweep of an HDL-32E over scenery without objects, to lay beside those of a real sweep.

`python -m tests.drives.simulated.cloud_shares [FRAME.pcd.bin]` prints the tables; with a real nuScenes sweep, its own column too.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cuda_ops import cast_rays
from perception.core import Transform
from perception.drives.simulated.lidars import LIDARS
from perception.drives.simulated.matter import Matter
from perception.drives.simulated.plans import draw_plan
from perception.drives.simulated.roads import CrossSection
from perception.drives.simulated.scenery import build_scenery
from perception.drives.simulated.terrain import Terrain

MODEL = LIDARS["hdl32e_nuscenes"]
NOSE_DOWN = np.radians(1.4)
# rays of rings 0, 1, ... that end on the carrying vehicle itself, of 1,084; measured on one real sweep
OWN_RETURNS = (746, 673, 625, 564, 513, 417, 336, 162, 39, 34, 24)
HEIGHTS = np.array([-9, -0.2, 0.2, 0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 7, 10, 99])
RANGES = np.arange(0, 105, 5)


@dataclass(frozen=True, eq=False)
class Sweep:
    """R rays, column by column, rings inside (as the file). Arrays (columns, rings).

    distance   metres, inf where nothing came back
    height     metres above the plane of the road around
    is_ground  bool: within 0.2 m of that plane
    intensity  0..255
    is_own     bool: on the carrying vehicle, not counted
    """

    distance: np.ndarray
    height: np.ndarray
    is_ground: np.ndarray
    intensity: np.ndarray
    is_own: np.ndarray
    points: np.ndarray

    @property
    def is_return(self) -> np.ndarray:
        return np.isfinite(self.distance) & ~self.is_own


def rays_of(lidar_to_street: Transform) -> tuple[np.ndarray, np.ndarray]:
    """Origins and directions (columns * rings, 3) of one turn at one place; the sensor's x is forward here."""
    azimuth = np.radians(MODEL.azimuths_deg()[:, None] + MODEL.azimuth_offsets_deg)
    elevation = np.broadcast_to(np.radians(MODEL.elevations_deg), azimuth.shape)
    flat = np.cos(elevation)
    rays = np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)], axis=-1).reshape(-1, 3)
    directions = lidar_to_street.rotate(rays)
    return np.tile(lidar_to_street.translation, (len(rays), 1)).astype(np.float32), directions.astype(np.float32)


def sensor_pose(terrain: Terrain, x: float, y: float, yaw: float) -> Transform:
    """Of the lidar on a vehicle with its rear axle at (x, y): 0.95 m ahead, 1.84 m up, nose down."""
    c, s = np.cos(NOSE_DOWN), np.sin(NOSE_DOWN)
    return terrain.pose(x, y, yaw) @ Transform(np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]), np.array([0.95, 0, 1.84]))


def sweep_over(terrain: Terrain, matter: Matter, num_ground: int, pose: Transform, rng: np.random.Generator) -> Sweep:
    """Cast one turn; returns below the receiver's floor and single gaps are lost. The first `num_ground` shapes are the ground."""
    origins, directions = rays_of(pose)
    hits = cast_rays(origins, directions, matter.shapes, seed=int(rng.integers(2**31)), min_range=0.5, max_range=MODEL.range_limits[1])
    is_hit = hits.primitive >= 0
    distance = hits.distance.astype(np.float64)
    cosine = np.abs((hits.normal * directions).sum(axis=1))
    cosine[~hits.normal.any(axis=1)] = 0.6  # leaves face anywhere
    reading = matter.reflectivity[np.maximum(hits.primitive, 0)] * np.maximum(cosine, 0.2) * rng.lognormal(0, 0.4, len(cosine))
    near = np.where(is_hit, distance, 0)
    floor, chance = np.interp(near, *zip(*MODEL.floor, strict=True)), np.interp(near, *zip(*MODEL.gap_chance, strict=True))
    is_hit &= (reading >= floor) & (rng.random(len(reading)) >= chance)
    distance = np.where(is_hit, distance, np.inf)
    points = origins + directions * near[:, None]
    is_ground = is_hit & (hits.primitive < num_ground)
    # as in the real frame: above the plane that fits the road around the vehicle
    on_road = is_ground & (CrossSection.of(terrain.plan, points[:, 0], points[:, 1]).from_kerb < 0) & (near < 25)
    rows = np.column_stack([points[:, :2], np.ones(len(points))])
    plane = np.linalg.lstsq(rows[on_road], points[on_road, 2], rcond=None)[0]
    height = np.where(is_hit, points[:, 2] - rows @ plane, np.nan)
    is_ground = is_hit & (np.abs(height) < 0.2)
    shape = MODEL.columns, MODEL.num_beams
    is_own = np.zeros(shape, bool)
    for ring, count in enumerate(OWN_RETURNS):
        is_own[rng.permutation(MODEL.columns)[:count], ring] = True
    columns = (distance, height, is_ground, np.clip(reading, 0, 255))
    return Sweep(*(a.reshape(shape) for a in columns), is_own=is_own, points=points.reshape(*shape, 3))


def real_sweep(path: Path) -> Sweep:
    """A nuScenes file, x forward; heights above the plane that fits this frame's road."""
    p = np.fromfile(path, np.float32).reshape(MODEL.columns, MODEL.num_beams, 5)
    distance = np.linalg.norm(p[..., :3], axis=-1).astype(np.float64)
    is_missing = distance < 0.48
    height = p[..., 2] - (-1.838 + 0.0268 * p[..., 1])
    points = np.stack([p[..., 1], -p[..., 0], p[..., 2]], axis=-1)
    # own roof and bonnet; missing returns lie at the sensor's place
    is_own = (distance < 2.6) & ~is_missing
    is_missing &= np.abs(p[..., 0]) < 0.01
    return Sweep(np.where(is_missing, np.inf, distance), height, (np.abs(height) < 0.2) & ~is_missing, p[..., 3], is_own, points)


def shares(sweep: Sweep) -> dict[str, np.ndarray]:
    """The tables by name; see `report` for their columns."""
    ok = sweep.is_return
    r, h, g = sweep.distance[ok], sweep.height[ok], sweep.is_ground[ok]
    cuts = [(0, 10), (10, 20), (20, 30), (30, 50), (50, 105)]
    masks = [(r >= a) & (r < b) for a, b in cuts]
    is_missing = ~np.isfinite(sweep.distance) & ~sweep.is_own
    intensity = sweep.intensity[ok]
    bands = [(3, 10), (10, 20), (20, 30), (30, 40), (40, 50), (50, 60)]
    d = np.where(ok, sweep.distance, np.nan)
    both = ok[1:] & ok[:-1] & ~sweep.is_ground[1:] & ~sweep.is_ground[:-1]
    step = np.abs(np.diff(d, axis=0))[both]
    at = d[:-1][both]
    far = [(5, 20), (20, 40), (40, 80)]
    return {
        "range": np.histogram(r, RANGES)[0],
        "height": np.histogram(h, HEIGHTS)[0] / max(len(h), 1) * 100,
        "ground": np.array([g.mean(), *[g[m].mean() for m in masks]]) * 100,
        "above3": np.array([(h[m] > 3).mean() for m in masks[1:]]) * 100,
        "missing": is_missing.mean(axis=0) * 100,
        "step<5cm": np.array([(step[(at >= a) & (at < b)] < 0.05).mean() for a, b in far]) * 100,
        "step>0.5m": np.array([(step[(at >= a) & (at < b)] > 0.5).mean() for a, b in far]) * 100,
        "intensity": _percentiles(intensity, r, bands),
        "ground intensity": _percentiles(intensity[g], r[g], bands),
        "lone ground rings": np.array([sweep.is_ground[:, k].mean() for k in (16, 18, 20, 21, 22, 23)]) * 100,
    }


def _percentiles(values: np.ndarray, r: np.ndarray, bands: list[tuple[int, int]]) -> np.ndarray:
    """5, 50, 95 % in each band of ranges; NaN where there are too few."""
    inside = [values[(r >= a) & (r < b)] for a, b in bands]
    return np.concatenate([np.percentile(v, [5, 50, 95]) if len(v) > 20 else np.full(3, np.nan) for v in inside])


def simulated_shares(seeds: range, places: int) -> dict[str, np.ndarray]:
    """The mean tables of `places` sweeps along the lanes of each seeded scene."""
    tables = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        terrain = Terrain.draw(rng, draw_plan(rng))
        ground, scenery = terrain.matter(), build_scenery(rng, terrain)
        matter = Matter.concatenate(ground, scenery)
        for i in range(places):
            arm = terrain.plan.arms[i % len(terrain.plan.arms)]
            lane = -rng.choice(terrain.plan.section(arm, -1).lanes)
            x, y, yaw = (float(value) for value in terrain.plan.at(arm, rng.uniform(0, 75), lane))
            tables.append(shares(sweep_over(terrain, matter, len(ground), sensor_pose(terrain, x, y, yaw), rng)))
    columns = {name: np.array([t[name] for t in tables]) for name in tables[0]}
    known = {name: np.isfinite(rows) for name, rows in columns.items()}
    with np.errstate(invalid="ignore"):  # NaN where no sweep had enough
        return {name: np.where(known[name], rows, 0).sum(axis=0) / known[name].sum(axis=0) for name, rows in columns.items()}


def report(columns: dict[str, dict[str, np.ndarray]]) -> str:
    lines = []
    for name in next(iter(columns.values())):
        lines.append(name)
        for title, table in columns.items():
            digits = 0 if name in ("range", "intensity", "ground intensity", "missing") else 1
            lines.append(f"  {title:10}" + " ".join(f"{v:6.{digits}f}" for v in table[name]))
    return "\n".join(lines)


if __name__ == "__main__":
    tables = {"simulated": simulated_shares(range(10), 4)}
    for path in sys.argv[1:]:
        tables["real"] = shares(real_sweep(Path(path)))
    print(report(tables))
