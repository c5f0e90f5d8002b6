"""Simulated clouds beside a real one: `python tools/compare_sim.py FOLDER [--real NUSCENES_ROOT]`.

Simulates a few scenes into FOLDER (once), counts what their key sweeps show, and prints each figure beside the real sweep's, or beside the
published counts of returns per box; FOLDER/compare.png shows the two clouds from above and the histograms.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image, ImageDraw

from perception.core import NUSCENES_DETECTION, Frame
from perception.drives import NuScenes
from perception.drives.simulated import simulate_scenes, write_nuscenes

RANGES = np.arange(0, 105, 5)
HEIGHTS = np.array([-9, -0.2, 0.2, 0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 7, 10, 99])
BANDS = [(0, 10), (10, 20), (20, 30), (30, 50), (50, 105)]
INTENSITY_BANDS = [(3, 10), (10, 20), (20, 30), (30, 40), (40, 50), (50, 60)]
BOX_BANDS = [(0, 10), (10, 20), (20, 30), (30, 40), (40, 50)]
OWN_RADIUS = 2.6  # metres within which a return is the carrying vehicle's
# Returns of one sweep per annotated box, median and 90 %, by ten metres: 81 real key frames of nuScenes.
REAL_RETURNS = {
    "car": ([466, 49, 9, 3, 1], [1024, 164, 30, 11, 5]),
    "pedestrian": ([45, 11, 4, 3, 2], [70, 24, 8, 5, 3]),
    "truck": ([956, 322, 56, 34, 15], [1244, 892, 121, 45, 24]),
}


@dataclass(frozen=True, eq=False)
class Cloud:
    """One key sweep in the ego vehicle's axes: points (N, 3) without its own returns, their ring, intensity, height above the road."""

    points: np.ndarray
    ring: np.ndarray
    intensity: np.ndarray
    height: np.ndarray
    missing: np.ndarray  # (rings,) share of rays without a return


def read(frame: Frame) -> Cloud:
    cloud = frame.cloud
    points, ring = cloud.points, np.asarray(cloud.ring)
    distance = np.linalg.norm(points[:, :3], axis=1)
    is_missing = (distance < 0.6) & (np.abs(points[:, 0]) < 0.02)
    missing = np.array([is_missing[ring == k].mean() for k in range(ring.max() + 1)])
    is_seen = ~is_missing & (distance > OWN_RADIUS)
    seen = frame.lidar_to_ego.rotate(points[is_seen, :3].astype(np.float64))
    return Cloud(seen, ring[is_seen], points[is_seen, 3], height_above_road(seen), missing)


def height_above_road(points: np.ndarray) -> np.ndarray:
    """Above the plane through the road around the vehicle: fitted, what lies off it left out, fitted again."""
    rows = np.column_stack([points[:, :2], np.ones(len(points))])
    near = np.hypot(points[:, 0], points[:, 1]) < 20
    plane, off = np.array([0, 0, -1.84]), 0.4
    for _ in range(6):
        on_road = near & (np.abs(points[:, 2] - rows @ plane) < off)
        plane, off = np.linalg.lstsq(rows[on_road], points[on_road, 2], rcond=None)[0], max(0.6 * off, 0.1)
    return points[:, 2] - rows @ plane


def figures(clouds: list[Cloud]) -> dict[str, tuple[list[str], np.ndarray]]:
    """Name -> names of its columns and values, means over the clouds."""
    tables: dict[str, list[np.ndarray]] = {}
    for cloud in clouds:
        distance, is_ground = np.linalg.norm(cloud.points, axis=1), np.abs(cloud.height) < 0.2
        inside = [(distance >= a) & (distance < b) for a, b in BANDS]
        by_range = [(distance >= a) & (distance < b) for a, b in INTENSITY_BANDS]
        values = {
            "returns by 5 m": np.histogram(distance, RANGES)[0].astype(float),
            "returns by ring": np.bincount(cloud.ring, minlength=len(cloud.missing)).astype(float),
            "missing by ring [%]": cloud.missing * 100,
            "missing in all [%]": np.array([cloud.missing.mean() * 100]),
            "height above the road [%]": np.histogram(cloud.height, HEIGHTS)[0] / len(distance) * 100,
            "ground [%], all and by range": np.array([is_ground.mean(), *[is_ground[rows].mean() for rows in inside]]) * 100,
            "above 3 m [%] by range": np.array([(cloud.height[rows] > 3).mean() for rows in inside]) * 100,
            "intensity, lowest 5 % by range": np.array([np.quantile(cloud.intensity[rows], 0.05) for rows in by_range]),
            "intensity, median by range": np.array([np.median(cloud.intensity[rows]) for rows in by_range]),
        }
        for name, value in values.items():
            tables.setdefault(name, []).append(value)
    names = {
        "returns by 5 m": [str(r) for r in RANGES[:-1]],
        "height above the road [%]": [f"{h:g}" for h in HEIGHTS[:-1]],
        "ground [%], all and by range": ["all", *[f"{a}-{b}" for a, b in BANDS]],
        "above 3 m [%] by range": [f"{a}-{b}" for a, b in BANDS],
        "missing in all [%]": [""],
    }
    bands = [f"{a}-{b}" for a, b in INTENSITY_BANDS]
    names |= {name: bands if name.startswith("intensity") else [str(k) for k in range(32)] for name in tables if name not in names}
    return {name: (names[name], np.mean(rows, axis=0)) for name, rows in tables.items()}


def returns_per_box(frames: Iterable[Frame]) -> dict[str, tuple[list[str], np.ndarray, np.ndarray]]:
    """Class -> names of the distances, median and 90 % of the returns within its boxes."""
    rows = []
    for frame in frames:
        truth = frame.truth
        assert truth is not None
        assert truth.num_points is not None
        distance = np.hypot(*(truth.boxes.center - frame.lidar_to_global.translation)[:, :2].T)
        rows.append(np.column_stack([truth.label, distance, truth.num_points]))
    label, distance, count = np.concatenate(rows).T
    found = {}
    for name in REAL_RETURNS:
        mine = label == NUSCENES_DETECTION.index(name)
        groups = [count[mine & (distance >= a) & (distance < b)] for a, b in BOX_BANDS]
        cells = [np.quantile(g, [0.5, 0.9]) if len(g) else [np.nan, np.nan] for g in groups]
        found[name] = ([f"{a}-{b} m ({len(g)})" for (a, b), g in zip(BOX_BANDS, groups, strict=True)], *np.array(cells).T)
    return found


def print_beside(title: str, names: list[str], ours: np.ndarray, real: np.ndarray | None) -> None:
    print(f"\n{title}\n\n| | " + " | ".join(names) + " |\n|" + "---|" * (len(names) + 1))
    print("| simulated | " + " | ".join(f"{v:.1f}" for v in ours) + " |")
    if real is not None:
        print("| real | " + " | ".join(f"{v:.1f}" for v in real) + " |")
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


def compare(
    folder: Annotated[Path, typer.Argument(help="Where the simulated scenes are or go.", show_default=False)],
    real: Annotated[Path | None, typer.Option(help="Root of a nuScenes version with lidar files.", show_default=False)] = None,
    scenes: Annotated[int, typer.Option(help="Scenes to simulate, four key frames each.")] = 5,
    seed: Annotated[int, typer.Option()] = 11,
) -> None:
    """Print the statistics of simulated clouds, beside real ones where they are given."""
    version = "v1.0-compare"
    if not (folder / version / "sample.json").exists():
        made = simulate_scenes(scenes, seed=seed, num_frames=4)
        write_nuscenes(folder, made, version=version, splits={}, lidar=True)
    frames = [frame for drive in NuScenes(folder, version, cameras=False).drives() for frame in drive]
    clouds = [read(frame) for frame in frames]
    theirs = [] if real is None else [frame for drive in NuScenes(real, cameras=False).drives() for frame in drive]
    their_clouds = [read(frame) for frame in theirs]
    print(f"{len(frames)} simulated key frames, {len(theirs)} real ones")
    ours, other = figures(clouds), figures(their_clouds) if theirs else {}
    for name, (columns, values) in ours.items():
        print_beside(name, columns, values, other[name][1] if other else None)
    for name, (columns, median, most) in returns_per_box(frames).items():
        print_beside(
            f"returns per {name}, median (real: 81 key frames of nuScenes)", columns, median, np.array(REAL_RETURNS[name][0], float)
        )
        print_beside(f"returns per {name}, 90 %", columns, most, np.array(REAL_RETURNS[name][1], float))
    if theirs:
        pictures = [bars(name, *ours[name], other[name][1]) for name in ours if len(ours[name][0]) > 1]
        sheet = Image.new("RGB", (1600, 800 + 260 * -(-len(pictures) // 2)), "white")
        sheet.paste(from_above(clouds[len(clouds) // 2]), (0, 0))
        sheet.paste(from_above(their_clouds[0]), (800, 0))
        for i, picture in enumerate(pictures):
            sheet.paste(picture, (800 * (i % 2), 800 + 260 * (i // 2)))
        sheet.save(folder / "compare.png")
        print(f"\n{folder / 'compare.png'}")


if __name__ == "__main__":
    typer.run(compare)
