"""Rays against simple shapes: the first hit of each."""

import math
import numbers
from typing import Any, NamedTuple

from cuda_ops.arrays import Space, expect_rows, plain, space_of
from cuda_ops.dispatch import dispatch
from cuda_ops.primitives import Primitives

_CULLED = True  # False: every ray is tested against every primitive, for tests of the search


class Hits(NamedTuple):
    """The first hit of each ray.

    distance   (R,) float32    metres from the origin, inf where nothing was hit
    normal     (R, 3) float32  unit normal of the surface, on the side of the ray's origin; zeros in a volume and where nothing was hit
    primitive  (R,) int32      which primitive was hit, else -1
    """

    distance: Any
    normal: Any
    primitive: Any


def cast_rays(
    origins: Any,
    directions: Any,
    primitives: Primitives,
    *,
    seed: int = 0,
    min_range: float = 0.0,
    max_range: Any = math.inf,
    tree: Any = None,
) -> Hits:
    """The first hit of each ray on a table of primitives.

    origins     (R, 3) float32  metres, in the frame of the primitives
    directions  (R, 3) float32  of any length above 0: distances are metres all the same
    primitives  of the same kind and device as the rays (`Primitives.to`)
    seed        0..2^63 - 1, of the chances: each is a hash of (seed, number of the ray, number of the primitive)
    min_range   metres, 0 or more; surfaces nearer than that are not there, and volumes begin to stop rays there
    max_range   metres; hits beyond do not count. A number, or (R,) float32 with one for each ray (the distances of hits on another table:
                what is hidden is not looked for); below min_range or NaN, that ray hits nothing. Both limits belong to the range
    tree        what `ray_tree` made of the same primitives, for a table that is cast against again and again; without it, made anew
    Solids (boxes, cylinders, ellipsoids) are hit from outside only: a ray that starts in one, or enters it before min_range, leaves it
    unhindered, as a sensor under its own roof must. Planes and height fields are hit from both sides. In a volume a ray gets as far as an
    exponential free path of mean 1 / extinction; overlapping volumes each draw their own. A primitive with a pass_chance lets a ray through
    as a whole or not at all. Of hits at the same distance in float32 the lower primitive counts. A ray with a NaN or infinite number, or
    with a direction of length 0, hits nothing. Arithmetic is float64, the same bits on the CPU and a GPU, with and without a tree. Empty:
    no rows, or no hits.
    Raises ValueError for a wrong shape, dtype, device or number, and for a tree of so many or so few other primitives. Source: intervals of
    half spaces and quadrics (Kay and Kajiya 1986).
    """
    table, seed = _table_of("cast_rays", primitives), plain(seed)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise ValueError(f"cast_rays: seed: expected an integer from 0 to 2^63 - 1, got {seed!r}")
    largest, farthest = (float(max_range), None) if isinstance(max_range, numbers.Real) else (math.inf, max_range)
    if not (0 <= min_range <= largest and min_range < math.inf):
        raise ValueError(f"cast_rays: expected 0 <= min_range <= max_range in metres, got {min_range} and {max_range}")
    space_of("cast_rays", origins=origins, directions=directions, primitives=primitives.kind, tree=tree, max_range=farthest)
    return Hits(*dispatch("cast_rays", _cast_rays, origins, directions, *table, tree, farthest, seed, float(min_range), largest))


def ray_tree(primitives: Primitives) -> Any:
    """What `cast_rays` makes of a table of primitives before it looks for hits, (4 + 32 P,) int32: keep it where the table stays the same.

    Holds nothing but numbers: boxes round the primitives, four to a node, cut by the surface area heuristic (Wald 2007). It belongs to the
    table that it was made of: with another one hits are wrong. On a GPU, where every ray looks at every primitive, zeros.
    """
    return dispatch("ray_tree", _ray_tree, *_table_of("ray_tree", primitives))


def _table_of(operator: str, primitives: Primitives) -> tuple[Any, ...]:
    if not isinstance(primitives, Primitives):
        raise ValueError(f"{operator}: primitives: expected cuda_ops.Primitives, got {type(primitives).__name__}")
    p = primitives
    return (p.kind, p.center, p.size, p.yaw, p.taper, p.normal, p.pass_chance, p.extinction, p.field, p.heights)


def _ray_tree(
    kind: Any,
    center: Any,
    size: Any,
    yaw: Any,
    taper: Any,
    normal: Any,
    pass_chance: Any,
    extinction: Any,
    field: Any,
    heights: Any,
) -> Any:
    space = space_of("ray_tree", kind=kind, center=center)
    rows, table = _take_table(space, kind, center, size, yaw, taper, normal, pass_chance, extinction, field, heights)
    tree = space.empty((tree_words(rows),), "int32")
    space.call("ray_tree", *table, tree)
    return tree


def tree_words(rows: int) -> int:
    """The length of a tree for so many primitives; `cpu/rays_tree.hpp` has the same numbers."""
    return 4 + 32 * rows


def _take_table(space: Space, kind: Any, center: Any, size: Any, yaw: Any, taper: Any, normal: Any, *rest: Any) -> tuple[int, list[Any]]:
    """How many primitives there are, and what the compiled bodies take of them."""
    pass_chance, extinction, field, heights = rest
    rows = len(kind)
    table = [
        space.take("kind", kind, (rows,), "int32"),
        *[space.take(name, value, (rows, 3), "float32") for name, value in (("center", center), ("size", size))],
        space.take("yaw", yaw, (rows,), "float32"),
        *[space.take(name, value, (rows, 3), "float32") for name, value in (("taper", taper), ("normal", normal))],
        *[space.take(name, value, (rows,), "float32") for name, value in (("pass_chance", pass_chance), ("extinction", extinction))],
        space.take("field", field, (rows, 3), "int64"),
        rows,
        space.take("heights", heights, ("H",), "float32"),
        len(heights),
    ]
    return rows, table


def _cast_rays(
    origins: Any,
    directions: Any,
    kind: Any,
    center: Any,
    size: Any,
    yaw: Any,
    taper: Any,
    normal: Any,
    pass_chance: Any,
    extinction: Any,
    field: Any,
    heights: Any,
    tree: Any,
    farthest: Any,
    seed: int,
    min_range: float,
    max_range: float,
) -> tuple[Any, Any, Any]:
    space = space_of("cast_rays", origins=origins, directions=directions, kind=kind, tree=tree, max_range=farthest)
    origins = space.take("origins", origins, ("R", 3), "float32")
    rays = len(origins)
    directions = space.take("directions", directions, (rays, 3), "float32")
    expect_rows("origins", rays)
    rows, table = _take_table(space, kind, center, size, yaw, taper, normal, pass_chance, extinction, field, heights)
    if tree is not None:
        tree = space.take("tree", tree, (tree_words(rows),), "int32")
    if farthest is not None:
        farthest = space.take("max_range", farthest, (rays,), "float32")
    distance, normals, primitive = space.empty((rays,), "float32"), space.empty((rays, 3), "float32"), space.empty((rays,), "int32")
    limits = (seed, min_range, max_range, _CULLED)
    space.call("cast_rays", origins, directions, rays, *table, tree, farthest, *limits, distance, normals, primitive)
    return distance, normals, primitive
