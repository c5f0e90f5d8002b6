"""Rows of `python tools/benchmark.py ops`: cast_rays on a street, beside Embree (`embreex`, one thread) over the same triangles."""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import numpy as np
from benchmark_ops import Case

import cuda_ops

CORNERS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
FACES = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]  # of the corners


def ray_cases() -> list[Case]:
    """One sweep of a 32-beam lidar; both include the tree they prepare, then both have theirs made before."""
    boxes, heights, corner = street()
    ground = cuda_ops.Primitives.height_field(heights, corner, 1.0)
    primitives = cuda_ops.Primitives.concatenate(ground, cuda_ops.Primitives.boxes(boxes))
    origins, directions = sweep()
    ours = partial(cuda_ops.cast_rays, origins, directions, primitives)
    kept = partial(ours, tree=cuda_ops.ray_tree(primitives))
    names = "embreex", "embreex, both trees made before"
    peers: list[Callable[[], np.ndarray] | None] = [None, None]
    if find_spec("embreex"):
        triangles = np.concatenate([triangles_of_field(heights, corner), triangles_of_boxes(boxes)]).astype(np.float32)
        cast = embree(triangles)
        is_same = np.isclose(ours().distance, cast(origins, directions), rtol=1e-4)
        assert is_same.mean() > 0.999, "both must see the same street"  # rays that graze an edge may differ
        peers = [lambda: embree(triangles)(origins, directions), partial(cast, origins, directions)]
    name = f"cast_rays, {len(directions):,} rays x {len(primitives):,} primitives"
    return [Case(name, threads, *case) for case in zip((ours, kept), names, peers, strict=True) for threads in (1, 2)]


def street(num_boxes: int = 1_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    """Boxes (num_boxes, 7): a tenth houses, a fifth poles, the rest parts of vehicles; heights of the ground, their corner."""
    rng = np.random.default_rng(seed)
    houses, poles = num_boxes // 10, num_boxes // 5
    parts = num_boxes - houses - poles
    x = rng.uniform(-90, 90, num_boxes)
    x[:parts] += 8 * np.sign(x[:parts])  # none on the sensor
    y = np.r_[rng.uniform(-12, 12, parts), rng.choice([-1, 1], poles) * rng.uniform(9, 14, poles), np.resize([-30, 30], houses)]
    size = np.concatenate(
        [
            rng.uniform([0.3, 0.2, 0.3], [4.5, 1.9, 1.5], (parts, 3)),
            rng.uniform([0.1, 0.1, 2], [0.3, 0.3, 8], (poles, 3)),
            rng.uniform([8, 8, 6], [20, 14, 15], (houses, 3)),
        ]
    )
    bottom = np.where(np.arange(num_boxes) < parts, rng.uniform(-1.8, -0.5, num_boxes), -1.9)
    yaw = np.r_[rng.uniform(-np.pi, np.pi, parts + poles), rng.normal(0, 0.1, houses)]
    ground = -1.84 + 0.02 * rng.normal(size=(121, 201)).cumsum(axis=1)
    return np.column_stack([x, y, bottom + size[:, 2] / 2, size, yaw]), ground, (-100.0, -60.0, 0.0)


def sweep(rings: int = 32, columns: int = 1084) -> tuple[np.ndarray, np.ndarray]:
    """Origins and directions, ring by ring."""
    elevation, azimuth = np.deg2rad(np.linspace(-30.67, 10.67, rings))[:, None], np.linspace(0, 2 * np.pi, columns, endpoint=False)
    ways = [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation) + 0 * azimuth]
    directions = np.stack(ways, axis=-1).reshape(-1, 3).astype(np.float32)
    return np.zeros_like(directions), directions


def triangles_of_boxes(boxes: np.ndarray) -> np.ndarray:
    """(12 P, 3, 3)."""
    cosine, sine, zero = np.cos(boxes[:, 6]), np.sin(boxes[:, 6]), np.zeros(len(boxes))
    turn = np.stack([cosine, -sine, zero, sine, cosine, zero, zero, zero, zero + 1], axis=-1).reshape(-1, 3, 3)
    points = boxes[:, None, :3] + np.einsum("pij,pkj->pki", turn, CORNERS * boxes[:, None, 3:6])
    return points[:, FACES][:, :, [[0, 1, 2], [0, 2, 3]]].reshape(-1, 3, 3)


def triangles_of_field(heights: np.ndarray, corner: tuple[float, float, float]) -> np.ndarray:
    """(T, 3, 3) for cells of 1 m, cut as cuda_ops cuts them."""
    y, x = np.mgrid[: heights.shape[0], : heights.shape[1]]
    points = np.stack([x, y, heights], axis=-1) + corner
    p00, p10, p01, p11 = points[:-1, :-1], points[:-1, 1:], points[1:, :-1], points[1:, 1:]
    return np.concatenate([np.stack(cut, axis=2).reshape(-1, 3, 3) for cut in ((p00, p10, p11), (p00, p11, p01))])


def embree(triangles: np.ndarray) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """A tree over triangles (T, 3, 3); it gives the distances of rays, inf where they hit nothing."""
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene

    scene = EmbreeScene()
    TriangleMesh(scene, triangles)

    def cast(origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
        distance = np.asarray(scene.run(origins, directions, query="DISTANCE"))
        return np.where(distance > 1e30, np.inf, distance)

    cast(np.zeros((1, 3), np.float32), np.ones((1, 3), np.float32))  # the tree is made by the first call
    return cast
