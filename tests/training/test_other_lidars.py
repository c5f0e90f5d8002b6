"""Clouds as other lidars would have seen them: whole beams, far points, sectors and sweeps are lost, and nothing else."""

import math

import numpy as np
import pytest
import torch

from perception.training.augment import augment
from tests.training.scenes import boxes_at, rng_of, sample_with, settings_of

ORIGIN = (1.0, 2.0, 1.8)
BEAMS = np.radians(np.linspace(-30, 10, 32))


def beams_from(origin, *, per_beam=90):
    """(32 * per_beam, 5): each beam of a lidar at `origin` hits something at 5 to 40 m; the intensity is the number of the beam."""
    rng = rng_of(3)
    elevation = np.repeat(BEAMS, per_beam)
    azimuth, distance = np.tile(np.linspace(-math.pi, math.pi, per_beam, endpoint=False), len(BEAMS)), rng.uniform(5, 40, len(elevation))
    flat = np.stack([np.cos(azimuth), np.sin(azimuth)], axis=1) * (distance * np.cos(elevation))[:, None]
    points = np.column_stack([flat, distance * np.sin(elevation), np.repeat(np.arange(32), per_beam), np.zeros(len(elevation))])
    points[:, :3] += origin
    return points.astype(np.float32)


def shares_kept(points, sample):
    """(32,) of each beam's points."""
    return np.bincount(points[:, 3].long().numpy(), minlength=32) / np.bincount(sample.points[:, 3].long().numpy())


@pytest.mark.parametrize(("every", "kept"), [(1, 32), (2, 16), (4, 8)])
def test_one_beam_in_so_many_is_kept_whole(every, kept):
    sample = sample_with(beams_from(ORIGIN), origin=ORIGIN)
    spacing = BEAMS[1] - BEAMS[0]
    settings = settings_of(beams={"chance": 1.0, "regular": 1.0, "spacing": [spacing, spacing], "keep_every": [every, every]})
    ever = np.zeros(32, bool)
    for seed in range(25):
        shares = shares_kept(augment(sample, settings, rng_of(seed)).points, sample)
        whole, lost = (shares == 1).sum(), (shares == 0).sum()
        assert whole + lost == 32  # bins as wide as the beams are apart: none holds two, and a beam on an edge is rare
        assert abs(whole - kept) <= 1
        assert (np.diff(np.flatnonzero(shares == 1)) == every).all()
        ever |= shares == 1
    assert ever.all()  # not the same ones each time


def test_a_share_of_the_beams_is_lost_at_random():
    sample = sample_with(beams_from(ORIGIN), origin=ORIGIN)
    spacing = BEAMS[1] - BEAMS[0]
    settings = settings_of(beams={"chance": 1.0, "regular": 0.0, "spacing": [spacing, spacing], "lost": [0.3, 0.3]})
    shares = np.array([shares_kept(augment(sample, settings, rng_of(seed)).points, sample) for seed in range(60)])
    assert set(np.unique(shares)) == {0, 1}
    assert (shares == 0).mean() == pytest.approx(0.3, abs=0.04)  # 1920 beams: 4 deviations
    assert (shares == 0).mean(axis=0).max() < 0.6  # no beam is always lost


def test_beams_are_seen_from_where_the_lidar_is():
    # Told a wrong place, the bins cut across the beams.
    sample = sample_with(beams_from(ORIGIN), origin=(1.0, 2.0, 0.0))
    settings = settings_of(beams={"chance": 1.0, "regular": 1.0, "spacing": [0.0225, 0.0225], "keep_every": [2, 2]})
    shares = shares_kept(augment(sample, settings, rng_of()).points, sample)
    assert ((shares > 0.1) & (shares < 0.9)).sum() > 16


@pytest.mark.parametrize("part", ["beams", "point_drop", "sector"])
def test_the_chance_is_the_share_of_samples_that_are_changed(part):
    sample = sample_with(beams_from(ORIGIN, per_beam=180), origin=ORIGIN)
    fixed = {
        "beams": {"regular": 1.0, "keep_every": [3, 3]},
        "point_drop": {"near": [0.3, 0.3], "far": [0.3, 0.3]},
        "sector": {"width": [3.0, 3.0], "distance": [0, 0]},
    }
    settings = settings_of(**{part: fixed[part] | {"chance": 0.25}})
    changed = [len(augment(sample, settings, rng_of(seed)).points) < len(sample.points) for seed in range(300)]
    assert np.mean(changed) == pytest.approx(0.25, abs=0.1)  # 4 deviations


def test_farther_points_are_lost_more_often():
    rings = torch.zeros(9000, 5)
    rings[:, 0] = torch.tensor([0.0, 25.0, 80.0]).repeat_interleave(3000)
    rings[:, :3] += torch.tensor(ORIGIN)
    sample = sample_with(rings, origin=ORIGIN)
    settings = settings_of(point_drop={"chance": 1.0, "near": [0.1, 0.1], "far": [0.5, 0.5], "distance": 50.0})
    found = augment(sample, settings, rng_of()).points[:, 0]
    lost = [1 - ((found - 1 - x).abs() < 0.1).sum().item() / 3000 for x in (0, 25, 80)]
    assert lost == pytest.approx([0.1, 0.3, 0.5], abs=0.04)  # 4 deviations


@pytest.mark.parametrize("seed", range(10))
def test_a_sector_is_hidden_from_a_distance_on(seed):
    sample = sample_with(beams_from(ORIGIN, per_beam=720), origin=ORIGIN)
    found = augment(sample, settings_of(sector={"chance": 1.0, "width": [0.3, 0.5], "distance": [10, 10]}), rng_of(seed)).points
    kept = {tuple(row) for row in found.tolist()}
    assert 0 < len(kept) < len(sample.points)
    offset = sample.points[:, :2] - torch.tensor(ORIGIN[:2])
    azimuth, distance = torch.atan2(offset[:, 1], offset[:, 0]), offset.norm(dim=1)
    is_lost = torch.tensor([tuple(row) not in kept for row in sample.points.tolist()])
    assert distance[is_lost].min() > 10
    # All within half a radian, and all of them: the lost ones lie in a sector in which nothing far is left.
    middle = torch.atan2(azimuth[is_lost].sin().mean(), azimuth[is_lost].cos().mean())
    turn = torch.remainder(azimuth - middle + math.pi, 2 * math.pi) - math.pi
    low, high = turn[is_lost].min(), turn[is_lost].max()
    assert 0.27 < high - low <= 0.5
    assert is_lost[(turn >= low) & (turn <= high) & (distance > 10.01)].all()


def sweeps(ages):
    """One point a sweep, in a box."""
    return sample_with([(5, 0, 0, 0, age) for age in ages], boxes_at((5, 0, 0), (5, 0, 0)))


@pytest.mark.parametrize("rate", [10, 20])
def test_each_number_of_sweeps_is_kept_as_often_as_any_other(rate):
    sample = sweeps(np.arange(10) / rate)
    settings = settings_of(sweeps={"count": [2, 9]})
    counts = np.bincount([len(augment(sample, settings, rng_of(seed)).points) for seed in range(800)], minlength=11)
    assert counts[[0, 1, 10]].tolist() == [0, 0, 0]
    assert 60 < counts[2:10].min() <= counts[2:10].max() < 140  # 100 +- 4 deviations


def test_the_youngest_sweeps_are_kept_whatever_their_exact_ages():
    # nuScenes: 20 Hz, give or take a few milliseconds
    ages = [0, 0.0497, 0.1002, 0.1495, 0.2004, 0.2497, 0.2999, 0.3503, 0.3998, 0.4502]
    for count in range(1, 11):
        found = augment(sweeps(ages), settings_of(sweeps={"count": [count, count]}), rng_of())
        assert found.points[:, 4].tolist() == pytest.approx(ages[:count])


def test_a_share_of_the_samples_keeps_the_key_sweep_only():
    sample, settings = sweeps(np.arange(10) / 20), settings_of(sweeps={"count": [10, 10], "key_only": 0.4})
    counts = np.array([len(augment(sample, settings, rng_of(seed)).points) for seed in range(300)])
    assert set(counts) == {1, 10}
    assert (counts == 1).mean() == pytest.approx(0.4, abs=0.12)


@pytest.mark.parametrize(
    ("there", "kept", "needed", "is_known"),
    [
        (10, 1, 3, False),
        (10, 2, 3, False),
        (10, 3, 3, True),
        (10, 10, 3, True),
        (2, 10, 3, False),  # never had three
        (1, 1, 3, False),
        (1, 1, 0, True),  # the setting says to leave it
        (1, 1, 1, True),
        (10, 1, 2, False),
        (10, 2, 2, True),
        (3, 5, 3, True),
    ],
)
def test_velocity_is_unknown_where_too_few_sweeps_tell_it(there, kept, needed, is_known):
    sample = sweeps(np.arange(there) / 20)
    settings = settings_of(sweeps={"count": [kept, kept], "velocity_from": needed}, flip_x=0.5, rotation=1.0)
    found = augment(sample, settings, rng_of())
    assert len(found.boxes) == 2
    assert torch.isfinite(found.boxes[:, 6:8]).all().item() is is_known
    assert torch.isnan(found.boxes[:, 6:8]).all().item() is not is_known
    assert torch.isfinite(found.boxes[:, [0, 1, 2, 3, 4, 5, 8]]).all()
    assert found.num_points.tolist() == [1, 1]


@pytest.mark.parametrize("part", ["beams", "point_drop", "sector", "sweeps"])
def test_what_one_part_loses_is_lost_whatever_the_others_keep(part):
    sample = sample_with(beams_from(ORIGIN), origin=ORIGIN)
    sample.points[::2, 4] = 0.05
    nothing = {
        "beams": {"chance": 1.0, "regular": 1.0, "keep_every": [1, 1]},
        "point_drop": {"chance": 1.0, "near": [0, 0], "far": [0, 0]},
        "sector": {"chance": 1.0, "distance": [100, 100]},
        "sweeps": {"count": [10, 10]},
    }
    much = {
        "beams": {"keep_every": [2, 2]},
        "point_drop": {"near": [0.5, 0.5], "far": [0.5, 0.5]},
        "sector": {"width": [3, 3], "distance": [0, 0]},
        "sweeps": {"count": [1, 1]},
    }
    assert len(augment(sample, settings_of(**nothing), rng_of()).points) == len(sample.points)
    found = augment(sample, settings_of(**(nothing | {part: nothing[part] | much[part]})), rng_of())
    assert 0.4 < len(found.points) / len(sample.points) < 0.6  # half by each of them
