"""Rows of `python tools/benchmark.py gpu`: the operators on a CUDA device, called one by one and replayed from a CUDA graph.

Beside each stands the floor: the bytes that it must read and write once at the card's own copy speed, measured in the same run.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from benchmark_ops import GRID, street_boxes
from benchmark_rays import street, sweep
from benchmark_sparse import STAGES

import cuda_ops

_WARM_UP, _REPEATS = 3, 30


@dataclass(frozen=True)
class GpuCase:
    """One row: what is called, the bytes it must move, and whether a CUDA graph can hold it (nothing in it waits for a count)."""

    name: str
    call: Callable[[], Any]
    moved: int
    in_graph: bool = True


def print_table(points: np.ndarray, repeats: int = _REPEATS) -> None:
    """One row an operator, milliseconds: medians of `repeats` calls."""
    speed = copy_speed()
    print(f"\n{torch.cuda.get_device_name()}, torch {torch.__version__}, a copy moves {speed / 1e12:.2f} TB/s; {len(points)} points\n")
    print("| operator | called [ms] | from a graph [ms] | floor [ms] |\n|---|---|---|---|")
    for case in [*cloud_cases(points), *box_cases(points), ray_case(), *sparse_cases(points)]:
        graph = f"{milliseconds(replayed(case.call), repeats):.3f}" if case.in_graph else ""
        print(f"| {case.name} | {milliseconds(case.call, repeats):.3f} | {graph} | {1e3 * case.moved / speed:.3f} |", flush=True)


def milliseconds(call: Callable[[], Any], repeats: int = _REPEATS) -> float:
    """Median of a call on the device, the host's part included where the device waits for it."""
    for _ in range(_WARM_UP):
        call()
    times = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return float(np.median(times))


def replayed(call: Callable[[], Any]) -> Callable[[], None]:
    """The replay of a graph that holds the call."""
    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def copy_speed() -> float:
    """Bytes a second that a large copy on the device reads and writes."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() / (1e-3 * milliseconds(lambda: target.copy_(source), 10))


def cloud_cases(points: np.ndarray) -> list[GpuCase]:
    """Voxels and what points give them."""
    cloud = torch.from_numpy(points).cuda()
    mean = cuda_ops.voxelize_mean(cloud, GRID, with_index=True)
    count = len(mean.coords)
    index, values = mean.voxel_of_point, torch.randn((len(cloud), 64), device="cuda")
    most = 1 << (count - 1).bit_length()
    read, rows = cloud.numel() * 4, count * (5 * 4 + 4 * 3)
    return [
        GpuCase("voxelize_mean", partial(cuda_ops.voxelize_mean, cloud, GRID), read + rows, in_graph=False),
        GpuCase("voxelize_mean, fixed", partial(cuda_ops.voxelize_mean, cloud, GRID, max_voxels=most, fixed_capacity=True), read + rows),
        GpuCase("voxelize_hard", partial(cuda_ops.voxelize_hard, cloud, GRID, 10, 160_000), read + count * 212, in_graph=False),
        GpuCase(
            "voxelize_hard, fixed",
            partial(cuda_ops.voxelize_hard, cloud, GRID, 10, 160_000, fixed_capacity=True),
            read + 160_000 * 212,
        ),
        GpuCase("scatter_max, 64 columns", partial(cuda_ops.scatter_max, values, index, count), 4 * (values.numel() + 64 * count)),
        GpuCase("scatter_mean, 64 columns", partial(cuda_ops.scatter_mean, values, index, count), 4 * (values.numel() + 64 * count)),
    ]


def box_cases(points: np.ndarray) -> list[GpuCase]:
    """Suppression, overlaps and containment."""
    cloud, cases = torch.from_numpy(points).cuda(), []
    for count in (1_000, 4_000):
        boxes, scores = (torch.from_numpy(part.astype(np.float32)).cuda() for part in street_boxes(count, seed=count))
        cases.append(GpuCase(f"nms_bev of {count:,} boxes", partial(cuda_ops.nms_bev, boxes, scores, 0.2), 32 * count, in_graph=False))
    boxes = torch.from_numpy(street_boxes(100, seed=0)[0].astype(np.float32)).cuda()
    inside = partial(cuda_ops.points_in_boxes, cloud, boxes)
    return [*cases, GpuCase("points_in_boxes, 100 boxes", inside, 12 * len(cloud) + 4 * len(cloud))]


def ray_case() -> GpuCase:
    """A sweep of 32 beams on a street of 1,000 boxes; the tree is made before."""
    boxes, heights, corner = street()
    ground = cuda_ops.Primitives.height_field(heights, corner, 1.0)
    primitives = cuda_ops.Primitives.concatenate(ground, cuda_ops.Primitives.boxes(boxes)).to("cuda")
    origins, directions = (torch.from_numpy(part).cuda() for part in sweep())
    call = partial(cuda_ops.cast_rays, origins, directions, primitives, tree=cuda_ops.ray_tree(primitives))
    return GpuCase(f"cast_rays, {len(directions):,} rays x {len(primitives):,} primitives", call, len(directions) * (24 + 24))


def sparse_cases(points: np.ndarray) -> list[GpuCase]:
    """The stages of CenterPoint's voxel backbone: their tables, and one layer of each."""
    coords = cuda_ops.voxelize_mean(torch.from_numpy(points).cuda(), GRID).coords
    shape, cases = (GRID.shape[0] + 1, *GRID.shape[1:]), []
    for channels, step in STAGES:
        if step:
            found = cuda_ops.sparse_indices(coords, shape, *step)
            most = 1 << (len(found.coords) - 1).bit_length()
            call = partial(cuda_ops.sparse_indices, coords, shape, *step, capacity=most)
            name = f"sparse_indices, strided, {len(coords):,} to {len(found.coords):,} rows"
            cases.append(GpuCase(name, call, 16 * len(coords) + len(found.coords) * (16 + 4 * 27)))
            coords, shape = found.coords, found.shape
        same = partial(cuda_ops.sparse_indices, coords, shape, 3, submanifold=True)
        table = same().table
        cases.append(GpuCase(f"sparse_indices, submanifold, {len(coords):,} rows", same, len(coords) * (16 + 4 * 27)))
        for dtype in (torch.float16, torch.float32):
            features = torch.randn((len(coords), channels), device="cuda", dtype=dtype)
            weight = torch.randn((channels, 3, 3, 3, channels), device="cuda", dtype=dtype)
            call = partial(cuda_ops.sparse_conv, features, weight, table)
            name = f"sparse_conv {channels}, {len(coords):,} rows, {str(dtype).removeprefix('torch.')}"
            cases.append(GpuCase(name, call, len(coords) * (4 * 27 + 2 * channels * features.element_size())))
    return cases
