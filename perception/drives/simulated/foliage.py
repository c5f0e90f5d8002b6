"""Crowns and bushes for the eye: each smooth volume of leaves becomes a core with clumps round it that stay within its bounds.

To a lidar a crown is a cloud of returns, and one volume gives it; to a camera its outline matters. Volumes, and what they stop, stay alike.
"""

from dataclasses import replace

import numpy as np

from cuda_ops import Kind
from perception.drives.simulated.matter import Matter

NUM_CLUMPS = 13
_SMALLEST = 0.9  # metres: what is smaller keeps its shape
_CORE = 0.72  # of the size
_DENSER = 1.5  # clumps fill a part of the volume


def with_clumps(matter: Matter, eye: np.ndarray, *, reach: float = 90.0) -> Matter:
    """The matter with the crowns within `reach` metres of `eye` (3,) in clumps. Shapes keep their order, the clumps come at the end.

    Where the clumps of a crown lie depends on its place alone.
    """
    s = matter.shapes
    is_crown = (s.kind == Kind.ELLIPSOID_VOLUME) & (s.size.min(axis=1, initial=np.inf) > _SMALLEST)
    rows = np.flatnonzero(is_crown & (np.linalg.norm(s.center - eye, axis=1) < reach))
    if not len(rows):
        return matter
    clumps = matter.taken(np.repeat(rows, NUM_CLUMPS))
    turn = (
        np.abs(s.center[rows].astype(np.float64) @ [12.9898, 78.233, 37.719])[:, None] + np.arange(NUM_CLUMPS) * 2.3999632
    )  # golden angle
    up = np.tile(np.linspace(-0.8, 0.9, NUM_CLUMPS), (len(rows), 1))
    part = 0.34 + 0.16 * np.sin(5.1 * turn)  # size of a clump, of the crown's
    flat = np.sqrt(1 - up**2)
    offset = (np.stack([flat * np.cos(turn), flat * np.sin(turn), up], axis=2) * (1 - part)[:, :, None]).reshape(-1, 3)
    offset *= clumps.shapes.size / 2
    cos, sin = np.cos(clumps.shapes.yaw), np.sin(clumps.shapes.yaw)
    x, y = offset[:, 0], offset[:, 1]
    offset = np.stack([cos * x - sin * y, sin * x + cos * y, offset[:, 2]], axis=1)
    shapes = replace(
        clumps.shapes,
        center=(clumps.shapes.center + offset).astype(np.float32),
        size=(clumps.shapes.size * part.reshape(-1, 1)).astype(np.float32),
        extinction=clumps.shapes.extinction * np.float32(_DENSER),
    )
    size = s.size.copy()
    size[rows] *= np.float32(_CORE)
    return Matter.concatenate(replace(matter, shapes=replace(s, size=size)), replace(clumps, shapes=shapes))
