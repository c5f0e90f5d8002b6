"""Places of a plan against the geometry of straights and circles; drawn plans against what roads are like."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.drives.simulated.plans import TIGHTEST, draw_plan, is_clear, is_free, usual_plan
from perception.drives.simulated.roads import REACH, Bend, CrossSection, Lot, Path, Plan

USUAL = usual_plan()
# arm 0 leads west and turns left by a right angle at x = -40: on from there along x = -100 to the south
BENT = Plan(USUAL.roads, bends=(Bend(40.0, 60.0, np.pi / 2), None, None, None))
ANGLES = st.one_of(st.floats(0.1, 1.7), st.floats(-1.7, -0.1))
PLANS = [draw_plan(np.random.default_rng(seed)) for seed in range(60)]
MANY = [*PLANS, *(draw_plan(np.random.default_rng(seed)) for seed in range(60, 400))]


def test_a_path_follows_straights_and_arcs():
    path = Path.chain((0.0, 0.0, 0.0), [(10.0, 0.0), (20.0 * np.pi / 2, 1 / 20.0), (0.0, 0.0), (5.0, 0.0)], zero_at=10.0)
    x, y, yaw = path.pose(np.array([-13.0, 0.0, 20 * np.pi / 2, 20 * np.pi / 2 + 8.0]))
    np.testing.assert_allclose(x, [-3.0, 10.0, 30.0, 30.0], atol=1e-12)
    np.testing.assert_allclose(y, [0.0, 0.0, 20.0, 28.0], atol=1e-12)  # goes on beyond its 5 m
    np.testing.assert_allclose(yaw, [0.0, 0.0, np.pi / 2, np.pi / 2], atol=1e-12)


@pytest.mark.parametrize(
    ("arm", "x", "y", "yaw"),
    [
        pytest.param(0, -30.0, 4.0, 0.0, id="west"),
        pytest.param(1, -4.0, -30.0, np.pi / 2, id="south"),
        pytest.param(2, 30.0, -4.0, np.pi, id="east"),
        pytest.param(3, 4.0, 30.0, 3 * np.pi / 2, id="north"),
    ],
)
def test_across_is_to_the_left_of_who_drives_to_the_crossing(arm, x, y, yaw):
    np.testing.assert_allclose(USUAL.at(arm, 30.0, 4.0), [x, y, yaw], atol=1e-12)


def test_places_in_a_bend_lie_on_circles_about_its_middle():
    # the arc's middle is (-40, -60); across 5 is north of the centre line, outside of the bend
    x, y, yaw = BENT.at(0, np.array([40.0, 40.0 + 30 * np.pi / 2, 40.0 + 60 * np.pi / 2, 60 + 60 * np.pi / 2]), 5.0)
    half = 65 * np.sqrt(0.5)
    np.testing.assert_allclose(x, [-40.0, -40 - half, -105.0, -105.0], atol=1e-9)
    np.testing.assert_allclose(y, [5.0, -60 + half, -60.0, -80.0], atol=1e-9)
    np.testing.assert_allclose(yaw, [0.0, np.pi / 4, np.pi / 2, np.pi / 2], atol=1e-9)  # of who drives to the crossing: north, then east


@settings(deadline=None)
@given(
    bend=st.builds(Bend, st.floats(5, 60), st.floats(TIGHTEST, 200), ANGLES),
    arm=st.integers(0, 3),
    along=st.floats(0, 190),
    across=st.floats(-25, 25),
)
def test_locate_undoes_at(bend, arm, along, across):
    plan = Plan(USUAL.roads, bends=(bend,) * 4)
    x, y, _ = plan.at(arm, along, across)
    np.testing.assert_allclose(plan.locate(arm, x, y), (along, across), atol=1e-6)


@settings(deadline=None)
@given(
    across=st.floats(-20, 20), angle=st.floats(-1.7, 1.7).filter(lambda a: abs(a) > 0.05), begin=st.floats(0, 50), end=st.floats(60, 250)
)
def test_lines_beside_a_bend_keep_their_distance_from_it(across, angle, begin, end):
    plan = Plan(USUAL.roads, bends=(Bend(20.0, 70.0, angle), None, None, None))
    start = tuple(float(v) for v in plan.at(0, end, across))
    path = Path.chain(start, plan.inward(0, across, end, begin))
    s = np.linspace(0, sum(max(length, 0) for length, _ in plan.inward(0, across, end, begin)), 50)
    along, offset = plan.locate(0, *path.pose(s)[:2])
    np.testing.assert_allclose(offset, across, atol=1e-6)
    np.testing.assert_allclose([along[0], along[-1]], [end, begin], atol=1e-6)
    assert (np.diff(along) < 0).all()


def test_beyond_the_middle_of_a_bend_the_nearer_straight_counts():
    # 65 m south of the first straight, 80 m east of the last one; then 75 m and 60 m
    np.testing.assert_allclose(
        BENT.locate(0, np.array([-20.0, -38.0]), np.array([-65.0, -75.0])), [[20.0, 60 * np.pi / 2 + 55], [-65.0, -62.0]]
    )


def test_both_arms_of_a_road_share_its_halves():
    plan = PLANS[3]
    for arm in (0, 1):
        assert plan.section(arm, -1) is plan.section(arm + 2, 1)  # its south (east) half: right of who comes, left of who goes
        assert plan.section(arm, 1) is plan.section(arm + 2, -1)


def test_stop_lines_lie_behind_the_other_roads_pavement():
    assert USUAL.stop(0) == 18.0
    for plan in PLANS:
        for arm in plan.arms:
            ends = [plan.section(arm + 1, 1).sidewalk_end] if len(plan.arms) > 2 else [0.0]
            assert plan.stop(arm) == max(ends)


def test_the_cross_section_of_a_crossing():
    x, y = np.array([0.0, -30.0, -30.0, -30.0, -11.5 - 3.0, -12.0, -30.0]), np.array([0.0, 0.0, -11.5, -12.5, -11.5, -12.0, 20.0])
    places = CrossSection.of(USUAL, x, y)
    np.testing.assert_allclose(places.fall[[0, 1, 2, 3]], [0, 0, 1, 1], atol=1e-12)
    # the corner (12, 12) lies half a metre from both kerbs, where the round corner of 3 m about (-14.5, -14.5) is road
    np.testing.assert_allclose(places.from_kerb, [-11.5, -11.5, 0, 1, 0, 3 - np.hypot(2.5, 2.5), 8.5], atol=1e-12)
    np.testing.assert_allclose(places.beyond[[3, 6]], [-5.5, 2.0])
    assert places.quadrant[[3, 6]].tolist() == [0, 3]


def test_a_t_has_no_road_on_its_closed_side():
    plan = Plan(USUAL.roads, arms=(0, 1, 2))
    places = CrossSection.of(plan, np.array([0.0, 0.0]), np.array([30.0, -30.0]))
    np.testing.assert_allclose(places.from_kerb, [18.5, -11.5])
    assert plan.corners == (0, 1)
    assert plan.neighbour(0, 1) is None
    assert plan.neighbour(0, -1) == 1


def test_drawn_plans_differ_in_everything():
    assert {plan.arms for plan in PLANS} == {(0, 1, 2, 3), (0, 1, 2), (0, 2)}
    sections = [section for plan in PLANS for road in plan.roads for section in road]
    assert {section.parking for section in sections} == {"parallel", "perpendicular", "none"}
    assert {len(section.lanes) for section in sections} == {1, 2}
    assert {section.bicycle is None for section in sections} == {True, False}
    assert {plan.has_lights for plan in PLANS if len(plan.arms) > 2} == {True, False}
    assert any(plan.lots for plan in PLANS)
    assert any(plan.zebras for plan in PLANS)
    bends = [bend for plan in PLANS for bend in plan.bends if bend]
    assert min(bend.radius for bend in bends) >= TIGHTEST
    assert {np.sign(bend.angle) for bend in bends} == {-1, 1}
    assert np.ptp([section.front for section in sections]) > 6


@pytest.mark.parametrize("plan", PLANS[::4])
def test_everything_across_a_road_is_in_order(plan):
    for road in plan.roads:
        for section in road:
            lanes_end = section.lanes[-1] + section.lane_width / 2
            offsets = [0, section.lanes[0], lanes_end, section.parking_begins, section.kerb, *section.furniture, section.front]
            assert (np.diff([*offsets, section.sidewalk_end]) >= 0).all()
            if section.bicycle is not None:
                assert section.bicycle - lanes_end >= 0.9
            assert section.furniture[1] - section.kerb >= 1.3
            assert section.front - section.furniture[1] >= 1.9


def test_no_arm_leads_over_another_one():
    along, across = np.meshgrid(np.arange(40.0, REACH, 8.0), np.linspace(-1, 1, 5))
    for plan in MANY:
        for arm in plan.arms:
            x, y, _ = plan.at(arm, along, across * max(plan.section(arm, sign).sidewalk_end for sign in (-1, 1)))
            for other in set(plan.arms) - {arm}:
                theirs, offset = plan.locate(other, x, y)
                end = max(plan.section(other, sign).sidewalk_end for sign in (-1, 1))
                assert not ((theirs > 0) & (theirs < REACH) & (np.abs(offset) < end)).any()


def test_arms_that_bend_towards_each_other_are_told():
    left, right = Bend(40.0, 50.0, 1.5), Bend(40.0, 50.0, -1.5)
    assert is_clear(USUAL)
    assert is_clear(BENT)
    assert is_clear(Plan(USUAL.roads, bends=(left, left, left, left)))  # all the same way round
    assert not is_clear(Plan(USUAL.roads, bends=(left, right, None, None)))  # west turns south, south turns west


def test_a_lot_that_a_road_leads_through_is_told():
    lot = Lot(0, -1, 50.0, 80.0, 29.0)  # 18 to 47 m south of the western arm
    assert is_free(USUAL, lot)
    assert not is_free(
        Plan(USUAL.roads, bends=(None, Bend(30.0, 20.0, -np.pi / 2), None, None)), lot
    )  # the southern arm turns west at -50 m


def test_no_lot_lies_on_a_road_or_another_lot():
    for plan in MANY:
        places = []
        for lot in plan.lots:
            inner = plan.section(lot.arm, lot.sign).sidewalk_end
            along, across = np.meshgrid(np.arange(lot.begin, lot.end, 2.0), np.arange(inner + 1.5, inner + lot.depth, 2.0))
            x, y, _ = plan.at(lot.arm, along.ravel(), lot.sign * across.ravel())
            assert (CrossSection.of(plan, x, y).beyond > 0.5).all()
            places.append(np.stack([x, y], axis=1))
        for i, mine in enumerate(places):
            for other in places[i + 1 :]:
                assert np.linalg.norm(mine[:, None] - other, axis=2).min() > 1.5


def test_a_plan_depends_on_its_generator_only():
    assert draw_plan(np.random.default_rng(5)) == PLANS[5]
    assert draw_plan(np.random.default_rng(6)) != PLANS[5]
