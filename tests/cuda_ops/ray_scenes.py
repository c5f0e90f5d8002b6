"""Scenes of simple shapes, and rays through them."""

import numpy as np

from cuda_ops import Primitives


def random_boxes(rng, count: int, reach: float = 12) -> np.ndarray:
    """Rows (count, 7) around the origin, overlapping."""
    columns = [
        rng.uniform(-reach, reach, (count, 2)),
        rng.uniform(-2, 2, count),
        rng.uniform(0.2, 4, (count, 3)),
        rng.uniform(-7, 7, count),
    ]
    return np.column_stack(columns)


def scene(seed: int, each: int = 3, *, chances: bool = True) -> Primitives:
    """Some primitives of every kind."""
    rng = np.random.default_rng(seed)

    def boxes() -> np.ndarray:
        return random_boxes(rng, each)

    chance = rng.uniform(0, 1, each) * chances
    solid = boxes()
    volumes = [Primitives.volumes(boxes(), rng.uniform(0, 2, each), shape=s, taper=rng.uniform(-0.2, 0.3, 3)) for s in ("box", "ellipsoid")]
    return Primitives.concatenate(
        Primitives.planes([[0, 0, -3], [14, 0, 0]], [[0.1, 0, 2], [-1, 0.2, 0]], pass_chance=[0, 0.5 * chances]),
        Primitives.boxes(boxes(), taper=rng.uniform(-0.3, 0.5, (each, 3)), pass_chance=chance),
        Primitives.cylinders(solid[:, :3], solid[:, 3] / 2, solid[:, 5], pass_chance=chance),
        Primitives.height_field(rng.normal(0, 0.4, (9, 12)), (-9, -5, -2), (1.5, 1.25), yaw=rng.uniform(-3, 3), pass_chance=0.3 * chances),
        Primitives.ellipsoids(boxes(), pass_chance=chance),
        *(volumes if chances else []),
    )


def random_rays(seed: int, count: int, reach: float = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    origins, directions = rng.uniform(-reach, reach, (count, 3)), rng.normal(size=(count, 3)) * 10 ** rng.uniform(-3, 3, (count, 1))
    origins[:, 2] *= 0.3
    straight = rng.random(count) < 0.2
    directions[straight] = np.round(directions[straight] / np.abs(directions[straight]).max(axis=1, keepdims=True))  # along axes
    return origins.astype(np.float32), directions.astype(np.float32)


def assert_same(one, other) -> None:
    """The same bits."""
    for name in one._fields:
        np.testing.assert_array_equal(np.asarray(getattr(one, name)), np.asarray(getattr(other, name)), err_msg=name)
