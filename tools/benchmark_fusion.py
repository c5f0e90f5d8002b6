"""Virtual points of six cameras, ours and the published steps in plain NumPy: `python tools/benchmark.py fusion`."""

import time
from collections.abc import Callable, Sequence

import numpy as np
from benchmark_ops import ten_sweeps
from scipy.spatial.distance import cdist

from perception.core import Transform
from perception.fusion import MVP_CLASSES, CameraView, Instances, virtual_points

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


def plain_numpy(
    points: np.ndarray,
    pictures: dict[str, Instances],
    views: dict[str, CameraView],
    ranks: np.ndarray | None = None,
    masks: dict[str, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """virtual (V, 14), painted (F, 15) and its rows (F,) of the cloud, as `virtual_points` gives them: the published steps in plain NumPy.

    Written from MVP's description, not from its code or ours: masks as pictures, every point projected into every picture, products of
    matrices in float64. Quicker than what is published in two places: a picture of numbers in place of a row of bits for each point and
    mask, and distances within an instance in place of those between all pixels and all points.

    masks  (K, H, W) bool by camera: spares decoding; without them they are decoded here, by `decode_rle`, which is plain NumPy too
    ranks  (R, num) as `virtual_points` takes them; without them pixels are drawn
    """
    rng, made, virtual_at = np.random.default_rng(0), [], 0
    homogeneous = np.column_stack([points[:, :3].astype(np.float64), np.ones(len(points))])
    painted = np.zeros((len(points), 15), np.float32)
    painted[:, :4] = points[:, :4]
    for name, view in views.items():
        shown = pictures[name]
        bits = [shown.mask(k) for k in range(len(shown))] if masks is None else masks[name]
        column = MVP_CLASSES.labels_from(shown.classes)[shown.label]
        numbers = np.full(SIZE[::-1], len(shown), np.uint16)
        for k in range(len(shown) - 1, -1, -1):
            numbers[bits[k]] = k
        x, y, depth = (homogeneous @ view.lidar_to_pixels.T).T
        with np.errstate(divide="ignore", invalid="ignore"):
            u, v = np.floor(x / depth), np.floor(y / depth)
        seen = np.flatnonzero((depth > 0) & (u > 0) & (u < SIZE[0]) & (v > 0) & (v < SIZE[1]))
        u, v, depth = u[seen].astype(int), v[seen].astype(int), depth[seen]
        owner = numbers[v, u]
        hit = owner < len(shown)
        rows, of_row = seen[hit], owner[hit]
        painted[rows, 4 + column[of_row]] = 1
        painted[rows, 14] = np.maximum(painted[rows, 14], shown.score[of_row])
        back = view.lidar_to_camera.rotation.T @ np.linalg.inv(view.intrinsics)
        origin = -view.lidar_to_camera.rotation.T @ view.lidar_to_camera.translation
        for k, mask in enumerate(bits):
            columns, lines = np.nonzero(mask.T)
            if len(columns) == 0:
                continue
            drawn = rng.permutation(len(columns))[:NUM_DRAWN] if ranks is None else ranks[virtual_at]
            virtual_at += 1
            own = owner == k
            if not own.any():
                continue
            pixel = np.column_stack([columns[drawn], lines[drawn]])
            pixel = np.concatenate([pixel, np.repeat(pixel[:1], max(NUM_DRAWN - len(pixel), 0), axis=0)])
            nearest = cdist(pixel, np.column_stack([u[own], v[own]]), "sqeuclidean").argmin(axis=1)
            ray = np.column_stack([pixel, np.ones(len(pixel))]) @ back.T
            rows_made = np.zeros((len(pixel), 14), np.float32)
            rows_made[:, :3] = depth[own][nearest][:, None] * ray + origin
            rows_made[:, 3 + column[k]], rows_made[:, 13] = 1, shown.score[k]
            made.append(rows_made)
    in_masks = np.flatnonzero(painted[:, 4:14].any(axis=1))
    return np.concatenate([np.zeros((0, 14), np.float32), *made]), painted[in_masks], in_masks


def measured(repeats: int, candidates: Sequence[Callable[[], object]]) -> np.ndarray:
    """(repeats, candidates) seconds, in turn, after a warm-up of each."""
    seconds = []
    for number in range(repeats + 1):
        row = []
        for candidate in candidates:
            start = time.perf_counter()
            candidate()
            row.append(time.perf_counter() - start)
        if number:
            seconds.append(row)
    return np.array(seconds)


def print_table(repeats: int) -> None:
    """For the points of one sweep and of ten at once, from masks as text, as files have them, and from masks decoded before."""
    views, masks = rig(), street_masks()
    cloud, held = ten_sweeps(264_000), instances_of(masks)
    print(
        f"\n{NUM_MASKS} masks in {len(views)} pictures of {SIZE[0]} x {SIZE[1]} pixels, {NUM_DRAWN} points drawn of each; virtual and "
        "painted points out\n\n| points | masks | ours [ms] | plain NumPy [ms] | ratio | spread |\n|---|---|---|---|---|---|"
    )
    for points in (cloud[:34_688], cloud):
        for what in ("as text", "decoded"):
            is_text = what == "as text"

            def ours(points: np.ndarray = points, is_text: bool = is_text) -> object:
                # a copy has not looked at its masks yet
                return virtual_points(points, {name: one[:] for name, one in held.items()} if is_text else held, views, NUM_DRAWN)

            def theirs(points: np.ndarray = points, is_text: bool = is_text) -> object:
                return plain_numpy(points, held, views, masks=None if is_text else masks)

            seconds = measured(repeats, (ours, theirs))
            ratio = seconds[:, 1] / seconds[:, 0]
            low, high = np.percentile(ratio, [10, 90])
            first, second = np.median(seconds, axis=0) * 1e3
            print(f"| {len(points)} | {what} | {first:.1f} | {second:.1f} | {np.median(ratio):.1f} | {low:.1f}..{high:.1f} |")
