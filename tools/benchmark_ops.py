"""The point-cloud operators beside their peers: `python tools/benchmark.py ops`. Peers that are not installed (`pip install
'perception[bench]'`) are left out of the table, with a word at its end."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

import cuda_ops

GRID = cuda_ops.Grid((-54.0, -54.0, -5.0), (54.0, 54.0, 3.0), (0.075, 0.075, 0.2))  # CenterPoint's 0.075 m voxels


@dataclass(frozen=True)
class Case:
    """One row: an operator on so many threads, beside a peer (None where it is not installed)."""

    name: str
    threads: int
    ours: Callable[[], object]
    peer_name: str
    peer: Callable[[], object] | None
    most_repeats: int = 1000  # fewer where a peer takes seconds


def ten_sweeps(num_points: int, seed: int = 0) -> np.ndarray:
    """A cloud as ten accumulated sweeps of a 32-beam lidar give it: rings on the ground, walls, each sweep a little further."""
    rng = np.random.default_rng(seed)
    count = num_points // 10
    sweeps = []
    for sweep in range(10):
        azimuth = np.linspace(0, 2 * np.pi, count)
        elevation = np.deg2rad(-30.67 + 1.3333 * (np.arange(count) % 32))
        to_ground = 1.84 / np.maximum(np.tan(-elevation), 1e-3)
        to_wall = 8 + 20 * np.abs(np.sin(3 * azimuth)) + rng.normal(0, 1.5, count)
        rho = np.minimum(to_ground, to_wall) + rng.normal(0, 0.01, count)
        z = np.where(to_ground < to_wall, -1.84, rho * np.tan(elevation)) + rng.normal(0, 0.02, count)
        x, y = rho * np.cos(azimuth) + 0.45 * sweep, rho * np.sin(azimuth)
        sweeps.append(np.column_stack([x, y, z, rng.integers(0, 256, count), np.full(count, 0.05 * sweep)]))
    return np.concatenate(sweeps).astype(np.float32)


def read_cloud(path: Path) -> np.ndarray:
    """Points (N, 5) from a file of float16 or float32 rows; raises ValueError where its length fits neither."""
    size = path.stat().st_size
    dtype = np.float16 if path.suffixes[-2:-1] == [".f16"] else np.float32
    if size % (5 * np.dtype(dtype).itemsize):
        raise ValueError(f"{path}: expected rows of 5 {np.dtype(dtype).name}, got {size} bytes")
    return np.fromfile(path, dtype).reshape(-1, 5).astype(np.float32)


def voxel_cases(points: np.ndarray) -> list[Case]:
    """Voxelization beside spconv's generator for the CPU, which knows one thread only, and torch."""
    hard_peer, mean_peer = spconv_peers(points)
    cases = []
    for threads in (1, 2):
        cases += [
            Case("voxelize_mean", threads, lambda: cuda_ops.voxelize_mean(points, GRID), "spconv Point2VoxelCPU3d + mean", mean_peer),
            Case("voxelize_hard", threads, lambda: cuda_ops.voxelize_hard(points, GRID, 10, 160_000), "spconv Point2VoxelCPU3d", hard_peer),
        ]
    many = ten_sweeps(3_000_000, seed=1)
    cases.append(
        Case("voxelize_mean of 3,000,000 points", 2, lambda: cuda_ops.voxelize_mean(many, GRID), "torch unique", lambda: torch_mean(many))
    )
    return cases


def spconv_peers(points: np.ndarray) -> tuple[Callable[[], object] | None, Callable[[], object] | None]:
    """Its hard voxels, and their mean; None where spconv is not installed."""
    if not find_spec("spconv"):
        return None, None
    from cumm import tensorview as tv
    from spconv.utils import Point2VoxelCPU3d

    generator = Point2VoxelCPU3d([*GRID.voxel_size], [*GRID.lower, *GRID.upper], points.shape[1], 160_000, 10)

    def hard() -> list[torch.Tensor]:
        return [torch.from_numpy(part.numpy_view()) for part in generator.point_to_voxel(tv.from_numpy(points))]

    def mean() -> torch.Tensor:
        voxels, _, num_points = hard()
        return voxels.sum(1) / num_points[:, None]

    return hard, mean


def box_cases(points: np.ndarray) -> list[Case]:
    """Suppression and containment beside shapely and NumPy."""
    cases = []
    for count in (1_000, 4_000):
        boxes, scores = street_boxes(count, seed=count)
        peer = partial(shapely_nms, boxes, scores, 0.2) if find_spec("shapely") else None
        cases.append(Case(f"nms_bev of {count:,} boxes", 1, partial(cuda_ops.nms_bev, boxes, scores, 0.2), "shapely STRtree", peer))
    boxes, _ = street_boxes(100, seed=0)
    ours = partial(cuda_ops.points_in_boxes, points, boxes)
    cases.append(Case("points_in_boxes, 100 boxes", 2, ours, "NumPy, box by box", partial(numpy_points_in_boxes, points, boxes)))
    return cases


def street_boxes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (N, 7) as a detector's head gives them before suppression: several to an object, all over 100 m x 100 m; and their scores."""
    rng = np.random.default_rng(seed)
    objects = rng.uniform(-50, 50, (max(count // 5, 1), 2))
    center = objects[rng.integers(0, len(objects), count)] + rng.normal(0, 0.5, (count, 2))
    size = np.array([4.6, 1.9, 1.7]) * rng.uniform(0.8, 1.2, (count, 3))
    return np.column_stack([center, np.zeros(count), size, rng.uniform(-np.pi, np.pi, count)]), rng.random(count)


def shapely_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Suppression with shapely's tree for the pairs and GEOS for their overlap."""
    import shapely

    cosine, sine = np.cos(boxes[:, 6, None]), np.sin(boxes[:, 6, None])
    along, across = boxes[:, 3, None] / 2 * [1, -1, -1, 1], boxes[:, 4, None] / 2 * [1, 1, -1, -1]
    corners = np.stack([boxes[:, 0, None] + cosine * along - sine * across, boxes[:, 1, None] + sine * along + cosine * across], axis=-1)
    polygons: Any = shapely.polygons(corners)  # its stubs allow for a single polygon
    first, second = shapely.STRtree(polygons).query(polygons, predicate="intersects")
    rank = np.empty(len(boxes), dtype=np.int64)
    order = np.argsort(-scores, kind="stable")
    rank[order] = np.arange(len(boxes))
    is_ordered = rank[first] < rank[second]
    first, second = first[is_ordered], second[is_ordered]
    shared = shapely.area(shapely.intersection(polygons[first], polygons[second]))
    area: Any = shapely.area(polygons)
    overlaps = shared / (area[first] + area[second] - shared) > threshold
    dropped_by: dict[int, list[int]] = {}
    for one, other in zip(first[overlaps].tolist(), second[overlaps].tolist(), strict=True):
        dropped_by.setdefault(one, []).append(other)
    is_dropped = np.zeros(len(boxes), dtype=bool)
    keep = []
    for box in order.tolist():
        if not is_dropped[box]:
            keep.append(box)
            is_dropped[dropped_by.get(box, [])] = True
    return np.array(keep)


def numpy_points_in_boxes(points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """First box of each point, one box after the other."""
    index = np.full(len(points), -1, dtype=np.int32)
    for number, (x, y, z, length, width, height, yaw) in reversed(list(enumerate(boxes))):
        dx, dy = points[:, 0] - x, points[:, 1] - y
        along, across = np.cos(yaw) * dx + np.sin(yaw) * dy, np.cos(yaw) * dy - np.sin(yaw) * dx
        index[(abs(along) <= length / 2) & (abs(across) <= width / 2) & (abs(points[:, 2] - z) <= height / 2)] = number
    return index


def torch_mean(points: np.ndarray) -> torch.Tensor:
    """The mean as one writes it in torch: unique cells and index_add_."""
    cloud = torch.from_numpy(points)
    depth, height, width = GRID.shape
    cell = torch.floor((cloud[:, :3] - torch.tensor(GRID.lower)) / torch.tensor(GRID.voxel_size)).long()
    is_inside = ((cell >= 0) & (cell < torch.tensor([width, height, depth]))).all(1)
    cloud, cell = cloud[is_inside], cell[is_inside]
    _, row, count = torch.unique((cell[:, 2] * height + cell[:, 1]) * width + cell[:, 0], return_inverse=True, return_counts=True)
    return torch.zeros(len(count), cloud.shape[1]).index_add_(0, row, cloud) / count[:, None]


def print_table(cases: list[Case], repeats: int) -> None:
    """Medians of repetitions that alternate between ours and the peer."""
    print("| operator | threads | ours [ms] | peer | peer [ms] | ratio | spread of ratio |\n|---|---|---|---|---|---|---|")
    for case in cases:
        torch.set_num_threads(case.threads)
        candidates = [case.ours] + ([case.peer] if case.peer else [])
        for candidate in candidates:
            candidate()
        taken = np.array([[seconds_of(candidate) for candidate in candidates] for _ in range(min(repeats, case.most_repeats))]) * 1e3
        ours = np.median(taken[:, 0])
        if case.peer is None:
            print(f"| {case.name} | {case.threads} | {ours:.2f} | {case.peer_name} | not installed | | |")
            continue
        ratio = taken[:, 1] / taken[:, 0]
        print(
            f"| {case.name} | {case.threads} | {ours:.2f} | {case.peer_name} | {np.median(taken[:, 1]):.2f} "
            f"| {np.median(ratio):.1f} | {np.quantile(ratio, 0.1):.1f}..{np.quantile(ratio, 0.9):.1f} |"
        )


def seconds_of(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
