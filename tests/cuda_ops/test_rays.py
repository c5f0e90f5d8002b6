"""First hits of rays: hand-worked cases, the reference loop, marching along signed distances, statistics of the chances."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuda_ops import Kind, Primitives, arrays, cast_rays, ray_tree, rays, reference
from tests.cuda_ops.ray_scenes import assert_same, random_boxes, random_rays, scene

torch = pytest.importorskip("torch")

X = np.float32([[1, 0, 0]])
ZERO = np.zeros((1, 3), np.float32)


def along_x(primitives: Primitives, y: float = 0, z: float = 0, **options):
    """Distance, normal and primitive of the ray from (0, y, z) along x."""
    hits = cast_rays(np.float32([[0, y, z]]), X, primitives, **options)
    return float(hits.distance[0]), hits.normal[0].tolist(), int(hits.primitive[0])


# ---- by hand ----

BOX = Primitives.boxes([[10, 0, 0, 2, 2, 2, 0]])


@pytest.mark.parametrize(
    ("primitives", "y", "z", "distance", "normal"),
    [
        pytest.param(BOX, 0, 0, 9, (-1, 0, 0), id="box"),
        pytest.param(BOX, 1, 1, 9, (-1, 0, 0), id="box, borders belong to it"),
        pytest.param(BOX, 1.01, 0, math.inf, (0, 0, 0), id="beside the box"),
        pytest.param(
            Primitives.boxes([[10, 0, 0, 2, 2, 2, math.pi / 4]]),
            0.5,
            0,
            10 - math.sqrt(2) + 0.5,
            (-(0.5**0.5), 0.5**0.5, 0),
            id="turned box",
        ),
        # The rear leans in half a metre per metre: at z = 0.5, 1.5 m above the bottom, it stands at 9.75.
        pytest.param(
            Primitives.boxes([[10, 0, 0, 2, 2, 2, 0]], taper=(0, 0.5, 0)),
            0,
            0.5,
            9.75,
            (-1 / 1.25**0.5, 0, 0.5 / 1.25**0.5),
            id="rear leans in",
        ),
        # The front leans out: it is the rear of a box that looks back.
        pytest.param(
            Primitives.boxes([[10, 0, 0, 2, 2, 2, math.pi]], taper=(-0.5, 0, 0)),
            0,
            0.5,
            8.25,
            (-1 / 1.25**0.5, 0, -0.5 / 1.25**0.5),
            id="front leans out",
        ),
        # Both sides leave 0.1 m of half width at z = 0.8: a ray at y = 0.2 passes.
        pytest.param(
            Primitives.boxes([[10, 0, 0, 2, 2, 2, 0]], taper=(0, 0, 0.5)), 0.2, 0.8, math.inf, (0, 0, 0), id="past a side that leans in"
        ),
        pytest.param(Primitives.cylinders([[10, 0, 0]], 2, 4), 1.2, 0, 10 - 1.6, (-0.8, 0.6, 0), id="cylinder: 1.2, 1.6, 2"),
        pytest.param(Primitives.cylinders([[10, 0, 0]], 2, 4), 0, 2.1, math.inf, (0, 0, 0), id="over the cylinder"),
        pytest.param(Primitives.ellipsoids([[10, 0, 0, 10, 10, 10, 1]]), 3, 0, 6, (-0.8, 0.6, 0), id="sphere: 3, 4, 5"),
        pytest.param(Primitives.ellipsoids([[10, 0, 0, 4, 2, 6, 0]]), 0, 0, 8, (-1, 0, 0), id="ellipsoid, along"),
        pytest.param(Primitives.ellipsoids([[10, 0, 0, 4, 2, 6, math.pi / 2]]), 0, 0, 9, (-1, 0, 0), id="ellipsoid, turned"),
        pytest.param(Primitives.planes([[7, 3, 3]], [[5, 0, 0]]), 0, 0, 7, (-1, 0, 0), id="plane, its normal turned round"),
        pytest.param(Primitives.planes([[0, 0, -1]], [[0, 0, 1]]), 0, 0, math.inf, (0, 0, 0), id="along a plane"),
        pytest.param(Primitives.planes([[-7, 0, 0]], [[1, 0, 0]]), 0, 0, math.inf, (0, 0, 0), id="plane behind"),
        # Heights rise by 1 m per metre along x from x = 5 on: z = 1 is met at x = 6.
        pytest.param(Primitives.height_field([[0, 3], [0, 3]], (5, -1, 0), (3, 4)), 0, 1, 6, (-(0.5**0.5), 0, 0.5**0.5), id="ramp"),
        pytest.param(
            Primitives.height_field([[3, 0], [3, 0]], (5, -1, 0), (3, 4)), 0, 1, 7, (-(0.5**0.5), 0, -(0.5**0.5)), id="ramp from below"
        ),
    ],
)
def test_one_ray_by_hand(primitives, y, z, distance, normal):
    found, found_normal, index = along_x(primitives, y, z)
    assert found == pytest.approx(distance, rel=2e-7)  # float32
    assert found_normal == pytest.approx(normal, abs=1e-6)
    assert index == (0 if distance < math.inf else -1)


def test_a_cell_is_cut_from_its_first_corner_to_the_opposite_one():
    # Only the corner at row 0, column 1 is high: right of the diagonal z = u - v, left of it 0. The other diagonal would give 0.15 below.
    field = Primitives.height_field([[0, 1], [0, 0]], (0, 0, 0), 1)
    hits = cast_rays(np.float32([[0.7, 0.2, 5], [0.2, 0.7, 5]]), np.float32([[0, 0, -1]] * 2), field)
    np.testing.assert_allclose(5 - hits.distance, [0.5, 0], atol=1e-6)
    np.testing.assert_allclose(hits.normal, [np.array([-1, 1, 1]) / 3**0.5, [0, 0, 1]], atol=1e-6)


def test_upright_rays():
    down = np.float32([[0, 0, -2]])
    for primitives, distance in (
        (Primitives.cylinders([[0, 0, 0]], 1, 4), 8),
        (Primitives.boxes([[0, 0, 0, 2, 2, 4, 0.3]]), 8),
        (Primitives.height_field(np.full((3, 3), 2), (-1, -1, 0), 1), 8),  # on a corner of four cells, level
    ):
        hits = cast_rays(np.float32([[0, 0, 10]]), down, primitives)
        assert hits.distance == distance
        assert hits.normal.tolist() == [[0, 0, 1]]
    assert cast_rays(np.float32([[1.5, 0, 10]]), down, Primitives.cylinders([[0, 0, 0]], 1, 4)).primitive == -1


@pytest.mark.parametrize("name", ["boxes", "ellipsoids"])
def test_solids_are_hit_from_outside_only(name):
    solid = getattr(Primitives, name)([[0, 0, 0, 4, 4, 4, 0]])
    assert along_x(solid)[0] == math.inf  # starts inside
    assert cast_rays(np.float32([[-2, 0, 0]]), X, solid).distance == 0  # starts on the surface, looks in
    assert cast_rays(np.float32([[2, 0, 0]]), X, solid).primitive == -1  # starts on the surface, looks out
    behind = Primitives.concatenate(solid, BOX)
    assert along_x(behind)[::2] == (9, 1)


@pytest.mark.parametrize("up", [1, -1])
def test_a_ray_that_starts_on_a_surface_hits_it(up):
    for surface in (Primitives.planes([[0, 0, 0]], [[0, 0, 1]]), Primitives.height_field(np.zeros((3, 3)), (-1.2, -1.2, 0), 1)):
        hits = cast_rays(ZERO, np.float32([[0.1, 0.2, up]]), surface)
        assert (hits.primitive[0], str(hits.distance[0])) == (0, "0.0")  # not -0.0


def test_range_limits():
    two = Primitives.concatenate(BOX, Primitives.planes([[20, 0, 0]], [[1, 0, 0]]))
    assert along_x(two, min_range=9, max_range=9)[::2] == (9, 0)  # both limits belong to the range
    assert along_x(two, min_range=9.1)[::2] == (20, 1)  # the far side of the box does not count
    assert along_x(two, max_range=8.9)[::2] == (math.inf, -1)


@pytest.mark.parametrize("order", [1, -1])
def test_the_lower_primitive_wins_ties(order):
    parts = [BOX, Primitives.planes([[9, 0, 0]], [[1, 0, 0]]), Primitives.height_field([[-5, 5], [-5, 5]], (4, -5, 0), 10)][::order]
    primitives = Primitives.concatenate(*parts)
    kinds = [Kind(k) for k in primitives.kind]
    distance, _, index = along_x(primitives)
    assert (distance, index) == (9, 0), kinds


def test_directions_of_any_length():
    origins, directions = random_rays(0, 200)
    unit = (directions / np.linalg.norm(directions, axis=1, keepdims=True)).astype(np.float32)
    long, short = cast_rays(origins, directions * np.float32(2**20), scene(0)), cast_rays(origins, unit, scene(0))
    assert (long.primitive == short.primitive).mean() > 0.98  # unit vectors are rounded, so edges may move
    is_same = long.primitive == short.primitive
    np.testing.assert_allclose(long.distance[is_same], short.distance[is_same], rtol=1e-4)


def test_rays_that_are_none():
    origins, directions = np.zeros((5, 3), np.float32), np.tile(X, (5, 1))
    origins[0, 2], origins[1, 0], directions[2, 1], directions[3, 1], directions[4] = np.nan, np.inf, np.nan, np.inf, 0
    hits = cast_rays(origins, directions, Primitives.concatenate(BOX, scene(0)))
    assert (hits.primitive == -1).all()
    assert np.isinf(hits.distance).all()
    assert not hits.normal.any()


def test_rays_from_the_end_of_the_world_come_to_an_end():
    origins = np.float32([[-1e30, 1e30, 1e29], [1e38, 0, 0], [-3e7, 0, 50]])
    directions = np.float32([[1, -1, -0.1], [-1, 1e-9, 0], [3e7, 0.0, -50]])
    hits = cast_rays(origins, directions, Primitives.concatenate(scene(0), BOX))
    assert np.isfinite(hits.normal).all()


def test_empty():
    none = Primitives.concatenate()
    assert len(none) == 0
    assert along_x(none) == (math.inf, [0, 0, 0], -1)
    hits = cast_rays(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32), scene(0))
    assert [part.shape for part in hits] == [(0,), (0, 3), (0,)]


# ---- against other ways ----


@settings(deadline=None)  # tests everything: slow where the machine is busy
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.5, 4.0]), st.sampled_from([math.inf, 9.0, np.arange(1, 13, dtype=np.float32)]))
def test_hits_are_those_of_the_reference(seed, min_range, max_range):
    origins, directions = random_rays(seed, 12)
    options = {"seed": seed, "min_range": min_range, "max_range": max_range}
    ours, theirs = (cast(origins, directions, scene(seed), **options) for cast in (cast_rays, reference.cast_rays))
    np.testing.assert_array_equal(ours.primitive, theirs.primitive)
    np.testing.assert_allclose(ours.distance, theirs.distance, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(ours.normal, theirs.normal, atol=1e-5)


def brute(*arguments, **options):
    """Without the search."""
    before = rays._CULLED
    try:
        rays._CULLED = False
        return cast_rays(*arguments, **options)
    finally:
        rays._CULLED = before


@settings(deadline=None)  # tests everything: slow where the machine is busy
@given(st.integers(0, 10**6), st.sampled_from([1, 3, 40, 150]), st.sampled_from([0.1, 1.0, 30.0, 1e5, 1e9, 1e14, 1e30]))
def test_the_search_finds_what_testing_everything_finds(seed, each, spread):
    rng = np.random.default_rng(seed)
    parts = Primitives.boxes(random_boxes(rng, each, spread), taper=(0.1, -0.2, 0.1), pass_chance=0.3)
    primitives = Primitives.concatenate(scene(seed, 4), parts)
    origins, directions = random_rays(seed, 300, spread)
    directions[:150, 2] *= 0.01  # most fly low
    directions[100:200] = -origins[100:200] / np.abs(origins[100:200]).max(axis=1, keepdims=True)  # from far away into the scene
    # Rays along borders of cells: from one primitive's corner to another's, and upright.
    origins[:20, :2], directions[:20] = parts.center[0, :2], np.float32([0, 0, -1])
    assert_same(cast_rays(origins, directions, primitives, seed=seed), brute(origins, directions, primitives, seed=seed))


@pytest.mark.parametrize("each", [0, 1, 2, 3, 40])
def test_a_kept_tree_changes_nothing(each):
    primitives, (origins, directions) = scene(each, each), random_rays(each, 500)
    tree = ray_tree(primitives)
    assert (tree.shape, tree.dtype) == ((4 + 32 * len(primitives),), np.int32)
    for seed in (0, 1):
        plain = cast_rays(origins, directions, primitives, seed=seed)
        assert_same(cast_rays(origins, directions, primitives, seed=seed, tree=tree), plain)


def test_a_tree_of_things_in_one_place():
    one = np.array([[10, 0, 0, 2, 2, 2, 0.0]])
    same = Primitives.boxes(np.repeat(one, 500, axis=0))  # no cut parts them
    assert along_x(same)[::2] == (9, 0)
    spread = Primitives.boxes(np.column_stack([10 * 1.3 ** np.arange(240), *np.zeros((2, 240)), *np.full((3, 240), 0.5), np.zeros(240)]))
    assert along_x(spread, min_range=1e9)[2] == int(np.flatnonzero(spread.center[:, 0] - 0.25 >= 1e9)[0])  # cuts take off one at a time


def test_each_ray_has_its_own_largest_range():
    primitives, (origins, directions) = scene(5, 20), random_rays(5, 2000)
    whole = cast_rays(origins, directions, primitives, seed=5)
    limit = whole.distance * np.resize(np.float32([0.5, 1, 2, np.nan, -1, np.inf]), 2000)
    cut = cast_rays(origins, directions, primitives, seed=5, max_range=limit)
    is_in_reach = whole.distance <= limit
    assert 300 < is_in_reach.sum() < 1700
    np.testing.assert_array_equal(cut.primitive, np.where(is_in_reach, whole.primitive, -1))
    np.testing.assert_array_equal(cut.distance, np.where(is_in_reach, whole.distance, np.inf))
    np.testing.assert_array_equal(cut.normal, np.where(is_in_reach[:, None], whole.normal, 0))
    with pytest.raises(ValueError, match=r"max_range: expected shape \(2000,\), got \(3,\)"):
        cast_rays(origins, directions, primitives, max_range=limit[:3])
    with pytest.raises(ValueError, match="max_range: expected dtype float32, got float64"):
        cast_rays(origins, directions, primitives, max_range=limit.astype(float))


def test_two_tables_one_after_the_other_are_one_table():
    one, other, (origins, directions) = scene(6, 10, chances=False), scene(7, 10, chances=False), random_rays(6, 1000)
    first = cast_rays(origins, directions, one)
    second = cast_rays(origins, directions, other, max_range=first.distance)
    is_second = (second.primitive >= 0) & (second.distance < first.distance)
    both = cast_rays(origins, directions, Primitives.concatenate(one, other))
    np.testing.assert_array_equal(np.where(is_second, second.distance, first.distance), both.distance)
    np.testing.assert_array_equal(np.where(is_second, second.primitive + len(one), first.primitive), both.primitive)


@pytest.mark.skipif("NVIDIA" in (arrays._cpu.__doc__ or ""), reason="the CUDA bodies have no tree")
@pytest.mark.parametrize(
    ("word", "value"),
    [
        pytest.param(0, 99, id="number of nodes"),
        pytest.param(1, -1, id="number of primitives apart"),
        pytest.param(4 + 24, 0, id="a node that is its own child"),
        pytest.param(4 + 24, 98, id="a node that is not there"),
        pytest.param(4 + 24, -99, id="a primitive that is not there"),
        pytest.param(4 + 28 * 18, 18, id="a primitive apart that is not there"),
    ],
)
def test_a_tree_that_leads_nowhere_is_refused(word, value):
    primitives = scene(8)
    tree = ray_tree(primitives)
    assert (len(primitives), tree[1] > 0) == (18, True)
    tree[word] = value
    with pytest.raises(ValueError, match=r"tree: expected what cuda_ops[.]ray_tree made of this table, got other numbers"):
        cast_rays(ZERO, X, primitives, tree=tree)
    with pytest.raises(ValueError, match=r"tree: expected shape \(580,\), got \(548,\)"):
        cast_rays(ZERO, X, primitives, tree=tree[:-32])


def test_a_primitive_far_away_is_found():
    far = Primitives.concatenate(*[Primitives.boxes([[x, 0, 0, 2, 2, 2, 0]]) for x in (10, 12, 14, 16, 1e6, -1e6, 3e8)])
    assert along_x(far, min_range=20)[::2] == (999_999, 4)
    assert cast_rays(ZERO, -X, far).primitive == 5
    assert along_x(far, min_range=2e6)[2] == 6
    assert cast_rays(np.float32([[-1e9, 0, 0]]), X, far).primitive == 5


def signed_distance(box: np.ndarray, kind: Kind, points: np.ndarray) -> np.ndarray:
    """A lower bound of the distance from points to a shape without taper, below 0 inside."""
    c, s = np.cos(box[6]), np.sin(box[6])
    local = (points - box[:3]) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    half = box[3:6] / 2
    if kind == Kind.ELLIPSOID:
        return (np.linalg.norm(local / half, axis=1) - 1) * half.min()
    if kind == Kind.CYLINDER:
        return np.maximum(np.linalg.norm(local[:, :2], axis=1) - half[0], np.abs(local[:, 2]) - half[2])
    return (np.abs(local) - half).max(axis=1)


@pytest.mark.parametrize("kind", [Kind.BOX, Kind.CYLINDER, Kind.ELLIPSOID])
def test_marching_along_signed_distances_gives_the_same(kind):
    rng = np.random.default_rng(int(kind))
    boxes = random_boxes(rng, 12)
    if kind == Kind.CYLINDER:
        boxes[:, 4], boxes[:, 6] = boxes[:, 3], 0
        primitives = Primitives.cylinders(boxes[:, :3], boxes[:, 3] / 2, boxes[:, 5])
    else:
        primitives = (Primitives.boxes if kind == Kind.BOX else Primitives.ellipsoids)(boxes)
    origins, directions = random_rays(int(kind), 1000)
    boxes = np.column_stack([primitives.center, primitives.size, primitives.yaw]).astype(float)
    is_outside = np.all([signed_distance(box, kind, origins) > 0.01 for box in boxes], axis=0)
    origins, directions = origins[is_outside].astype(float), directions[is_outside]
    unit = directions / np.linalg.norm(directions.astype(float), axis=1, keepdims=True)
    distance = np.zeros(len(origins))
    for _ in range(600):
        step = np.min([signed_distance(box, kind, origins + distance[:, None] * unit) for box in boxes], axis=0)
        distance = np.where(distance < 60, distance + np.maximum(step, 0), np.inf)
        distance = np.where(np.isfinite(distance), distance, 1e3)
    hits = cast_rays(origins.astype(np.float32), directions, primitives)
    is_hit = hits.primitive >= 0
    assert is_hit.sum() > 50
    assert (is_hit == (distance < 60)).mean() > 0.995  # marching creeps where a ray only just misses
    clear = is_hit & (distance < 60) & (np.abs((hits.normal * unit).sum(axis=1)) > 0.05)
    np.testing.assert_allclose(hits.distance[clear], distance[clear], atol=1e-3)


@given(st.integers(0, 10**6))
def test_moving_and_turning_the_world_keeps_the_hits(seed):
    rng = np.random.default_rng(seed)
    primitives, (origins, directions) = scene(seed), random_rays(seed, 60)
    yaw, shift = rng.uniform(-3, 3), rng.uniform(-50, 50, 3)
    turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])

    def moved(points, offset):
        return (points @ turn.T + offset).astype(np.float32)

    columns = {name: getattr(primitives, name) for name in Primitives.__dataclass_fields__}
    columns["center"], columns["normal"] = moved(primitives.center, shift), moved(primitives.normal, 0)
    columns["yaw"] = (primitives.yaw + yaw).astype(np.float32)
    options = {"seed": seed, "max_range": 1e3}  # rays along a plane may meet it at the end of the world
    one = cast_rays(origins, directions, primitives, **options)
    other = cast_rays(moved(origins, shift), moved(directions, 0), Primitives(**columns), **options)
    is_same = one.primitive == other.primitive
    assert is_same.mean() >= 0.95  # float32 coordinates: a ray that grazes an edge may miss it
    is_same &= np.abs((one.normal * directions).sum(axis=1)) > 0.05 * np.linalg.norm(directions, axis=1)
    np.testing.assert_allclose(one.distance[is_same], other.distance[is_same], rtol=1e-4, atol=2e-3)
    np.testing.assert_allclose(moved(one.normal, 0)[is_same], other.normal[is_same], atol=5e-3)


@given(st.integers(0, 10**6))
def test_the_order_of_primitives_does_not_matter(seed):
    primitives, (origins, directions) = scene(seed, chances=False), random_rays(seed, 80)
    order = np.random.default_rng(seed).permutation(len(primitives))
    columns = {name: getattr(primitives, name)[order] for name in Primitives.__dataclass_fields__ if name != "heights"}
    one, other = (cast_rays(origins, directions, p) for p in (primitives, Primitives(**columns, heights=primitives.heights)))
    np.testing.assert_array_equal(one.distance, other.distance)
    assert (one.primitive == np.append(order, -1)[other.primitive]).mean() > 0.98  # but for ties


# ---- chances ----


@pytest.mark.parametrize("pass_chance", [0.0, 0.25, 0.9, 1.0])
def test_rays_pass_as_often_as_the_chance_says(pass_chance):
    count = 40_000
    origins, directions = np.zeros((count, 3), np.float32), np.tile(X, (count, 1))
    primitives = Primitives.concatenate(*[Primitives.boxes([[x, 0, 0, 1, 1, 1, 0]], pass_chance=pass_chance) for x in (10, 5)])
    hits = cast_rays(origins, directions, primitives, seed=3)
    shares = [np.mean(hits.primitive == 1), np.mean(hits.primitive == 0)]
    expected = [1 - pass_chance, pass_chance * (1 - pass_chance)]  # independent of each other
    assert shares == pytest.approx(expected, abs=4 * 0.5 / count**0.5)  # four standard deviations
    other = cast_rays(origins, directions, primitives, seed=4)
    if 0 < pass_chance < 1:
        both = np.mean((hits.primitive == 1) & (other.primitive == 1))
        assert both == pytest.approx((1 - pass_chance) ** 2, abs=4 * 0.5 / count**0.5)  # seeds are independent


@pytest.mark.parametrize("shape", ["box", "ellipsoid"])
@pytest.mark.parametrize("extinction", [0.0, 0.2, 3.0])
def test_volumes_let_through_what_their_extinction_says(shape, extinction):
    count, length = 40_000, 4.0
    volume = Primitives.volumes([[7, 0, 0, length, 2, 2, 0]], extinction, shape=shape)
    hits = cast_rays(np.zeros((count, 3), np.float32), np.tile(X, (count, 1)), volume, seed=11)
    is_hit = hits.primitive == 0
    assert np.mean(~is_hit) == pytest.approx(math.exp(-extinction * length), abs=4 * 0.5 / count**0.5)
    assert not hits.normal.any()
    depth = hits.distance[is_hit] - 5
    if extinction:
        assert depth.min() >= 0
        assert depth.max() <= length
        for part in (0.5, 1.0, 2.0):  # the whole distribution, not only its mean
            assert np.sum(depth > part) / count == pytest.approx(math.exp(-extinction * part) - math.exp(-extinction * length), abs=0.011)


def test_the_mean_free_path_is_one_over_the_extinction():
    count = 100_000
    volume = Primitives.volumes([[0, 0, 0, 1e4, 1e4, 1e4, 0]], 0.25, shape="box")
    directions = np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32)
    hits = cast_rays(np.zeros((count, 3), np.float32), directions, volume)
    assert hits.distance.mean() == pytest.approx(4, rel=4 / count**0.5)
    late = cast_rays(np.zeros((count, 3), np.float32), directions, volume, min_range=50)  # begins to stop rays there
    np.testing.assert_allclose(late.distance, hits.distance + 50, rtol=1e-6)


def test_a_chance_belongs_to_its_ray_and_primitive():
    origins, directions = random_rays(1, 500)
    whole = cast_rays(origins, directions, scene(1), seed=9)
    assert_same(cast_rays(origins[:200], directions[:200], scene(1), seed=9), type(whole)(*[part[:200] for part in whole]))
    assert not np.array_equal(cast_rays(origins, directions, scene(1), seed=10).primitive, whole.primitive)
    cast_rays(origins, directions, scene(1), seed=2**63 - 1)


# ---- arrays ----


@pytest.mark.parametrize("threads", [2, 8])
def test_results_do_not_depend_on_the_number_of_threads(threads):
    (origins, directions), primitives = random_rays(2, 20_000), scene(2, 30)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = cast_rays(origins, directions, primitives)
        torch.set_num_threads(threads)
        assert_same(one, cast_rays(origins, directions, primitives))
    finally:
        torch.set_num_threads(before)


def test_tensors_give_tensors_with_the_same_bits():
    (origins, directions), primitives = random_rays(3, 500), scene(3)
    tensors = cast_rays(torch.from_numpy(origins), torch.from_numpy(directions), primitives.to("cpu"), seed=1)
    assert all(isinstance(part, torch.Tensor) for part in tensors)
    assert_same(tensors, cast_rays(origins, directions, primitives, seed=1))


def test_arrays_that_are_not_contiguous():
    origins, directions = random_rays(4, 300)
    assert_same(cast_rays(origins[::2], directions[::2], scene(4)), cast_rays(origins[::2].copy(), directions[::2].copy(), scene(4)))
    assert_same(cast_rays(np.asfortranarray(origins), directions, scene(4)), cast_rays(origins, directions, scene(4)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(lambda: cast_rays(np.zeros((2, 3)), ZERO, BOX), "origins: expected dtype float32, got float64", id="origins, dtype"),
        pytest.param(
            lambda: cast_rays(ZERO[:, :2], ZERO, BOX),
            r"origins: expected shape \(any, 3\), got \(1, 2\)|origins: expected shape",
            id="origins, shape",
        ),
        pytest.param(
            lambda: cast_rays(ZERO, np.zeros((2, 3), np.float32), BOX),
            r"directions: expected shape \(1, 3\), got \(2, 3\)",
            id="directions",
        ),
        pytest.param(lambda: cast_rays(ZERO, X, ZERO), "primitives: expected cuda_ops.Primitives, got ndarray", id="primitives"),
        pytest.param(
            lambda: cast_rays(torch.zeros(1, 3), torch.zeros(1, 3), BOX), "primitives: expected a torch tensor .*got ndarray", id="mixed"
        ),
        pytest.param(lambda: cast_rays(ZERO, X, BOX, seed=-1), "seed: expected an integer .*got -1", id="seed"),
        pytest.param(
            lambda: cast_rays(ZERO, X, BOX, min_range=3, max_range=2), "expected 0 <= min_range <= max_range .*got 3 and 2", id="ranges"
        ),
        pytest.param(
            lambda: cast_rays(ZERO, X, BOX, max_range=math.nan), "expected 0 <= min_range <= max_range .*got 0.0 and nan", id="NaN range"
        ),
    ],
)
def test_errors_say_expected_and_got(call, message):
    with pytest.raises(ValueError, match=message):
        call()
