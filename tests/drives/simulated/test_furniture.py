"""What stands on a street keeps off the ways of those who move, and stands as real rows do."""

from itertools import pairwise

import numpy as np
import pytest
import shapely

from perception.core import Boxes3D
from perception.drives.simulated.furniture import Standing, furnish, parked_row
from perception.drives.simulated.plans import draw_plan, usual_plan
from perception.drives.simulated.roads import CrossSection, Plan, Roadside

PLANS = [draw_plan(np.random.default_rng(seed)) for seed in range(40)]
MACHINES = ("car", "truck", "bus", "trailer", "construction_vehicle", "barrier", "traffic_cone", "bicycle", "motorcycle")


def street(seed: int) -> tuple[Plan, list[Standing]]:
    plan = PLANS[seed]
    return plan, furnish(np.random.default_rng([seed, 1]), plan, 1.0, site_arms=(0, 2))


def outlines(things: list[Standing]) -> np.ndarray:
    boxes = Boxes3D(
        np.array([[thing.x, thing.y, 0.0] for thing in things]),
        np.array([thing.size for thing in things]),
        np.array([thing.yaw for thing in things]),
        np.zeros((len(things), 2)),
    )
    return boxes.corners[:, :4, :2]


@pytest.mark.parametrize("seed", range(40))
def test_nothing_that_stands_reaches_into_a_lane(seed):
    plan, things = street(seed)
    corners = outlines(things)
    edges = np.concatenate([(1 - t) * corners + t * np.roll(corners, 1, axis=1) for t in (0.0, 0.25, 0.5, 0.75)], axis=1)
    for arm in plan.arms:
        along, across = plan.locate(arm, edges[..., 0], edges[..., 1])
        for sign in (-1, 1):
            is_here = (along > 0) & (sign * across >= 0)
            # nobody parks by the inch, and in a bend the ends of a long vehicle stick out
            assert (sign * across)[is_here].min(initial=np.inf) > plan.section(arm, sign).parking_begins - 0.3


@pytest.mark.parametrize("seed", range(40))
def test_no_two_things_stand_in_one_place(seed):
    _, things = street(seed)
    things = [thing for thing in things if thing.class_name in MACHINES]
    shapes = np.asarray(shapely.polygons(outlines(things)))
    first, second = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    assert [(things[i].class_name, things[j].class_name) for i, j in zip(first, second, strict=True) if i < j] == []


def test_people_also_stand_behind_the_pavements_and_in_nothing_else():
    far, on_lots = 0, 0
    for seed in range(40):
        plan, things = street(seed)
        people = [thing for thing in things if thing.class_name == "pedestrian"]
        places = np.array([[person.x, person.y] for person in people]).reshape(-1, 2)
        is_far = CrossSection.of(plan, *places.T).beyond > 0.5
        machines = shapely.STRtree(shapely.polygons(outlines([thing for thing in things if thing.class_name in MACHINES])))
        hit, _ = machines.query(shapely.polygons(outlines(people)), predicate="intersects") if people else ((), ())
        assert not is_far[np.unique(hit).astype(int)].any()
        far += is_far.sum()
        for lot in plan.lots:
            along, across = plan.locate(lot.arm, *places.T)
            deep = lot.sign * across - plan.section(lot.arm, lot.sign).sidewalk_end
            on_lots += ((along > lot.begin) & (along < lot.end) & (deep > 0.5) & (deep < lot.depth)).sum()
    assert far > 120  # three a street
    assert on_lots > 80


@pytest.mark.parametrize("seed", range(0, 40, 2))
def test_nothing_but_people_stands_where_people_walk(seed):
    plan, things = street(seed)
    x, y = np.array([[thing.x, thing.y] for thing in things if thing.class_name in MACHINES]).T
    for arm in plan.arms:
        along, across = plan.locate(arm, x, y)
        for sign in (-1, 1):
            section = plan.section(arm, sign)
            in_band = (sign * across > section.furniture[1]) & (sign * across < section.front) & (along > 0)
            assert not in_band.any()


def test_the_head_of_a_row_is_who_was_asked_for():
    side = Roadside(usual_plan(), 0, -1)
    row = parked_row(side, [], 0.9, np.random.default_rng(0), first="bus")
    assert row[0].class_name == "bus"
    np.testing.assert_allclose([row[0].y, row[0].yaw], [-10.1, 0.0], atol=0.3)  # right of who drives in, along the lane


def test_rows_stand_as_closely_as_real_ones():
    in_line, side_by_side = [], []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        for sign in (-1, 1):
            side = Roadside(PLANS[seed % 40], 0, sign)
            row = parked_row(side, [], 0.9, rng)
            step = [np.hypot(a.x - b.x, a.y - b.y) for a, b in pairwise(row) if a.class_name == b.class_name == "car"]
            {"parallel": in_line, "perpendicular": side_by_side, "none": []}[side.section.parking].extend(step)
    assert np.median(in_line) == pytest.approx(6.2, abs=0.25)
    assert np.median(side_by_side) == pytest.approx(2.9, abs=0.2)


def test_occupied_places_follow_each_other():
    side, runs, taken = Roadside(usual_plan(), 0, -1), [], []
    for seed in range(80):
        row = parked_row(side, [], 0.6, np.random.default_rng(seed))
        taken.append(len(row))
        gaps = np.abs(np.diff([thing.x for thing in row]))
        runs += [1 + len(run) for run in np.split(gaps, np.flatnonzero(gaps > 11))]
    assert np.mean(taken) == pytest.approx(0.6 * (105 - 22) / 6.2, rel=0.2)
    # places that were taken by chance, 60 % of them, would make runs of 1 / 0.4 = 2.5
    assert np.mean(runs) > 3.5


def test_lots_hold_rows_of_cars_behind_the_sidewalk():
    found = 0
    for seed in range(40):
        plan, things = street(seed)
        for lot in plan.lots:
            inner = plan.section(lot.arm, lot.sign).sidewalk_end
            here = []
            for thing in things:
                along, across = (float(v) for v in plan.locate(lot.arm, np.array(thing.x), np.array(thing.y)))
                if lot.begin < along < lot.end and inner < lot.sign * across < inner + lot.depth and thing.class_name == "car":
                    here.append(thing)
                    assert float(CrossSection.of(plan, np.array(thing.x), np.array(thing.y)).beyond) > 3
            found += len(here)
    assert found > 100


def test_ten_classes_stand_or_could():
    names = {thing.class_name for seed in range(40) for thing in street(seed)[1]}
    assert names == {*MACHINES, "pedestrian"}


def test_the_footprint_covers_a_thing_and_little_more():
    thing = Standing("barrier", 3.0, 4.0, 0.5, np.array([0.6, 2.2, 1.0]))
    x, y = np.meshgrid(np.linspace(-0.3, 0.3, 7), np.linspace(-1.1, 1.1, 21))
    points = np.stack([3 + np.cos(0.5) * x - np.sin(0.5) * y, 4 + np.sin(0.5) * x + np.cos(0.5) * y], axis=-1).reshape(-1, 2)
    apart = np.hypot(*(points[:, None] - thing.footprint[:, :2]).T).T - thing.footprint[:, 2]
    corners = 0.12  # the very corners stick out of the circles
    assert apart.min(axis=1).max() < corners
    assert thing.footprint[:, 2].max() < 0.35


def test_a_street_depends_on_its_generator_only():
    one, same = street(3)[1], street(3)[1]
    assert [(t.class_name, t.x, t.yaw) for t in one] == [(t.class_name, t.x, t.yaw) for t in same]
