"""The compiled loops against the same rules in plain Python."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from perception.tracking import kernel
from tests.tracking.makers import HALF_SECOND, START_US, UNKNOWN, greedy_by_hand

NOW = START_US + 10 * HALF_SECOND


def problem(detections: list[dict], tracks: list[dict]) -> tuple:
    """Both lists as `kernel.associate` takes them: order, found, label, numbers, whole, count."""
    found = np.ones((len(detections), kernel.NUM_FLOATS), order="F")
    for i, d in enumerate(detections):
        found[i, [kernel.X, kernel.Y, kernel.VX, kernel.VY, kernel.SCORE]] = d["x"], d["y"], *(d["v"] or (UNKNOWN, UNKNOWN)), d["score"]
    numbers, whole = np.ones((len(tracks) + 3, kernel.NUM_FLOATS)), np.zeros((len(tracks) + 3, kernel.NUM_INTS), np.int64)
    for j, t in enumerate(tracks):
        numbers[j, [kernel.X, kernel.Y, kernel.VX, kernel.VY]] = t["x"], t["y"], *(t["v"] or (UNKNOWN, UNKNOWN))
        whole[j, [kernel.LABEL, kernel.SEEN_US]] = t["label"], t["seen_us"]
    order = np.argsort(-found[:, kernel.SCORE], kind="stable")
    return order, found, np.array([d["label"] for d in detections], np.int64), numbers, whole, len(tracks)


def associate(detections: list[dict], tracks: list[dict], *, gate: list[float], growth: float, horizon: float) -> dict[int, int]:
    match = kernel.associate(*problem(detections, tracks), NOW, np.array(gate), growth, horizon)
    return {i: int(j) for i, j in enumerate(match) if j >= 0}


def one(x: float, y: float = 0.0, *, v=(0.0, 0.0), label: int = 0, score: float = 0.5, ago: float = 0.5) -> dict:
    return {"x": x, "y": y, "v": v, "label": label, "score": score, "seen_us": NOW - round(ago * 1e6)}


RULES = {"gate": [2.0, 4.0], "growth": 0.25, "horizon": 1.0}


@pytest.mark.parametrize(
    ("detections", "tracks", "pairs"),
    [
        pytest.param([one(1), one(-1)], [one(0)], {0: 0}, id="equal scores and distances: first in the list"),
        pytest.param([one(1), one(-1, score=0.6)], [one(0)], {1: 0}, id="the more confident chooses first"),
        pytest.param([one(0)], [one(1), one(-1)], {0: 0}, id="two tracks at one distance: the lower row"),
        pytest.param([one(0)], [one(-1), one(1)], {0: 0}, id="and not the one further left"),
        pytest.param([one(0)], [one(0, 1), one(0, -1), one(1), one(-1)], {0: 0}, id="four at one distance"),
        pytest.param([one(0, score=0.6), one(0)], [one(-1), one(1)], {0: 0, 1: 1}, id="the second takes what is left"),
        pytest.param([one(2)], [one(0)], {0: 0}, id="the gate itself is inside"),
        pytest.param([one(2.001)], [one(0)], {}, id="beyond the gate"),
        pytest.param([one(4, label=1)], [one(0, label=1)], {0: 0}, id="each class has its own gate"),
        pytest.param([one(0, label=1)], [one(0)], {}, id="another class"),
        pytest.param([one(0, label=-1)], [one(0)], {}, id="a class that is not tracked"),
        pytest.param([one(5, v=(10, 0))], [one(0, v=(10, 0))], {0: 0}, id="moving"),
        pytest.param([one(-5, v=(10, 0))], [one(0, v=(10, 0))], {}, id="moved the other way"),
        pytest.param([one(5, v=(10, 0))], [one(0, v=(9, 0)), one(0, v=(10, 0))], {0: 1}, id="the velocity of the track counts"),
        pytest.param([one(5, v=None)], [one(0, v=(10, 0))], {0: 0}, id="unknown velocity of the detection"),
        pytest.param([one(5, v=(10, 0))], [one(0, v=None)], {0: 0}, id="unknown velocity of the track"),
        pytest.param([one(1, v=None)], [one(0, v=None)], {0: 0}, id="both unknown: standing"),
        pytest.param([one(5, v=(10, math.nan))], [one(0, v=(10, 0))], {0: 0}, id="half known is unknown"),
        pytest.param([one(5, v=(math.inf, 0))], [one(0, v=(10, 0))], {0: 0}, id="infinite is unknown"),
        pytest.param([one(2.4)], [one(0, ago=1.0)], {0: 0}, id="after 1 s the gate is a quarter larger: 2.5"),
        pytest.param([one(2.6)], [one(0, ago=1.0)], {}, id="and no more"),
        pytest.param([one(2.6)], [one(0, ago=1.7)], {}, id="after the horizon it grows no more"),
        pytest.param([one(1.6)], [one(0, ago=0.1)], {0: 0}, id="after 0.1 s it is 1.6"),
        pytest.param([one(1.61)], [one(0, ago=0.1)], {}, id="and no more than 1.6"),
        pytest.param([one(1.5)], [one(0, ago=0.0)], {0: 0}, id="at the same moment: the error of position"),
        pytest.param([one(1.51)], [one(0, ago=0.0)], {}, id="and none of velocity"),
        pytest.param([], [one(0)], {}, id="no detection"),
        pytest.param([one(0)], [], {}, id="no track"),
    ],
)
def test_associate(detections, tracks, pairs):
    assert associate(detections, tracks, **RULES) == pairs


def random_one(rng: np.random.Generator, *, lattice: bool, unknown: float, origin: float) -> dict:
    """On a lattice of half metres and 2 m/s: sums are exact, and equal distances and scores are common."""
    x, y = (rng.integers(-6, 7, 2) / 2 if lattice else rng.uniform(-8, 8, 2)) + origin
    v = 2.0 * rng.integers(-3, 4, 2) if lattice else rng.normal(0, 6, 2)
    return {
        "x": float(x),
        "y": float(y),
        "v": None if rng.random() < unknown else (float(v[0]), float(v[1])),
        "label": int(rng.integers(2)),
        "score": float(rng.integers(1, 4) / 4 if lattice else rng.random()),
        "seen_us": NOW - int(rng.choice([0, 100_000, 500_000, 1_000_000, 1_750_000])),
    }


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    num_detections=st.integers(0, 30),
    num_tracks=st.integers(0, 30),
    lattice=st.booleans(),
    unknown=st.sampled_from([0.0, 0.0, 0.3, 1.0]),
    origin=st.sampled_from([0.0, 1e5, -1e7]),
    growth=st.sampled_from([0.0, 0.25, 1.0]),
)
@example(seed=0, num_detections=30, num_tracks=30, lattice=True, unknown=0.0, origin=1e5, growth=0.25)
def test_associate_does_what_the_method_says(seed, num_detections, num_tracks, lattice, unknown, origin, growth):
    rng = np.random.default_rng(seed)
    detections, tracks = (
        [random_one(rng, lattice=lattice, unknown=unknown, origin=origin) for _ in range(count)] for count in (num_detections, num_tracks)
    )
    rules = {"gate": [1.0, 2.5], "growth": growth, "horizon": 1.0}
    assert associate(detections, tracks, **rules) == greedy_by_hand(detections, tracks, now_us=NOW, **rules)


@pytest.mark.parametrize("seed", range(6))
def test_a_large_crowd_is_associated_as_a_small_one(seed):
    # Many buckets, tracks of very different speed and age; one stray track far away stretches the buckets.
    rng = np.random.default_rng(seed)
    extent = [20.0, 200.0, 2000.0][seed % 3]
    detections, tracks = ([random_one(rng, lattice=False, unknown=0.1 * (seed > 2), origin=0.0) for _ in range(250)] for _ in range(2))
    for item in detections + tracks:
        item["x"], item["y"] = (float(p) for p in rng.uniform(-extent, extent, 2) * (1, 0.1))
        item["score"] = float(rng.random())
        if seed % 3 < 2:  # of one age: the search is at its narrowest
            item["seen_us"] = NOW - HALF_SECOND
    if seed % 2:
        tracks[0]["x"] = 1e9
    rules = {"gate": [3.0, 10.0], "growth": 0.5, "horizon": 1.0}
    pairs = associate(detections, tracks, **rules)
    assert pairs == greedy_by_hand(detections, tracks, now_us=NOW, **rules)
    assert len(pairs) > (0 if extent > 1000 else 20)


@pytest.mark.parametrize("x", [1.7e308, -1.7e308, 1e160, 5e-324])
def test_positions_at_the_end_of_what_a_number_can_hold_do_not_hide_others(x):
    detections, tracks = [one(x), one(0.5)], [one(x), one(0.0), one(-x)]
    assert associate(detections, tracks, **RULES)[1] in (0, 1)
    assert associate(detections[1:], tracks[:2], **RULES)[0] in (0, 1)


def test_retire_keeps_the_order_and_forgets_the_last_frame():
    numbers, whole = np.arange(5.0)[:, None] * np.ones(kernel.NUM_FLOATS), np.zeros((5, kernel.NUM_INTS), np.int64)
    whole[:, kernel.ID] = [1, 2, 3, 4, 99]
    whole[:, kernel.LABEL] = [0, 1, 0, 1, 0]
    whole[:, kernel.SEEN_US] = 100
    whole[:, kernel.DETECTION] = 7
    assert kernel.retire(numbers, whole, 4, 300, np.array([199, 200])) == 2  # row 4 is not in use
    assert whole[:2, kernel.ID].tolist() == [2, 4]
    assert numbers[:2, 0].tolist() == [1.0, 3.0]
    assert whole[:2, kernel.DETECTION].tolist() == [-1, -1]
