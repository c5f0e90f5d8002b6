"""The point-cloud operators beside their peers: `python tools/benchmark.py ops`. Peers that are not installed (`pip install
'perception[bench]'`) are left out of the table, with a word at its end."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

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
        taken = np.array([[seconds_of(candidate) for candidate in candidates] for _ in range(repeats)]) * 1e3
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
