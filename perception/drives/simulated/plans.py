"""The ground plans of simulated streets: one that is always the same, and drawn ones."""

from dataclasses import replace

import numpy as np

from perception.drives.simulated.roads import REACH, Bend, CrossSection, Lot, Plan, Section

CROSSINGS = {(0, 1, 2, 3): 0.45, (0, 1, 2): 0.3, (0, 2): 0.25}  # arms -> share of the streets
PARKING = {"parallel": 0.46, "perpendicular": 0.34, "none": 0.2}
TIGHTEST = 45.0  # metres, radius of a bend


def usual_plan() -> Plan:
    """Two straight roads, alike, with two lanes, a bicycle lane and a parking strip a direction, and lights where they cross."""
    half = Section(
        lanes=(1.75, 5.25),
        lane_width=3.5,
        bicycle=7.9,
        parking="parallel",
        parking_begins=8.7,
        kerb=11.5,
        furniture=(11.8, 13.35),
        front=17.35,
        sidewalk_end=18.0,
    )
    return Plan(((half, half), (half, half)), zebras=((0, 60.0), (2, 60.0)))


def draw_plan(rng: np.random.Generator) -> Plan:
    """The plan of one street: everything about it differs from scene to scene."""
    arms = list(CROSSINGS)[int(rng.choice(len(CROSSINGS), p=list(CROSSINGS.values())))]
    lanes, has_bicycles = 2 if rng.random() < 0.35 else 1, bool(rng.random() < 0.3)
    main = _draw_road(rng, lanes, has_bicycles=has_bicycles)
    # in a T nobody on a bicycle could go straight on from the side road
    side = _draw_road(rng, 2 if rng.random() < 0.15 else 1, has_bicycles=len(arms) == 4 and bool(rng.random() < 0.15))
    plan = Plan((main, side), arms, has_lights=len(arms) > 2 and bool(rng.random() < 0.6))
    plan = _with_bends(plan, rng)
    return replace(plan, zebras=_draw_zebras(plan, rng), lots=_draw_lots(plan, rng))


def _draw_road(rng: np.random.Generator, lanes: int, *, has_bicycles: bool) -> tuple[Section, Section]:
    """Both halves have the same lanes; what lies beside them may differ."""
    width = float(rng.uniform(3.3, 3.7))
    kinds = rng.choice(list(PARKING), size=2, p=list(PARKING.values()))
    if rng.random() < 0.6:
        kinds[1] = kinds[0]
    halves = []
    for kind in kinds:
        begins = lanes * width
        bicycle = begins + 0.95 if has_bicycles else None
        # cyclists, or the room in which doors open
        begins += 1.9 if has_bicycles else float(rng.uniform(0.2, 0.7)) * (kind != "none")
        depth = {"parallel": rng.uniform(2.3, 3.1), "perpendicular": rng.uniform(5.3, 5.7), "none": rng.uniform(0.3, 0.8)}[str(kind)]
        kerb = begins + float(depth)
        furniture = (kerb + 0.3, kerb + float(rng.uniform(1.35, 2.0)))
        front = furniture[1] + float(rng.uniform(1.9, 3.4))
        offsets = tuple(width * (i + 0.5) for i in range(lanes))
        halves.append(Section(offsets, width, bicycle, str(kind), begins, kerb, furniture, front, front + float(rng.uniform(0.1, 0.7))))
    return halves[0], halves[1]


def _with_bends(plan: Plan, rng: np.random.Generator) -> Plan:
    """Some arms bend, by any angle up to a right one; no bend that would lead an arm near another one."""
    for arm in plan.arms:
        if rng.random() > (0.45 if len(plan.arms) > 2 else 0.65):
            continue
        first = plan.stop(arm) + 14.0 if len(plan.arms) > 2 else 0.0
        radius = float(np.exp(rng.uniform(np.log(TIGHTEST), np.log(220.0))))
        angle = float(rng.choice([-1, 1]) * rng.uniform(0.15, np.pi / 2))
        bends = list(plan.bends)
        bends[arm] = Bend(first + float(rng.uniform(0.0, 55.0)), radius, angle)
        bent = replace(plan, bends=tuple(bends))
        if is_clear(bent):
            plan = bent
    return plan


def is_clear(plan: Plan) -> bool:
    """Whether every arm leads away from the others: at `a` metres along it, 0.8 a from them, or 60 m."""
    along = np.arange(10.0, REACH, 5.0)
    lines = {arm: np.stack(plan.at(arm, along, 0.0)[:2], axis=1) for arm in plan.arms}
    for arm, mine in lines.items():
        for other, theirs in lines.items():
            if other != arm:
                apart = np.linalg.norm(mine[:, None] - theirs, axis=2).min(axis=1)
                if (apart < np.minimum(0.8 * along, 60.0)).any():
                    return False
    return True


def _draw_zebras(plan: Plan, rng: np.random.Generator) -> tuple[tuple[int, float], ...]:
    zebras = []
    for arm in plan.arms:
        if rng.random() < (0.45 if arm % 2 == 0 else 0.15):
            zebras.append((arm, plan.stop(arm) + float(rng.uniform(20.0, 50.0))))
    return tuple(zebras)


def _draw_lots(plan: Plan, rng: np.random.Generator) -> tuple[Lot, ...]:
    """On straight stretches, behind the sidewalk, at most one a quadrant; none that another arm would lead through."""
    lots: dict[int, Lot] = {}
    for arm in plan.arms:
        for sign in (-1, 1):
            quadrant = arm if sign < 0 else (arm - 1) % 4
            if quadrant in lots or rng.random() > 0.45:
                continue
            corner, bend = plan.corner(arm, sign), plan.bends[arm]
            begin = (corner.front + 3.0 if corner else 2.0) + float(rng.uniform(0, 14))
            end = min(begin + float(rng.uniform(18, 55)), 100.0 if bend is None else bend.begin)
            lot = Lot(arm, sign, begin, end, float(rng.choice([7.0, 12.5, 18.5, 29.0], p=[0.2, 0.2, 0.4, 0.2])))
            if end - begin > 14.0 and is_free(plan, lot):
                lots[quadrant] = lot
    return tuple(lots.values())


def is_free(plan: Plan, lot: Lot) -> bool:
    """Whether no road leads through a lot."""
    inner = plan.section(lot.arm, lot.sign).sidewalk_end
    along, across = np.meshgrid(np.linspace(lot.begin, lot.end, 8), inner + np.linspace(2.0, lot.depth, 8))
    x, y, _ = plan.at(lot.arm, along, lot.sign * across)
    return bool((CrossSection.of(plan, x, y).beyond > 1.0).all())
