"""Simulated clouds beside real ones: `python tools/compare_sim.py FOLDER [--real NUSCENES_ROOT] [--kitti KITTI_ROOT]`.

Simulates key frames of a few scenes with the lidars of nuScenes and, with --kitti, of KITTI, counts what they show, and prints each figure
beside that of the real clouds, or beside published counts of returns per box; FOLDER/compare.png and compare_kitti.png show clouds from
above and the histograms. Real KITTI data has labels only where the camera looks; of it the objects seen whole are compared.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image, ImageDraw

from cuda_ops import Primitives, cast_rays, points_in_boxes
from perception.cli.main import report_errors
from perception.core import Boxes3D, Frame, Transform
from perception.drives import Kitti, NuScenes
from perception.drives.simulated import SimulatedScene, simulate_scene
from perception.drives.simulated.furniture import Standing
from perception.drives.simulated.lidar import beams
from perception.drives.simulated.recording import scan_at
from perception.drives.simulated.rigs import KITTI_RIG, NUSCENES_RIG, Rig

RANGES = np.arange(0, 105, 5)
HEIGHTS = np.array([-9, -0.2, 0.2, 0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 7, 10, 99])
BANDS = [(0, 10), (10, 20), (20, 30), (30, 50), (50, 105)]
INTENSITY_BANDS = [(3, 10), (10, 20), (20, 30), (30, 40), (40, 50), (50, 60)]
KITTI_BANDS = [(3, 10), (10, 20), (20, 30), (30, 50), (50, 80)]
GAP_BANDS = [(3, 10), (10, 20), (20, 40), (40, 105)]
BOX_BANDS = [(0, 10), (10, 20), (20, 30), (30, 40), (40, 50)]
OWN_RADIUS = 2.6  # metres within which a return is the carrying vehicle's
WHOLE = 0.9  # share of an object that is to be visible where objects in the open are compared
# Of one sweep in 81 real key frames of nuScenes, by ten metres: returns per annotated box, median and 90 %, and the same as a share of the
# rays that would hit the solid box (the 90 % is roughly an object in the open).
REAL_RETURNS = {
    "car": ([466, 49, 9, 3, 1], [1024, 164, 30, 11, 5], [0.52, 0.25, 0.11, 0.07, 0.04], [0.64, 0.52, 0.37, 0.30, 0.26]),
    "pedestrian": ([45, 11, 4, 3, 2], [70, 24, 8, 5, 3], [0.25, 0.21, 0.25, 0.30, 0.33], [0.42, 0.36, 0.43, 0.50, 0.67]),
    "truck": ([956, 322, 56, 34, 15], [1244, 892, 121, 45, 24], [0.59, 0.56, 0.43, 0.36, 0.30], [0.64, 0.65, 0.59, 0.58, 0.42]),
}
KITTI_TYPES = {"Van": "van", "Car": "car", "Cyclist": "cyclist", "Pedestrian": "pedestrian"}


@dataclass(frozen=True, eq=False)
class Cloud:
    """One key sweep in the ego vehicle's axes about the lidar: points (N, 3) without its own returns, their ring, intensity, height above
    the road; where rays without return are stored, `missing` (rings,) their share and `ranges` (columns, rings), inf for them."""

    points: np.ndarray
    ring: np.ndarray
    intensity: np.ndarray
    height: np.ndarray
    missing: np.ndarray | None
    ranges: np.ndarray | None
    missing_intensity: np.ndarray


@dataclass(frozen=True, eq=False)
class Box:
    """One annotated object: its class, metres to the lidar, share that is visible, its returns, the rays that would hit the solid box, and
    both by tenth of its height from below (rays where they enter)."""

    class_name: str
    distance: float
    visible: float
    returns: np.ndarray
    rays: np.ndarray


def cloud_of(points: np.ndarray, ring: np.ndarray, intensity: np.ndarray, lidar_to_ego: Transform, *, keeps_missing: bool) -> Cloud:
    distance = np.linalg.norm(points, axis=1)
    is_missing = (distance < 0.6) & (np.abs(points[:, 0]) < 0.02) if keeps_missing else np.zeros(len(points), bool)
    is_seen = ~is_missing & (distance > OWN_RADIUS)
    seen = lidar_to_ego.rotate(points[is_seen].astype(np.float64))
    missing, ranges, rings = None, None, ring.max() + 1
    if keeps_missing:
        missing = np.array([is_missing[ring == k].mean() for k in range(rings)])
        ranges = np.where(is_missing, np.inf, distance).reshape(-1, rings)
    return Cloud(seen, ring[is_seen], intensity[is_seen], height_above_road(seen), missing, ranges, intensity[is_missing])


def read(frame: Frame) -> Cloud:
    """A key frame of nuScenes."""
    points = frame.cloud.points
    return cloud_of(points[:, :3], np.asarray(frame.cloud.ring), points[:, 3], frame.lidar_to_ego, keeps_missing=True)


def read_kitti(frame: Frame) -> Cloud:
    """A frame of KITTI, whose file goes ring by ring, counter-clockwise from straight ahead."""
    points = frame.cloud.points
    azimuth = np.arctan2(points[:, 1], points[:, 0]) % (2 * np.pi)
    ring = np.concatenate([[0], np.cumsum(np.diff(azimuth) < -np.pi)])
    return cloud_of(points[:, :3], ring, points[:, 3], frame.lidar_to_ego, keeps_missing=False)


def height_above_road(points: np.ndarray) -> np.ndarray:
    """Above the plane through the road around the vehicle: fitted, what lies off it left out, fitted again."""
    rows = np.column_stack([points[:, :2], np.ones(len(points))])
    near = np.hypot(points[:, 0], points[:, 1]) < 20
    plane, off = np.array([0, 0, -1.8]), 0.4
    for _ in range(6):
        on_road = near & (np.abs(points[:, 2] - rows @ plane) < off)
        plane, off = np.linalg.lstsq(rows[on_road], points[on_road, 2], rcond=None)[0], max(0.6 * off, 0.1)
    return points[:, 2] - rows @ plane


def simulated(rig: Rig, scenes: int, frames: int, seed: int) -> tuple[list[Cloud], list[Box]]:
    """Clouds and boxes of key frames 2.5 s apart."""
    clouds, boxes = [], []
    for number in range(scenes):
        scene = simulate_scene(f"compare-{number}", np.random.default_rng([seed, number]), num_frames=5 * frames - 4)
        for frame in range(0, len(scene), 5):
            turn, ego_to_global = scan_at(scene, int(scene.timestamps_us[frame]), rig)
            keeps = rig.model.keeps_missing
            clouds.append(cloud_of(turn.points[:, :3], turn.ring, turn.points[:, 3], rig.lidar_to_ego, keeps_missing=keeps))
            seen, names, visible = _objects(scene, frame, rig, ego_to_global @ rig.lidar_to_ego)
            boxes += count_boxes(rig, turn.points[turn.is_return, :3], seen, names, visible)
    return clouds, boxes


def _objects(scene: SimulatedScene, frame: int, rig: Rig, lidar_to_global: Transform) -> tuple[Boxes3D, list[str], np.ndarray]:
    """Boxes in the lidar frame, their classes and visible shares; for KITTI's lidar with its types."""
    here = [i for i, thing in enumerate(scene.objects) if thing.present[frame]]
    names = [scene.objects[i].class_name for i in here]
    if rig is KITTI_RIG:
        source = {owner: scene.world.sources[k] for k, owner in enumerate(scene.world.owners.tolist()) if owner >= 0}
        for k, i in enumerate(here):
            if names[k] == "car" and scene.objects[i].size[2] > 1.88:
                names[k] = "van"
            if names[k] == "bicycle" and not isinstance(source[i], Standing):
                names[k] = "cyclist"
    return (
        scene.truth(frame).boxes.transformed(lidar_to_global.inverse()),
        names,
        np.array([scene.objects[i].visibility[frame] for i in here]),
    )


def count_boxes(rig: Rig, points: np.ndarray, boxes: Boxes3D, names: list[str], visible: np.ndarray) -> list[Box]:
    """The returns of a turn in each box, all in the lidar frame, and the rays into it while the vehicle stands."""
    direction, lift = beams(rig.model)
    ray = direction.reshape(-1, 3).astype(np.float32)
    origin = np.zeros_like(ray)
    origin[:, 2] = np.broadcast_to(lift, direction.shape[:2]).ravel()
    rows = np.column_stack([boxes.center, boxes.size, boxes.yaw]).astype(np.float32)
    inside = points_in_boxes(np.ascontiguousarray(points, np.float32), rows).index
    found = []
    for i, row in enumerate(rows):
        distance = cast_rays(origin, ray, Primitives.boxes(row[None].astype(np.float64))).distance
        is_hit = np.isfinite(distance)
        entry = origin[is_hit, 2] + ray[is_hit, 2] * distance[is_hit]
        tenths = [
            np.bincount(np.clip((z - row[2] + row[5] / 2) / row[5] * 10, 0, 9).astype(int), minlength=10)
            for z in (points[inside == i, 2], entry)
        ]
        found.append(Box(names[i], float(np.hypot(*boxes.center[i, :2])), float(visible[i]), tenths[0], tenths[1]))
    return found


def kitti_boxes(frame: Frame, number: int, labels: list[list[str]]) -> list[Box]:
    """The labelled objects of a frame with KITTI's types; `labels` are the fields of the label file's lines."""
    truth = frame.truth
    assert truth is not None
    types = {f[1]: (f[2], f[4]) for f in labels if int(f[0]) == number}
    kinds = [types[str(name).rpartition("-")[2]] for name in truth.instance if truth.instance is not None]  # type: ignore[union-attr]
    names, visible = (
        [KITTI_TYPES.get(kind, kind) for kind, _ in kinds],
        np.array([1.0 if occluded == "0" else 0.3 for _, occluded in kinds]),
    )
    boxes = truth.boxes.transformed(frame.lidar_to_global.inverse())
    return count_boxes(KITTI_RIG, frame.cloud.points[:, :3], boxes, names, visible)


def figures(clouds: list[Cloud], *, bands: list[tuple[int, int]] = INTENSITY_BANDS) -> dict[str, tuple[list[str], np.ndarray]]:
    """Name -> names of its columns and values, means over the clouds."""
    tables: dict[str, list[np.ndarray]] = {}
    rings = max(int(cloud.ring.max()) for cloud in clouds) + 1
    for cloud in clouds:
        distance, is_ground = np.linalg.norm(cloud.points, axis=1), np.abs(cloud.height) < 0.2
        inside = [(distance >= a) & (distance < b) for a, b in BANDS]
        by_range = [cloud.intensity[(distance >= a) & (distance < b)] for a, b in bands]
        values = {
            "returns by 5 m": np.histogram(distance, RANGES)[0].astype(float),
            "returns by ring": np.bincount(cloud.ring, minlength=rings).astype(float),
            "returns in all": np.array([float(len(distance))]),
            "height above the road [%]": np.histogram(cloud.height, HEIGHTS)[0] / len(distance) * 100,
            "ground [%], all and by range": np.array([is_ground.mean(), *[is_ground[rows].mean() for rows in inside]]) * 100,
            "above 3 m [%] by range": np.array([(cloud.height[rows] > 3).mean() for rows in inside]) * 100,
            "intensity, lowest 1 % by range": np.array([np.quantile(v, 0.01) for v in by_range]),
            "intensity, lowest 5 % by range": np.array([np.quantile(v, 0.05) for v in by_range]),
            "intensity, median by range": np.array([np.median(v) for v in by_range]),
            "intensity 0 [%] by range": np.array([(v == 0).mean() for v in by_range]) * 100,
        }
        if cloud.missing is not None and cloud.ranges is not None:
            values |= {
                "missing by ring [%]": cloud.missing * 100,
                "missing in all [%]": np.array([cloud.missing.mean() * 100]),
                "intensity of the missing, 1/5/25/50/75/95/99 %": np.quantile(
                    cloud.missing_intensity, [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99]
                ),
                "single gaps in a surface, then at a jump of 1 m [%], by range": gaps(cloud.ranges) * 100,
            }
        for name, value in values.items():
            tables.setdefault(name, []).append(value)
    names = {
        "returns by 5 m": [str(r) for r in RANGES[:-1]],
        "height above the road [%]": [f"{h:g}" for h in HEIGHTS[:-1]],
        "ground [%], all and by range": ["all", *[f"{a}-{b}" for a, b in BANDS]],
        "above 3 m [%] by range": [f"{a}-{b}" for a, b in BANDS],
        "returns in all": [""],
        "missing in all [%]": [""],
        "intensity of the missing, 1/5/25/50/75/95/99 %": ["1 %", "5 %", "25 %", "50 %", "75 %", "95 %", "99 %"],
        "single gaps in a surface, then at a jump of 1 m [%], by range": [f"{a}-{b}" for a, b in GAP_BANDS] * 2,
    }
    titles = [f"{a}-{b}" for a, b in bands]
    names |= {name: titles if name.startswith("intensity") else [str(k) for k in range(rings)] for name in tables if name not in names}
    with np.errstate(all="ignore"):
        return {name: (names[name], np.nanmean(rows, axis=0)) for name, rows in tables.items()}


def gaps(ranges: np.ndarray) -> np.ndarray:
    """Share of missing returns between two neighbours of a ring that are there: within 0.3 m of each other, by GAP_BANDS; then more than
    1 m apart, by the nearer one's. Own returns left out."""
    before, after = np.roll(ranges, 1, axis=0), np.roll(ranges, -1, axis=0)
    is_between = np.isfinite(before) & np.isfinite(after)
    with np.errstate(invalid="ignore"):
        jump, near = np.abs(before - after), np.minimum(before, after)
    shares = []
    for is_kind in (jump < 0.3, jump > 1):
        cells = [is_between & is_kind & (near >= a) & (near < b) for a, b in GAP_BANDS]
        shares += [np.isinf(ranges[cell]).mean() if cell.any() else np.nan for cell in cells]
    return np.array(shares)


def returns_per_box(boxes: Iterable[Box]) -> dict[str, tuple[list[str], list[np.ndarray]]]:
    """Class -> names of the distances; median and 90 % of the returns within its boxes, and of their share of the rays."""
    found = {}
    for name in REAL_RETURNS:
        mine = [box for box in boxes if box.class_name == name and box.rays.sum() > 0]
        groups = [[box for box in mine if a <= box.distance < b] for a, b in BOX_BANDS]
        counts = [[float(box.returns.sum()) for box in group] for group in groups]
        ratios = [[box.returns.sum() / box.rays.sum() for box in group] for group in groups]
        cells = [[np.quantile(g, q) if g else np.nan for g in kind] for kind in (counts, ratios) for q in (0.5, 0.9)]
        found[name] = ([f"{a}-{b} m ({len(g)})" for (a, b), g in zip(BOX_BANDS, groups, strict=True)], [np.array(row) for row in cells])
    return found


def in_the_open(boxes: Iterable[Box], name: str, low: float, high: float) -> tuple[int, float, np.ndarray]:
    """Of the objects seen whole at a distance: how many, their returns as a share of the rays, and that by tenth of the height."""
    mine = [box for box in boxes if box.class_name == name and low <= box.distance < high and box.visible >= WHOLE and box.rays.sum() > 0]
    returns, rays = (np.sum([getattr(box, what) for box in mine], axis=0) if mine else np.zeros(10) for what in ("returns", "rays"))
    with np.errstate(invalid="ignore", divide="ignore"):
        return len(mine), float(np.divide(returns.sum(), rays.sum())), returns / rays


def _short(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 1.5 else f"{value:.1f}"


def print_beside(title: str, names: list[str], ours: np.ndarray, real: np.ndarray | None) -> None:
    print(f"\n{title}\n\n| | " + " | ".join(names) + " |\n|" + "---|" * (len(names) + 1))
    print("| simulated | " + " | ".join(_short(v) for v in ours) + " |")
    if real is not None:
        print("| real | " + " | ".join(_short(v) for v in real) + " |")
        with np.errstate(divide="ignore", invalid="ignore"):
            print("| ratio | " + " | ".join(f"{v:.2f}" for v in ours / real) + " |")


def from_above(cloud: Cloud, side: int = 800, radius: float = 50.0) -> Image.Image:
    """The cloud, x forward up, brighter the higher; the ground is blue."""
    column = ((radius - cloud.points[:, 1]) * side / (2 * radius)).astype(int)
    row = ((radius - cloud.points[:, 0]) * side / (2 * radius)).astype(int)
    is_in = (column >= 0) & (column < side) & (row >= 0) & (row < side)
    share = np.clip((cloud.height + 0.2) / 5, 0, 1)[:, None]
    color = np.where(np.abs(cloud.height)[:, None] < 0.2, [70, 110, 230], [255, 255, 255] * share + [60, 200, 90] * (1 - share))
    picture = np.zeros((side, side, 3), np.uint8)
    picture[row[is_in], column[is_in]] = color[is_in]
    return Image.fromarray(picture)


def bars(title: str, names: list[str], ours: np.ndarray, real: np.ndarray, size: tuple[int, int] = (800, 260)) -> Image.Image:
    """Two bars a column: blue ours, orange the real one's."""
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    draw.text((10, 6), f"{title}   (blue: simulated, orange: real)", fill="black")
    top, width = max(float(np.nanmax([ours, real])), 1e-9), (size[0] - 20) / len(names)
    for i, (name, pair) in enumerate(zip(names, zip(ours, real, strict=True), strict=True)):
        for k, (value, color) in enumerate(zip(pair, ("#2d6cdf", "#e8862e"), strict=True)):
            left, height = 10 + (i + 0.1 + 0.4 * k) * width, np.nan_to_num(value) / top * (size[1] - 60)
            draw.rectangle([left, size[1] - 25 - height, left + 0.4 * width, size[1] - 25], fill=color)
        draw.text((10 + i * width, size[1] - 20), name[:5], fill="black")
    return picture


def sheet_of(
    path: Path, ours: Cloud, real: Cloud, tables: dict[str, tuple[list[str], np.ndarray]], theirs: dict[str, tuple[list[str], np.ndarray]]
) -> None:
    """The picture of a comparison."""
    pictures = [bars(name, *tables[name], theirs[name][1]) for name in tables if name in theirs and len(tables[name][0]) > 1]
    sheet = Image.new("RGB", (1600, 800 + 260 * -(-len(pictures) // 2)), "white")
    sheet.paste(from_above(ours), (0, 0))
    sheet.paste(from_above(real), (800, 0))
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (800 * (i % 2), 800 + 260 * (i // 2)))
    sheet.save(path)
    print(f"\n{path}")


def compare_nuscenes(folder: Path, real: Path | None, scenes: int, frames: int, seed: int) -> None:
    clouds, boxes = simulated(NUSCENES_RIG, scenes, frames, seed)
    theirs = [] if real is None else [read(frame) for drive in NuScenes(real, cameras=False).drives() for frame in drive]
    print(f"\n# {NUSCENES_RIG.name}: {len(clouds)} simulated key frames, {len(theirs)} real ones")
    ours, other = figures(clouds), figures(theirs) if theirs else {}
    for name, (columns, values) in ours.items():
        print_beside(name, columns, values, other[name][1] if other else None)
    for name, (columns, rows) in returns_per_box(boxes).items():
        titles = ("returns, median", "returns, 90 %", "returns / rays, median", "returns / rays, 90 %")
        for title, row, published in zip(titles, rows, REAL_RETURNS[name], strict=True):
            print_beside(f"{name}: {title} (real: 81 key frames of nuScenes)", columns, row, np.array(published, float))
    if theirs:
        sheet_of(folder / "compare.png", clouds[len(clouds) // 2], theirs[0], ours, other)


def compare_kitti(folder: Path, root: Path, scenes: int, frames: int, seed: int) -> None:
    drive = Kitti(root, cameras=False).drives("training")[0]
    labels = [line.split() for line in (root / "training/label_02" / f"{drive.name.rpartition('-')[2]}.txt").read_text().splitlines()]
    numbers = range(0, len(drive), max(len(drive) // 20, 1))
    theirs = [read_kitti(drive[number]) for number in numbers[::2]]
    their_boxes = [box for number in numbers for box in kitti_boxes(drive[number], number, labels)]
    clouds, boxes = simulated(KITTI_RIG, scenes, frames, seed)
    print(f"\n# {KITTI_RIG.name}: {len(clouds)} simulated key frames, {len(theirs)} real ones")
    ours, other = figures(clouds, bands=KITTI_BANDS), figures(theirs, bands=KITTI_BANDS)
    for name, (columns, values) in ours.items():
        print_beside(name, columns, values, other[name][1])
    for name, bands in (
        ("van", [(0, 10), (10, 20), (20, 30), (30, 50)]),
        ("car", [(5, 10), (10, 20), (20, 30), (30, 50)]),
        ("cyclist", [(0, 10), (10, 20), (20, 30)]),
    ):
        cells = [[in_the_open(kind, name, *band) for band in bands] for kind in (boxes, their_boxes)]
        columns = [f"{a}-{b} m ({mine[0]}, {real[0]})" for (a, b), mine, real in zip(bands, *cells, strict=True)]
        print_beside(f"{name} in the open: returns / rays", columns, *(np.array([cell[1] for cell in row]) for row in cells))
        profiles = [in_the_open(kind, name, 0, 30)[2] for kind in (boxes, their_boxes)]
        print_beside(
            f"{name} in the open within 30 m: returns / rays by tenth of the height, from below", [str(k) for k in range(10)], *profiles
        )
    sheet_of(folder / "compare_kitti.png", clouds[len(clouds) // 2], theirs[len(theirs) // 2], ours, other)


def compare(
    folder: Annotated[Path, typer.Argument(help="Where the pictures go.", show_default=False)],
    real: Annotated[Path | None, typer.Option(help="Root of a nuScenes version with lidar files.", show_default=False)] = None,
    kitti: Annotated[Path | None, typer.Option(help="Root of a sequence in KITTI's tracking layout.", show_default=False)] = None,
    scenes: Annotated[int, typer.Option(min=1, help="Scenes to simulate.")] = 20,
    frames: Annotated[int, typer.Option(min=1, help="Key frames of each, 2.5 s apart.")] = 2,
    seed: Annotated[int, typer.Option()] = 11,
) -> None:
    """Print the statistics of simulated clouds, beside real ones where they are given."""
    folder.mkdir(parents=True, exist_ok=True)
    if real is not None or kitti is None:
        compare_nuscenes(folder, real, scenes, frames, seed)
    if kitti is not None:
        compare_kitti(folder, kitti, scenes, frames, seed)


if __name__ == "__main__":
    sys.exit(report_errors(lambda: typer.run(compare)))
