"""Who is on a street at the start: on its lanes, in them even in bends, and behind each other."""

import numpy as np
import pytest

from perception.drives.simulated import routes
from perception.drives.simulated.plans import draw_plan, usual_plan
from perception.drives.simulated.population import Population, populate
from perception.drives.simulated.roads import Plan


def crowd(seed: int) -> tuple[Plan, Population]:
    rng = np.random.default_rng(seed)
    plan = draw_plan(rng)
    return plan, populate(rng, plan, 1.0)


def test_long_vehicles_stay_in_their_lanes_in_bends():
    lengths = []
    for seed in range(60):
        plan, population = crowd(seed)
        for body in population.bodies:
            route = population.routes[body.mover]
            if np.isfinite(route.fastest) and body.class_name in ("truck", "bus", "trailer"):
                radius, room = route.fastest**2 / 2, plan.section(route.entry // 3, -1).lane_width
                # the ends of a box on a circle are length**2 / (8 radius) further out than its middle, on either side
                assert body.size[1] + 2 * body.size[0] ** 2 / (8 * radius) <= room
                lengths.append(body.size[0])
    assert len(lengths) > 20


@pytest.mark.parametrize("seed", range(10))
def test_nobody_starts_inside_of_the_one_ahead_or_on_the_crossing(seed):
    _, population = crowd(seed)
    movers = population.movers()
    starts: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for route, s, length, is_person in zip(movers.routes, movers.s, movers.length, movers.is_person, strict=True):
        if is_person:
            assert s < 0 or s > route.crossing or not route.crossing
        else:
            assert s + length / 2 < 0 or s - length / 2 > route.crossing
            starts.setdefault((route.entry, s > 0), []).append((s - length / 2, s + length / 2))
    for spans in starts.values():
        ordered = np.array(sorted(spans))
        assert (ordered[1:, 0] - ordered[:-1, 1] >= 4.0 - 1e-9).all()


def test_nobody_drives_faster_than_the_bends_allow():
    for seed in range(20):
        _, population = crowd(seed)
        assert all(desired <= route.fastest for desired, route in zip(population.desired, population.routes, strict=True))


def test_all_lanes_and_all_kinds_of_walks_are_used():
    rng, plan = np.random.default_rng(0), usual_plan()
    population = populate(rng, plan, 3.0)
    entries = {route.entry for route in population.routes if route.entry >= 0}
    assert entries == {3 * arm + lane for arm in plan.arms for lane in routes.lanes(plan, arm)}
    walks = [route for route in population.routes if route.entry < 0]
    assert any(route.group == routes.PEOPLE for route in walks)
    assert any(route.zebra[0] >= 0 for route in walks)
    assert any(not route.crossing for route in walks)
