"""Paths are checked against numerical derivatives, routes against the ground plan."""

import numpy as np
import pytest

from perception.drives.simulated import roads

ROUTES = {
    "straight on": roads.vehicle_route(0, 0, "straight"),
    "left": roads.vehicle_route(1, 0, "left"),
    "right": roads.vehicle_route(2, 1, "right"),
    "round the corner": roads.walk_around_corner(3, 14.0, -1),
    "across": roads.walk_across(0, 14.0, 1, 1.0),
    "zebra": roads.walk_over_zebra(1, 15.6, -1, 0.5, 1.0),
}


@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)
def test_yaw_is_the_direction_of_the_path_and_s_its_length(route):
    s = np.arange(-80, 120, 0.01)
    x, y, yaw = route.path.pose(s)
    step = np.hypot(np.diff(x), np.diff(y))
    assert np.abs(step - 0.01).max() < 1e-5  # a chord of 1 cm is shorter than its arc of radius 1 m by 4e-8 m; at a piece's end too
    direction = np.arctan2(np.diff(y), np.diff(x))
    middle = (yaw[1:] + yaw[:-1]) / 2
    assert np.abs((direction - middle + np.pi) % (2 * np.pi) - np.pi).max() < 0.01  # half a step of the tightest arc
    assert np.abs(np.diff(yaw)).max() < 0.011  # 1 cm at a radius of 1 m


def test_a_left_turn_goes_from_stop_line_to_stop_line():
    route = roads.vehicle_route(0, 0, "left")
    x, y, yaw = route.path.pose(np.array([0.0, route.crossing]))
    np.testing.assert_allclose(x, [-18.0, 1.75], atol=1e-9)  # keeps right: comes in south of the centre line, leaves east of it
    np.testing.assert_allclose(y, [-1.75, 18.0], atol=1e-9)
    np.testing.assert_allclose(yaw, [0.0, np.pi / 2], atol=1e-9)


def test_a_right_turn_leaves_by_the_right_lane_of_the_arm_to_the_right():
    route = roads.vehicle_route(0, 1, "right")
    x, y, yaw = route.path.pose(np.array([route.crossing]))
    np.testing.assert_allclose([x[0], y[0], yaw[0]], [-5.25, -18.0, -np.pi / 2], atol=1e-9)
    assert route.leave == 3 * 1 + 1


@pytest.mark.parametrize("arm", [1, 2, 3])
def test_the_arms_are_quarter_turns_of_each_other(arm):
    s = np.linspace(-50, 80, 40)
    first, other = roads.vehicle_route(0, 0, "left").path.pose(s), roads.vehicle_route(arm, 0, "left").path.pose(s)
    np.testing.assert_allclose(np.stack(other[:2], axis=1), roads.turned(np.stack(first[:2], axis=1), arm), atol=1e-9)


def test_people_start_to_cross_at_the_kerb_and_arrive_at_the_other():
    for route in (roads.walk_across(0, 14.0, 1, 0.0), roads.walk_over_zebra(0, 14.0, 1, 0.0, 0.0)):
        x, y, _ = route.path.pose(np.array([0.0, route.crossing]))
        assert np.hypot(x[1] - x[0], y[1] - y[0]) == pytest.approx(2 * (7.9 + 1.9))


def test_the_kerb_is_a_ramp_between_road_and_sidewalk():
    height = roads.ground_height(np.array([0.0, -30.0, -30.0, -30.0]), np.array([30.0, 11.5, 11.75, 15.0]))
    np.testing.assert_allclose(height, [0.0, 0.0, 0.06, 0.12])
