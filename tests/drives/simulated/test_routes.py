"""Routes against numerical derivatives, the ground plan and each other."""

import numpy as np
import pytest

from perception.drives.simulated import routes
from perception.drives.simulated.plans import draw_plan, usual_plan
from perception.drives.simulated.roads import BICYCLE_LANE, CrossSection, Plan

USUAL = usual_plan()
PLANS = [USUAL, *[draw_plan(np.random.default_rng(seed)) for seed in range(40)]]


def vehicle_routes(plan: Plan):
    return [
        (arm, lane, movement, routes.vehicle_route(plan, arm, lane, movement))
        for arm in plan.arms
        for lane in routes.lanes(plan, arm)
        for movement in routes.movements(plan, arm, lane)
    ]


def walks(plan: Plan):
    found = []
    for arm in plan.arms:
        for direction in (-1, 1):
            if plan.neighbour(arm, 1) is not None:
                found.append(routes.walk_around_corner(plan, arm, 0.5, direction))
            if (arm + 2) % 4 in plan.arms:
                found.append(routes.walk_along(plan, arm, 0.5, direction, 0.8))
    return found + [routes.walk_over_zebra(plan, zebra, 0.5, d, 0.3, 0.8) for zebra in range(len(plan.zebras)) for d in (-1, 1)]


@pytest.mark.parametrize("plan", PLANS[:20])
def test_routes_are_continuous_in_place_and_heading_and_s_is_their_length(plan):
    s = np.arange(-150, 200, 0.02)
    for route in [*[route for *_, route in vehicle_routes(plan)], *walks(plan)]:
        x, y, yaw = route.path.pose(s)
        # a chord of 2 cm is shorter than its arc of radius 1 m by 3e-7 m
        np.testing.assert_allclose(np.hypot(np.diff(x), np.diff(y)), 0.02, atol=1e-5)
        assert np.abs(np.diff(yaw)).max() < 0.021  # 2 cm at a radius of 1 m
        off = np.arctan2(np.diff(y), np.diff(x)) - (yaw[1:] + yaw[:-1]) / 2
        assert np.abs((off + np.pi) % (2 * np.pi) - np.pi).max() < 0.02


@pytest.mark.parametrize("plan", PLANS[:20])
def test_vehicles_come_and_go_in_the_middle_of_their_lanes(plan):
    for arm, lane, _, route in vehicle_routes(plan):
        come, go = np.arange(-140.0, 0.0, 3.0), route.crossing + np.arange(0.0, 140.0, 3.0)
        along, across = plan.locate(arm, *route.path.pose(come)[:2])
        np.testing.assert_allclose(across, -plan.section(arm, -1).lane(lane), atol=1e-6)
        exit_arm, exit_lane = route.arms[1], route.leave % 3
        along_out, across = plan.locate(exit_arm, *route.path.pose(go)[:2])
        np.testing.assert_allclose(across, plan.section(exit_arm, 1).lane(exit_lane), atol=1e-6)
        assert along[-1] > plan.stop(arm) > along[-1] - 4
        assert along_out[0] == pytest.approx(plan.stop(exit_arm), abs=1e-6)


def test_a_left_turn_goes_from_stop_line_to_stop_line():
    route = routes.vehicle_route(USUAL, 0, 0, "left")
    x, y, yaw = route.path.pose(np.array([0.0, route.crossing]))
    np.testing.assert_allclose(x, [-18.0, 1.75], atol=1e-9)  # keeps right: comes in south of the centre line, leaves east of it
    np.testing.assert_allclose(y, [-1.75, 18.0], atol=1e-9)
    np.testing.assert_allclose(yaw, [0.0, np.pi / 2], atol=1e-9)


def test_a_right_turn_leaves_by_the_right_lane_of_the_arm_to_the_right():
    route = routes.vehicle_route(USUAL, 0, 1, "right")
    x, y, yaw = route.path.pose(np.array([route.crossing]))
    np.testing.assert_allclose([x[0], y[0], yaw[0]], [-5.25, -18.0, -np.pi / 2], atol=1e-9)
    assert route.leave == 3 * 1 + 1


@pytest.mark.parametrize("plan", PLANS)
def test_a_turning_car_stays_on_the_road(plan):
    for _, lane, movement, route in vehicle_routes(plan):
        x, y, yaw = route.path.pose(np.arange(-20, route.crossing + 20, 0.25))
        for side in (-1.0, 1.0):
            places = CrossSection.of(plan, x - side * np.sin(yaw), y + side * np.cos(yaw))
            room = 0.15 if lane != BICYCLE_LANE else -0.2
            assert places.from_kerb.max() < -room, movement


@pytest.mark.parametrize("plan", PLANS)
def test_vehicles_that_have_green_together_do_not_meet(plan):
    found = [entry for entry in vehicle_routes(plan) if entry[3].group >= 0]
    for i, (arm, lane, movement, one) in enumerate(found):
        a = np.stack(one.path.pose(np.arange(0, one.crossing, 0.3))[:2], axis=1)
        for other_arm, other_lane, other_movement, other in found[i + 1 :]:
            if other.group != one.group or other.entry == one.entry:
                continue
            b = np.stack(other.path.pose(np.arange(0, other.crossing, 0.3))[:2], axis=1)
            apart = np.linalg.norm(a[:, None] - b, axis=2).min()
            # two cars side by side; next to a bicycle a truck still has room
            least = 2.2 if BICYCLE_LANE not in (lane, other_lane) else 2.1
            assert apart > least, (arm, lane, movement, other_arm, other_lane, other_movement)


def test_every_lane_leads_somewhere():
    for plan in PLANS:
        for arm in plan.arms:
            for lane in routes.lanes(plan, arm):
                assert routes.movements(plan, arm, lane), (plan.arms, arm, lane)


@pytest.mark.parametrize("plan", PLANS[:20])
def test_people_stay_off_the_lanes_but_where_they_cross(plan):
    for route in walks(plan):
        s = np.arange(-120, 160, 0.5)
        x, y, _ = route.path.pose(s)
        from_kerb = CrossSection.of(plan, x, y).from_kerb
        crosses = (s >= 0) & (s <= route.crossing)
        # on a parking strip they may wait between the cars: 1.1 m into it
        deepest = max(section.kerb - section.edge for road in plan.roads for section in road)
        assert from_kerb[~crosses].min() > -deepest - 0.3
        if route.crossing:
            assert from_kerb[crosses].min() < -2.5


def test_people_start_to_cross_at_the_kerb_and_arrive_at_the_other():
    for route in (routes.walk_along(USUAL, 0, 0.6, 1, 0.0), routes.walk_over_zebra(USUAL, 0, 0.6, 1, 0.0, 0.0)):
        x, y, _ = route.path.pose(np.array([0.0, route.crossing]))
        assert np.hypot(x[1] - x[0], y[1] - y[0]) == pytest.approx(2 * (8.7 + 1.1))


@pytest.mark.parametrize("plan", [plan for plan in PLANS if plan.zebras][:12])
def test_vehicles_stop_three_metres_before_the_middle_of_a_zebra_crossing(plan):
    for arm, _, _, route in vehicle_routes(plan):
        for side, on in enumerate((arm, route.arms[1])):
            zebra = route.zebra[side]
            if zebra >= 0:
                assert plan.zebras[zebra][0] == on
                along, _ = plan.locate(on, *route.path.pose(np.array([route.zebra_s[side]]))[:2])
                assert along[0] == pytest.approx(plan.zebras[zebra][1] + (3 if side == 0 else -3), abs=1e-6)


def test_bends_and_turns_limit_the_speed():
    for plan in PLANS:
        for arm, _, movement, route in vehicle_routes(plan):
            radius = np.abs(1 / route.path.curvature[route.path.curvature != 0])
            if movement == "straight":
                assert np.isinf(route.slow)
                assert route.fastest == pytest.approx(np.sqrt(2 * radius.min(initial=np.inf)))
            else:
                assert route.slow <= np.sqrt(2 * radius.min()) + 1e-9, arm
