"""Virtual points of six cameras, ours and the plain NumPy way: `python tools/benchmark.py fusion`."""

import time
from collections.abc import Callable

import numpy as np
from benchmark_ops import ten_sweeps
from scipy.spatial.distance import cdist

from perception.core import Transform
from perception.fusion import CameraView, Instances, virtual_points

SIZE, FOCAL, NUM_MASKS, NUM_DRAWN = (1600, 900), 1266.0, 60, 50
_YAWS = np.radians([0, -55, -110, 180, 110, 55])  # of nuScenes' cameras, about


def rig() -> dict[str, CameraView]:
    """Six cameras around a lidar whose y looks ahead."""
    ahead = Transform(np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]), np.zeros(3))  # x right, y down, z forward
    intrinsics = np.array([[FOCAL, 0, 800], [0, FOCAL, 450], [0, 0, 1]])
    return {f"CAM_{k}": CameraView(ahead @ Transform.from_yaw(-yaw, (0, 0, 0.3)), intrinsics, SIZE) for k, yaw in enumerate(_YAWS)}


def street_masks(seed: int = 0) -> dict[str, np.ndarray]:
    """Per camera ten masks (10, 900, 1600) bool: ellipses of 30 to 400 pixels around the horizon, some before others."""
    rng = np.random.default_rng(seed)
    v, u = np.mgrid[: SIZE[1], : SIZE[0]]
    masks = {}
    for k in range(len(_YAWS)):
        center = rng.uniform([0, 400], [1600, 600], (NUM_MASKS // 6, 2))
        radius = 15 * (400 / 30) ** rng.random((NUM_MASKS // 6, 1)) * rng.uniform(0.5, 1, (NUM_MASKS // 6, 2))
        masks[f"CAM_{k}"] = np.array(
            [((u - x) / a) ** 2 + ((v - y) / b) ** 2 < 1 for (x, y), (a, b) in zip(center, radius, strict=True)], bool
        )
    return masks


def instances_of(masks: dict[str, np.ndarray]) -> dict[str, Instances]:
    rng = np.random.default_rng(1)
    return {name: Instances.from_masks(m, rng.integers(0, 10, len(m)), rng.random(len(m)), SIZE) for name, m in masks.items()}


def plain_numpy(points: np.ndarray, masks: dict[str, np.ndarray], views: dict[str, CameraView]) -> np.ndarray:
    """(V, 3): unpacked masks, products of matrices, all distances of an instance. Classes and painted points are left out."""
    rng, made = np.random.default_rng(0), []
    homogeneous = np.column_stack([points[:, :3], np.ones(len(points), np.float32)])
    for name, shown in masks.items():
        view = views[name]
        numbers = np.full(SIZE[::-1], len(shown), np.uint16)
        for k in range(len(shown) - 1, -1, -1):
            numbers[shown[k]] = k
        x, y, depth = (homogeneous @ view.lidar_to_pixels.T.astype(np.float32)).T
        with np.errstate(divide="ignore", invalid="ignore"):
            u, v = np.floor(x / depth), np.floor(y / depth)
        seen = np.flatnonzero((depth > 0) & (u > 0) & (u < SIZE[0]) & (v > 0) & (v < SIZE[1]))
        u, v, depth = u[seen].astype(int), v[seen].astype(int), depth[seen]
        owner = numbers[v, u]
        back = view.lidar_to_camera.rotation.T @ np.linalg.inv(view.intrinsics)
        origin = -view.lidar_to_camera.rotation.T @ view.lidar_to_camera.translation
        for k, mask in enumerate(shown):
            own = owner == k
            if not own.any():
                continue
            rows, columns = np.nonzero(mask)
            drawn = rng.choice(len(rows), min(NUM_DRAWN, len(rows)), replace=False)
            pixel = np.column_stack([columns[drawn], rows[drawn]])
            nearest = cdist(pixel, np.column_stack([u[own], v[own]])).argmin(axis=1)
            ray = np.column_stack([pixel, np.ones(len(pixel))]) @ back.T
            made.append(depth[own][nearest][:, None] * ray + origin)
    return np.concatenate(made)


def measured(repeats: int, ours: Callable[[], object], theirs: Callable[[], object]) -> np.ndarray:
    """(repeats, 2) seconds of processor time, in turn, after a warm-up of both."""
    seconds = []
    for number in range(repeats + 1):
        row = []
        for candidate in (ours, theirs):
            start = time.process_time()
            candidate()
            row.append(time.process_time() - start)
        if number:
            seconds.append(row)
    return np.array(seconds)


def print_table(repeats: int) -> None:
    """One line for the points of ten sweeps at once, one for those of one sweep."""
    views, masks = rig(), street_masks()
    cloud = ten_sweeps(264_000)
    print(
        f"\n{NUM_MASKS} masks in {len(views)} pictures of {SIZE[0]} x {SIZE[1]} pixels, {NUM_DRAWN} points drawn of each\n\n"
        "| points | ours, from text [ms] | ours, masks decoded [ms] | plain NumPy, masks unpacked [ms] | ratio | spread |\n"
        "|---|---|---|---|---|---|"
    )
    for points in (cloud, cloud[:34_688]):
        decoded = instances_of(masks)

        def from_text(points: np.ndarray = points, held: dict[str, Instances] = decoded) -> object:
            fresh = {name: one[:] for name, one in held.items()}  # has not looked at its masks yet
            return virtual_points(points, fresh, views, NUM_DRAWN)

        def again(points: np.ndarray = points, held: dict[str, Instances] = decoded) -> object:
            return virtual_points(points, held, views, NUM_DRAWN)

        plain = lambda points=points: plain_numpy(points, masks, views)  # noqa: E731
        first, second = measured(repeats, from_text, plain), measured(repeats, again, plain)
        ratio = first[:, 1] / first[:, 0]
        low, high = np.percentile(ratio, [10, 90])
        milliseconds = " | ".join(f"{np.median(column) * 1e3:.1f}" for column in (first[:, 0], second[:, 0], first[:, 1]))
        print(f"| {len(points)} | {milliseconds} | {np.median(ratio):.1f} | {low:.1f}..{high:.1f} |")
