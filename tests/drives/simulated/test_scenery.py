"""Scenery against the routes of vehicles and people, and a sweep over it against the figures of a real one."""

import numpy as np
import pytest

from cuda_ops import Kind
from perception.core import UsageError
from perception.drives.simulated.matter import SCENERY, Matter
from perception.drives.simulated.pile import Frontage, Pile
from perception.drives.simulated.plans import draw_plan, usual_plan
from perception.drives.simulated.roads import Roadside
from perception.drives.simulated.routes import Route
from perception.drives.simulated.scenery import build_scenery
from perception.drives.simulated.streetware import PLACED
from perception.drives.simulated.terrain import Terrain
from tests.drives.simulated.cloud_shares import real_sweep, shares, simulated_shares
from tests.drives.simulated.test_routes import vehicle_routes, walks

USUAL = usual_plan()


def scene(seed: int, **options) -> tuple[Terrain, Matter]:
    rng = np.random.default_rng(seed)
    terrain = Terrain.draw(rng, draw_plan(rng))
    return terrain, build_scenery(rng, terrain, **options)


def is_inside_any(points: np.ndarray, matter: Matter) -> np.ndarray:
    """(N,) bool: whether the box about any shape holds the point (leaning faces and round corners not taken off)."""
    s, inside = matter.shapes, np.zeros(len(points), bool)
    order = np.argsort(points[:, 0])
    points = points[order]
    reach = np.hypot(s.size[:, 0], s.size[:, 1]) / 2
    first, last = (np.searchsorted(points[:, 0], s.center[:, 0] + sign * reach) for sign in (-1, 1))
    for a, b, center, size, yaw in zip(first, last, s.center, s.size, s.yaw, strict=True):
        d = points[a:b] - center
        along, across = np.cos(yaw) * d[:, 0] + np.sin(yaw) * d[:, 1], np.cos(yaw) * d[:, 1] - np.sin(yaw) * d[:, 0]
        inside[order[a:b]] |= (np.abs(along) < size[0] / 2) & (np.abs(across) < size[1] / 2) & (np.abs(d[:, 2]) < size[2] / 2)
    return inside


def room_of(route: Route, terrain: Terrain, half_width: float, heights: tuple[float, ...]) -> np.ndarray:
    """Points (N, 3) of the room that somebody on a route needs, every 30 cm as far as 110 m from the middle."""
    x, y, yaw = route.path.pose(np.arange(-130, 160, 0.3))
    near = np.maximum(np.abs(x), np.abs(y)) < 110
    x, y, yaw = x[near], y[near], yaw[near]
    columns = []
    for side in (-half_width, 0.0, half_width):
        px, py = x - side * np.sin(yaw), y + side * np.cos(yaw)
        ground = terrain.height(px, py)
        columns += [np.stack([px, py, ground + h], axis=1) for h in heights]
    return np.concatenate(columns)


# name -> least and largest height, and largest width across its narrow side, in metres: of the things that are easily taken for others
NARROW = {"posts": (0.6, 3.0, 0.5), "pillar": (1.0, 2.6, 0.7), "board": (1.75, 2.45, 0.15), "bed": (0.4, 2.3, 3.2), "step": (0.1, 0.8, 2.0)}


@pytest.mark.parametrize("name", PLACED)
def test_street_furniture_stands_on_the_ground_and_has_its_size(name):
    rng, side = np.random.default_rng(5), Frontage.of(Roadside(USUAL, 0, 1), 40.0)
    for _ in range(50):
        pile = Pile()
        PLACED[name][0](pile, side, 40.0, sum(side.furniture) / 2, rng)
        rows = np.array(pile.rows)
        z, size, thing = rows[:, 3], rows[:, 4:7], rows[:, -1]
        assert (size > 0).all()
        for number in range(len(pile.things)):
            own = thing == number
            top = (z + size[:, 2])[own].max()
            assert z[own].min() <= 0.1
            assert top < 3.3
            if name in NARROW:
                least, most, width = NARROW[name]
                assert least <= top <= most
                assert size[own, :2].min(axis=1).max() <= width


@pytest.mark.parametrize("seed", range(8))
def test_nothing_stands_in_the_way(seed):
    terrain, scenery = scene(seed)
    plan = terrain.plan
    vehicles = np.concatenate([room_of(route, terrain, 1.3, (0.1, 1.0, 2.0, 3.0, 3.9)) for *_, route in vehicle_routes(plan)])
    people = np.concatenate([room_of(route, terrain, 0.35, (0.1, 0.7, 1.4, 2.1)) for route in walks(plan)])
    assert not is_inside_any(vehicles, scenery).any()
    assert not is_inside_any(people, scenery).any()


@pytest.mark.parametrize("seed", range(4, 8))
def test_nothing_stands_on_a_parking_strip(seed):
    terrain, scenery = scene(seed)
    plan = terrain.plan
    for arm in plan.arms:
        for sign in (-1, 1):
            section = plan.section(arm, sign)
            offsets = np.arange(section.parking_begins, section.kerb, 0.2)
            along, across, z = np.meshgrid(np.arange(plan.stop(arm) + 2, 110, 0.25), offsets, (0.1, 1.0, 2.0, 3.0, 3.9))
            x, y, _ = plan.at(arm, along.ravel(), sign * across.ravel())
            assert not is_inside_any(np.column_stack([x, y, terrain.height(x, y) + z.ravel()]), scenery).any()


def test_what_blocks_the_way_goes_as_a_whole():
    def put(x: float, y: float) -> int:
        pile = Pile()
        pile.begin(x, y)
        pile.pole(x, y, 0.0, 0.1, 3.0, reading=20.0)
        pile.box(x + 0.3, y, 3.0, (0.2, 0.2, 0.2), reading=20.0)
        return len(pile.matter(USUAL, Terrain.level().height, np.zeros((0, 3))))

    assert put(-30.0, -12.5) == 2  # between kerb and walking band
    assert put(-30.0, -5.0) == 0  # a lane
    assert put(-30.0, -14.5) == 0  # the walking band
    assert put(-30.0, -17.35 - 0.5) == 2
    assert put(-15.0, -12.5) == 0  # people go straight on over the other road
    assert put(-60.0, -12.5) == 0  # the kerb of the zebra crossing
    assert put(-12.5, -60.0) == 2  # the other road has none


def test_overhanging_things_need_clearance():
    def put(z: float, y: float) -> int:
        pile = Pile()
        pile.begin(-30.0, y)
        pile.box(-30.0, y, z, (2.0, 1.0, 1.0), reading=20.0)
        return len(pile.matter(USUAL, Terrain.level().height, np.zeros((0, 3))))

    assert [put(z, -5.0) for z in (2.6, 4.1, 4.3)] == [0, 0, 1]
    assert [put(z, -15.0) for z in (2.4, 2.6, 4.3)] == [0, 1, 1]


def test_the_parts_of_a_thing_share_the_ground_at_its_foot():
    pile = Pile()
    pile.begin(-30.0, -20.0)
    pile.pole(-30.0, -20.0, -0.5, 0.1, 4.5, reading=20.0)
    pile.box(-30.0, -22.0, 3.0, (0.2, 0.2, 0.6), reading=20.0)
    matter = pile.matter(USUAL, lambda x, y: 0.0 * x + 0.1 * y, np.zeros((0, 3)))
    # the ground is at -2 m: the pole from -2.5 to 2 m, the box from 1 to 1.6 m
    np.testing.assert_allclose(matter.shapes.center[:, 2], [-0.25, 1.3], atol=1e-6)


def test_places_can_be_kept_clear():
    _, scenery = scene(6)
    low = scenery.shapes.center[:, 2] - scenery.shapes.size[:, 2] / 2
    at = scenery.shapes.center[(scenery.shapes.kind == Kind.CYLINDER) & (low < 2)][:3]
    circles = np.column_stack([at[:, :2], np.full(3, 1.5)])
    terrain, cleared = scene(6, keep_clear=circles)
    points = np.concatenate([[(x, y, float(terrain.height(x, y)) + z) for z in (0.2, 1.0, 2.0)] for x, y, _ in circles])
    assert is_inside_any(points, scenery).any()
    assert not is_inside_any(points, cleared).any()
    assert len(cleared) > len(scenery) - 60


def test_a_scene_depends_on_its_generator_only():
    (_, one), (_, same), (_, other) = scene(1), scene(1), scene(2)
    np.testing.assert_array_equal(one.shapes.center, same.shapes.center)
    np.testing.assert_array_equal(one.reflectivity, same.reflectivity)
    assert one.shapes.center.shape != other.shapes.center.shape or not np.array_equal(one.shapes.center, other.shapes.center)


def test_a_scene_is_full_of_all_kinds_and_has_no_owner():
    counts = []
    for seed in range(12):
        _, scenery = scene(seed)
        counts.append(len(scenery))
        assert {Kind.BOX, Kind.CYLINDER, Kind.ELLIPSOID_VOLUME, Kind.BOX_VOLUME} <= set(scenery.shapes.kind.tolist())
        assert (scenery.owner == SCENERY).all()
        assert ((scenery.reflectivity >= 4) & (scenery.reflectivity <= 250)).all()
        assert np.abs(scenery.shapes.center[:, :2]).max() < 160
        is_leaf = np.isin(scenery.shapes.kind, (Kind.ELLIPSOID_VOLUME, Kind.BOX_VOLUME))
        assert (scenery.shapes.extinction[is_leaf] > 0.1).all()
    assert min(counts) > 350  # one road has half of the fronts of two
    assert 600 < np.mean(counts) < 1000


def test_density_adds_things():
    counts = [np.mean([len(scene(seed, density=density)[1]) for seed in range(4)]) for density in (0.4, 1.0, 2.0)]
    assert counts[0] < counts[1] < counts[2]


@pytest.mark.parametrize("options", [{"density": 0.0}, {"radius": -1.0}])
def test_impossible_options_are_refused(options):
    with pytest.raises(UsageError, match="expected density > 0 and radius > 0, got"):
        scene(0, **options)


# One real sweep of an HDL-32E (nuScenes scene-0061), own returns taken off. It has 69 objects in it, with 3 % of its returns.
REAL_RANGE = np.array([14219, 6555, 2605, 1439, 822, 389, 395, 127])  # 0 - 10 m, 10 - 20, ..., 70 - 80
REAL_ABOVE_3M = np.array([19.9, 44.5, 57.9, 77.9])  # %, at 10 - 20, 20 - 30, 30 - 50, beyond
REAL_MISSING = np.array([12, 15, 26, 33, 33, 29, 27, 28, 35, 37, 38, 42])  # %, rings 20 - 31


def test_a_sweep_over_scenery_resembles_a_real_one():
    got = simulated_shares(range(6), 3)

    def ratio(mine: np.ndarray, real: np.ndarray) -> np.ndarray:
        return np.maximum(mine / real, real / mine)

    # within a factor 1.5 on average; single figures of so few places scatter a little more
    by_range = got["range"][:16].reshape(8, 2).sum(axis=1)
    assert np.delete(ratio(by_range, REAL_RANGE), 6).max() < 1.5, by_range
    assert ratio(by_range, REAL_RANGE)[6] < 2.5, by_range  # that street has a wall at 62 m
    assert np.median(ratio(by_range, REAL_RANGE)) < 1.3
    # at 10 - 20 m simulated streets are wider than that real one
    assert ratio(got["above3"], REAL_ABOVE_3M)[1:].max() < 1.5, got["above3"]
    assert got["above3"][0] > 6
    assert np.median(ratio(got["missing"][20:], REAL_MISSING)) < 1.5, got["missing"]
    assert got["missing"][3:16].max() < 3
    # the ground without any traffic: more than the real 52 %
    assert 50 < got["ground"][0] < 75
    assert ratio(got["ground"][4], 8.6) < 1.9
    # facades and hedges are smooth nearby, far things are ragged
    assert ratio(got["step<5cm"][0], 61.3) < 1.4
    assert got["step>0.5m"][0] < got["step>0.5m"][1] < got["step>0.5m"][2]
    ground = got["ground intensity"].reshape(-1, 3)
    assert ratio(ground[:4, 1], np.array([11, 8, 5, 8])).max() < 1.8, ground


@pytest.mark.shared
def test_the_measure_gives_the_figures_recorded_for_the_real_sweep(shared):
    (path,) = (shared / "data/nuscenes-frame/samples/LIDAR_TOP").glob("*.bin")
    real = shares(real_sweep(path))
    np.testing.assert_array_equal(real["range"][:16].reshape(8, 2).sum(axis=1), REAL_RANGE)
    np.testing.assert_allclose(real["above3"], REAL_ABOVE_3M, atol=0.05)
    np.testing.assert_allclose(real["missing"][20:], REAL_MISSING, atol=1)
