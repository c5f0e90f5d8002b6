"""The ground against the plan of `roads`, slopes known in advance, and rays cast straight down."""

import numpy as np
import pytest

from cuda_ops import cast_rays
from perception.drives.simulated.pavement import TILE
from perception.drives.simulated.plans import draw_plan, usual_plan
from perception.drives.simulated.roads import KERB_HEIGHT, CrossSection
from perception.drives.simulated.terrain import MAX_SLOPE, RAMP, Terrain

SEEDS = range(4)
USUAL = usual_plan()
KERB = 11.5  # metres from the centre lines of the usual plan


def drawn(seed: int, *, usual: bool = False) -> Terrain:
    rng = np.random.default_rng(seed)
    return Terrain.draw(rng, USUAL if usual else draw_plan(rng))


def slope(gradient_x: float, gradient_y: float) -> Terrain:
    """A plane around the crossing, without crown and kerbs: waves so long that only their middle is used."""
    k, level = 1e-5, Terrain.level()
    waves = np.array([[gradient_x / k, k, 0.0, 0.0], [gradient_y / k, 0.0, k, 0.0]])
    rest = (level.bank, level.roughness, level.lattice, level.surfaces)
    return Terrain(USUAL, waves, 0.0, 0.0, 0.0, *rest)


def test_the_level_terrain_is_the_flat_street():
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-150, 150, (2, 2000))
    off = np.minimum(np.abs(x), np.abs(y)) - KERB
    away = ((off < 0) | (off > RAMP)) & (np.maximum(np.abs(x), np.abs(y)) > KERB + 3)  # but for the round corners
    np.testing.assert_allclose(Terrain.level().height(x, y)[away], np.where(off > 0, KERB_HEIGHT, 0.0)[away])


@pytest.mark.parametrize("seed", SEEDS)
def test_kerbs_rise_where_the_plan_has_them(seed):
    terrain = drawn(seed)
    plan = terrain.plan
    assert 0.05 <= terrain.kerb_height <= 0.2
    for arm in plan.arms:
        for sign in (-1, 1):
            along, kerb = np.linspace(plan.stop(arm) + 1, 150, 200), plan.section(arm, sign).kerb
            heights = [terrain.height(*plan.at(arm, along, sign * (kerb + beyond))[:2]) for beyond in (-RAMP, 0, RAMP, 2 * RAMP)]
            steps = np.diff(heights, axis=0)
            # crown, hills and the sidewalk's rise change by at most 8 % of 0.15 m
            assert np.abs(steps[0]).max() < 0.012
            assert np.abs(steps[1] - terrain.kerb_height).max() < 0.012
            assert np.abs(steps[2]).max() < 0.012


@pytest.mark.parametrize("seed", SEEDS)
def test_the_ground_is_continuous_and_roads_are_smooth(seed):
    rng = np.random.default_rng(seed)
    terrain = drawn(seed)
    x, y = rng.uniform(-150, 150, (2, 20_000))
    # half of them on the main road
    x[:10_000], y[:10_000], _ = terrain.plan.at(0, rng.uniform(0, 150, 10_000), rng.uniform(-6, 6, 10_000))
    angle, step = rng.uniform(-np.pi, np.pi, 20_000), 1e-3
    there = x + step * np.cos(angle), y + step * np.sin(angle)
    steepness = np.abs(terrain.height(*there) - terrain.height(x, y)) / step
    kerb = terrain.kerb_height / RAMP + terrain.rise
    assert steepness.max() < kerb + 0.8  # hills, bank and bumps together
    is_road = CrossSection.of(terrain.plan, x, y).from_kerb < -0.01  # both ends of the step must be off the kerbs
    assert steepness[is_road].max() < MAX_SLOPE + terrain.crown + 1e-6


def test_roads_fall_towards_the_kerb():
    level = Terrain.level()
    crowned = Terrain(USUAL, level.waves, 0.02, 0.1, 0.0, level.bank, level.roughness, level.lattice, level.surfaces)
    assert crowned.height(-50.0, 0.0) == 0.0
    assert crowned.height(-50.0, 11.0) == pytest.approx(-0.02 * (np.sqrt(122.0) - 1))
    assert crowned.height(-50.0, 15.0) == pytest.approx(0.1 - 0.02 * (np.sqrt(11.5**2 + 1) - 1))  # the sidewalk keeps the kerb's level


@pytest.mark.parametrize(
    ("yaw", "pitch", "roll"),
    [
        pytest.param(0.0, -np.arctan(0.03), 0.0, id="uphill, nose up"),
        pytest.param(np.pi, np.arctan(0.03), 0.0, id="downhill, nose down"),
        pytest.param(np.pi / 2, 0.0, -np.arctan(0.03), id="uphill to the right, left side down"),
        pytest.param(-np.pi / 2, 0.0, np.arctan(0.03), id="uphill to the left, left side up"),
    ],
)
def test_attitude_on_a_slope_that_rises_with_x(yaw, pitch, roll):
    got = slope(0.03, 0.0).attitude(3.0, -2.0, yaw)
    np.testing.assert_allclose(got, [pitch, roll], atol=1e-9)


def test_a_vehicle_on_a_plane_stands_upright_on_it():
    rng = np.random.default_rng(5)
    terrain = slope(0.02, -0.025)
    normal = np.array([-0.02, 0.025, 1.0]) / np.linalg.norm([-0.02, 0.025, 1.0])
    for yaw in rng.uniform(-np.pi, np.pi, 10):
        pose = terrain.pose(4.0, 1.0, yaw)
        np.testing.assert_allclose(pose.rotation[:, 2], normal, atol=1e-9)
        assert pose.yaw == pytest.approx(yaw, abs=1e-12)
        np.testing.assert_allclose(pose.translation, [4.0, 1.0, 0.02 * 4 - 0.025], atol=1e-6)


def test_one_wheel_on_the_kerb_tilts_by_a_quarter():
    level = Terrain.level()  # right wheels stand at y = -12.3 and the left ones at -10.7; the rear of the vehicle is off the road's end
    pitch, roll = level.attitude(-40.0, -11.5, 0.0, wheelbase=2.7, track=1.6)
    # both right wheels stand 0.12 m higher: 0.12 m over 1.6 m, left side down
    np.testing.assert_allclose([pitch, roll], [0.0, -np.arctan(0.12 / 1.6)], atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_rays_straight_down_meet_the_height_everywhere(seed):
    rng = np.random.default_rng(seed)
    terrain = drawn(seed)
    plan, matter = terrain.plan, terrain.matter()
    x, y = rng.uniform(-150, 150, (2, 30_000))
    for i, arm in enumerate(plan.arms):  # where fields meet
        for j, sign in enumerate((-1, 1)):
            section = plan.section(arm, sign)
            edges = np.array([0.0, section.kerb, section.sidewalk_end])[:, None] + [-0.1, 0.0, 0.1]
            rows = slice(1000 * (2 * i + j), 1000 * (2 * i + j + 1))
            x[rows], y[rows], _ = plan.at(arm, rng.uniform(0, 180, 1000), sign * rng.choice(edges.ravel(), 1000))
    x[8000:12_000], y[8000:12_000] = rng.uniform(-20, 20, (2, 4000))  # the crossing and its round corners
    origins = np.stack([x, y, np.full(30_000, 50.0)], axis=1).astype(np.float32)
    hits = cast_rays(origins, np.tile(np.float32([0, 0, -1]), (30_000, 1)), matter.shapes)
    error = np.abs(50.0 - hits.distance - terrain.height(origins[:, 0].astype(float), origins[:, 1].astype(float)))
    beyond, from_kerb = CrossSection.of(plan, x, y).beyond, CrossSection.of(plan, x, y).from_kerb
    on_lots = np.zeros(len(x), bool)
    for lot in plan.lots:
        along, across = plan.locate(lot.arm, x, y)
        deep = lot.sign * across - plan.section(lot.arm, lot.sign).sidewalk_end
        on_lots |= (along > lot.begin - 1) & (along < lot.end + 1) & (deep > -1) & (deep < lot.depth + 1)
        on_this = (along > lot.begin) & (along < lot.end) & (deep > 0.5) & (deep < lot.depth)
        assert error[on_this].max(initial=0) < 0.03
    is_road, is_walk = from_kerb < -0.01, (from_kerb > RAMP + 0.01) & (beyond < -0.01) & ~on_lots
    # paint is 4 mm; the kerb is cut into cells that in a bend lie a little aslant
    assert error[is_road].max() < 0.012
    assert error[is_walk].max() < 0.03
    assert np.quantile(error[(beyond < 0) & ~on_lots], 0.99) < 0.012
    # bumps of a 2.5 m lattice in cells of 1.25 m, which dip under the sidewalk at its end
    assert error.max() < 0.3
    assert np.median(error[beyond > 2]) < 0.02
    assert len(matter.shapes.heights) < 400_000
    _, rows, columns = matter.shapes.field.T
    assert ((columns - 1) * matter.shapes.size[:, 0]).max() < 1.15 * TILE  # large fields are slow to cast against
    assert ((rows - 1) * matter.shapes.size[:, 1]).max() < 1.15 * TILE


def test_surfaces_are_where_the_plan_has_them():
    terrain = drawn(3, usual=True)
    matter, s = terrain.matter(), terrain.surfaces
    spots = {
        (-60.0, 0.0 + 1.05 * 2): s.paint,  # a stripe of the zebra crossing of arm 0
        (-60.0, 0.55): s.asphalt[0],  # between two stripes
        (60.0, -1.05): s.paint,
        (0.55, 60.0): s.asphalt[3],  # no zebra crossing on the other road
        (-18.2, -3.0): s.paint,  # stop line, on the right of who drives in
        (-18.2, 3.0): s.asphalt[0],
        (0.0, 0.0): s.asphalt[4],
        (-40.0, -14.0): s.sidewalk[0],
        (14.0, -40.0): s.sidewalk[1],
        (40.0, 14.0): s.sidewalk[2],
        (-14.0, 14.0): s.sidewalk[3],
        (-40.0, -30.0): s.verge[0],
        (-40.0, 30.0): s.verge[3],
    }
    origins = np.array([(*xy, 20.0) for xy in spots], np.float32)
    hits = cast_rays(origins, np.tile(np.float32([0, 0, -1]), (len(spots), 1)), matter.shapes)
    np.testing.assert_allclose(matter.reflectivity[hits.primitive], list(spots.values()), rtol=1e-6)


def test_a_terrain_depends_on_its_generator_only():
    one, same, other = (drawn(seed, usual=True).matter() for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.shapes.heights, same.shapes.heights)
    np.testing.assert_array_equal(one.reflectivity, same.reflectivity)
    assert np.abs(one.shapes.heights - other.shapes.heights).max() > 0.1


def test_the_sidewalk_ends_where_the_verge_begins():
    rough = drawn(2, usual=True)
    smooth = Terrain(
        USUAL, rough.waves, rough.crown, rough.kerb_height, rough.rise, np.zeros(4), np.zeros(4), rough.lattice, rough.surfaces
    )
    x = np.linspace(-150, -20, 500)
    for across, is_same in ((18.0 - 0.01, True), (24.0, False)):
        difference = np.abs(rough.height(x, np.full(500, -across)) - smooth.height(x, np.full(500, -across)))
        assert (difference.max() == 0) == is_same
