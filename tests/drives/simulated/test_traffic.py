"""Lights, queues and zebra crossings with one or two road users that can be followed by eye."""

import numpy as np
import pytest

from perception.drives.simulated import routes
from perception.drives.simulated.plans import usual_plan
from perception.drives.simulated.traffic import CYCLE, STEP, Movers, Traffic, green_begins, simulate_traffic


def movers(*users, has_lights=True):
    """Users are (route, length, s, speed, is_person); they want to go as fast as they start."""
    ways, length, s, speed, person = zip(*users, strict=True)
    fast = np.array(speed, float)
    return Movers(list(ways), np.array(length), np.array(s, float), fast, fast, np.array(person), has_lights)


USUAL = usual_plan()
STRAIGHT = routes.vehicle_route(USUAL, 0, 0, "straight")


def test_a_car_stops_behind_the_line_at_red_and_goes_at_green():
    motion = simulate_traffic(movers((STRAIGHT, 4.0, -60.0, 9.0, False)), clock=green_begins(2), warm_up=0.0, duration=CYCLE)
    front = motion.s[:, 0] + 2.0
    red = round((CYCLE - green_begins(2)) / STEP)  # its own green is the first of the cycle
    assert -4.0 < front[red - 1] < 0.0
    assert motion.speed[red - 1, 0] < 0.1
    assert front[-1] > 50.0


def test_a_car_that_cannot_stop_any_more_drives_on():
    motion = simulate_traffic(movers((STRAIGHT, 4.0, -8.0, 9.0, False)), clock=green_begins(2), warm_up=0.0, duration=5.0)
    assert motion.speed[:, 0].min() > 8.0  # 6 m to the line, 9**2 / (2 * 3) = 13.5 m to stop


def test_a_queue_at_red_keeps_its_gaps():
    users = [(STRAIGHT, 4.0, -30.0 - 12.0 * i, 9.0, False) for i in range(5)]
    motion = simulate_traffic(movers(*users), clock=green_begins(2), warm_up=0.0, duration=25.0)
    gap = motion.s[:, :-1] - motion.s[:, 1:] - 4.0
    assert gap.min() > 1.0
    assert gap[-1].max() < 4.0
    assert motion.speed[-1].max() < 0.2


def test_green_waits_for_those_who_are_still_on_the_crossing():
    slow = (routes.vehicle_route(USUAL, 1, 0, "straight"), 4.0, 0.0, 1.0, False)  # crawls over the crossing for 40 s
    motion = simulate_traffic(movers((STRAIGHT, 4.0, -20.0, 9.0, False), slow), clock=0.0, warm_up=0.0, duration=20.0)
    assert motion.s[-1, 0] + 2.0 < 0.0


def test_a_car_lets_a_person_pass_on_the_zebra_crossing():
    walk = routes.walk_over_zebra(USUAL, 0, 0.65, 1, 0.0, 0.5)
    users = movers((STRAIGHT, 4.0, -100.0, 8.0, False), (walk, 0.7, -2.0, 1.4, True))
    motion = simulate_traffic(users, clock=0.0, warm_up=0.0, duration=40.0)
    line = STRAIGHT.zebra_s[0]
    is_walking = (motion.s[:, 1] > 0) & (motion.s[:, 1] < walk.crossing)
    assert is_walking.any()
    assert (motion.s[is_walking, 0] + 2.0 < line).all()
    assert motion.s[-1, 0] > line + 10
    assert motion.s[-1, 1] > walk.crossing


def test_a_person_waits_for_a_car_that_cannot_stop():
    walk = routes.walk_over_zebra(USUAL, 0, 0.65, 1, 0.0, 0.0)
    users = movers((STRAIGHT, 4.0, STRAIGHT.zebra_s[0] - 10.0, 9.0, False), (walk, 0.7, -1.0, 1.4, True))
    motion = simulate_traffic(users, clock=0.0, warm_up=0.0, duration=20.0)
    passes = motion.s[:, 0] - 2.0 < STRAIGHT.zebra_s[0] + 5.5
    assert (motion.s[passes, 1] + 0.35 < 0.2).all()
    assert motion.s[-1, 1] > 5.0


def test_a_car_slows_down_before_it_turns():
    left = routes.vehicle_route(USUAL, 0, 0, "left")
    motion = simulate_traffic(movers((left, 4.0, -60.0, 10.0, False)), clock=green_begins(1) - 1.0, warm_up=0.0, duration=15.0)
    is_turning = (motion.s[:, 0] > 0) & (motion.s[:, 0] < left.crossing)
    assert is_turning.any()
    radius = USUAL.stop(0) + 1.75
    assert (motion.speed[is_turning, 0] ** 2 / radius).max() < 2.3  # m/s2 sideways; wanted 2.0


SIDE = routes.vehicle_route(USUAL, 1, 0, "straight")


def test_without_lights_the_side_road_waits_for_the_main_road():
    users = [(STRAIGHT, 4.0, -60.0 - 30.0 * i, 9.0, False) for i in range(4)]
    motion = simulate_traffic(movers(*users, (SIDE, 4.0, -40.0, 9.0, False), has_lights=False), clock=0.0, warm_up=0.0, duration=40.0)
    main, side = motion.s[:, :4], motion.s[:, 4]
    assert motion.speed[:, :4].min() > 8.3  # nobody on the main road brakes for it, but for the car ahead
    enters = np.argmax(side + 2.0 > 0)
    assert enters > 0
    assert (main[enters] - 2.0 > STRAIGHT.crossing).all()
    assert side[-1] > SIDE.crossing


def test_without_lights_the_side_road_goes_when_nobody_comes():
    motion = simulate_traffic(movers((SIDE, 4.0, -40.0, 9.0, False), has_lights=False), clock=0.0, warm_up=0.0, duration=10.0)
    assert motion.speed[:, 0].min() > 8.0


def test_who_turns_left_waits_for_the_oncoming_and_holds_up_those_behind():
    left, oncoming = routes.vehicle_route(USUAL, 0, 0, "left"), routes.vehicle_route(USUAL, 2, 0, "straight")
    # a short one, behind which the next one stands near to the line
    users = (left, 2.0, -20.0, 8.0, False), (STRAIGHT, 4.0, -32.0, 8.0, False), (oncoming, 4.0, -50.0, 8.0, False)
    motion = simulate_traffic(movers(*users, has_lights=False), clock=0.0, warm_up=0.0, duration=40.0)
    enters = np.argmax(motion.s[:, 0] + 1.0 > 0)
    assert motion.s[enters, 2] - 2.0 > oncoming.crossing
    assert (motion.s[:, 0] > motion.s[:, 1]).all()
    assert (motion.s[-1] > 30.0).all()  # neither waits for the other for ever


def test_people_cross_together_at_their_light():
    walk = routes.walk_along(USUAL, 0, 0.65, 1, 0.5)
    motion = simulate_traffic(movers((walk, 0.7, -5.0, 1.3, True)), clock=green_begins(4) - 10.0, warm_up=0.0, duration=35.0)
    before = round(10.0 / STEP)
    assert motion.s[before, 0] < 0
    assert motion.s[-1, 0] > walk.crossing


@pytest.mark.parametrize("group", range(5))
def test_every_group_gets_green(group):
    traffic = Traffic(movers((STRAIGHT, 4.0, -60.0, 9.0, False)), clock=green_begins(group) + 0.05)
    assert traffic.open_group == group
    traffic.clock -= 0.1
    assert traffic.open_group == -1  # everybody waits in between


def test_speed_is_the_derivative_of_s_at_any_time():
    motion = simulate_traffic(movers((STRAIGHT, 4.0, -60.0, 9.0, False)), clock=green_begins(2), warm_up=1.0, duration=10.0)
    seconds = np.linspace(0.01, 9.0, 777)
    s0, _ = motion.at(seconds - 1e-4)
    s1, _ = motion.at(seconds + 1e-4)
    np.testing.assert_allclose((s1 - s0) / 2e-4, motion.at(seconds)[1], atol=1e-3)
