"""Simulated clips in batches: the same for any number of processes, ranks and restarts."""

from collections import Counter
from contextlib import closing
from functools import partial

import pytest

from perception.core import NUSCENES_DETECTION, UsageError
from perception.training.data_settings import SimulationSettings
from perception.training.plan import Plan
from perception.training.pool import ClipPool
from perception.training.pool_feed import ArrivalFeed, PoolFeed
from tests.training.feed_makers import no_street_two, streets


@pytest.fixture(scope="module", autouse=True)
def _four_clips_a_street():
    """As the makers' streets have them, however many real ones have."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("perception.training.pool_feed.CLIPS_A_SCENE", 4)
        yield


def feed_of(kind=PoolFeed, *, plan=None, workers=0, work=streets, **settings):
    """A feed of numbered clips: batches of 4, at first of 6 clips, two steps for three new ones, the last 10 of which are kept."""
    defaults = {"name": "simulation", "warm_up": 6, "pool_size": 10, "fresh_per_step": "auto" if kind is ArrivalFeed else 1.5}
    values = SimulationSettings.model_validate(defaults | settings)
    return kind(values, work, ClipPool(NUSCENES_DETECTION, "ego", "cpu"), plan or Plan(4, seed=1), workers)


def numbers(samples):
    """Which clips the samples are, by their points, boxes' counts and names."""
    found = [len(sample.points) - 1 for sample in samples]
    assert [sample.num_points.tolist() for sample in samples] == [[number + 1] for number in found]
    assert [sample.token for sample in samples] == [f"clip {number}" for number in found]
    return found


@pytest.fixture(scope="module", autouse=True)
def _four_clips_a_street():
    """As `streets` makes them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("perception.training.pool_feed.CLIPS_A_SCENE", 4)
        yield


@pytest.fixture(scope="module")
def whole(_four_clips_a_street):
    """The first batches of one process that does everything itself."""
    with closing(feed_of()) as feed:
        return [numbers(feed.batch(step)) for step in range(20)]


def test_each_clip_comes_when_it_is_new_and_goes_when_it_is_old(whole):
    for step, batch in enumerate(whole):
        stop = 6 + 3 * step // 2
        assert set(batch) <= set(range(max(0, stop - 10), stop))
        if step:
            assert set(range(6 + 3 * (step - 1) // 2, stop)) <= set(batch)
        assert len(batch) == len(set(batch)) == 4
    assert len({tuple(batch) for batch in whole}) == 20


def test_the_batch_is_what_was_announced(whole):
    with closing(feed_of()) as feed:
        assert [feed.numbers(step) for step in range(20)] == whole
        for step in range(20):
            feed.batch(step)
        assert list(feed._pool) == list(range(24, 36))  # ten of 34, and what else came with the last street
        assert feed.steps_per_epoch is None


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_processes_changes_nothing(whole, workers):
    with closing(feed_of(workers=workers)) as feed:
        assert [numbers(feed.batch(step)) for step in range(12)] == whole[:12]
        assert feed.wait_seconds > 0


def test_ranks_share_the_batch_of_one(whole):
    parts = []
    for rank in range(2):
        with closing(feed_of(plan=Plan(4, rank, 2, seed=1))) as feed:
            parts.append([numbers(feed.batch(step)) for step in range(10)])
    assert [[first[0], second[0], first[1], second[1]] for first, second in zip(*parts, strict=True)] == whole[:10]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_start_in_the_middle_gives_the_same(whole, workers):
    asked = []
    work = partial(_noting, asked) if workers == 0 else streets
    with closing(feed_of(plan=Plan(4, seed=1, first_step=14), work=work, workers=workers)) as feed:
        assert [numbers(feed.batch(step)) for step in range(14, 20)] == whole[14:]
    if workers == 0:
        assert min(asked) == 4  # of clips 6 + 21 - 10 = 17 and on


def test_jumps_start_anew(whole):
    asked = []
    with closing(feed_of(work=partial(_noting, asked))) as feed:
        for step in (0, 1, 1, 19, 2, 10, 11):  # back, again, far ahead
            assert numbers(feed.batch(step)) == whole[step]
        assert max(asked) == 8  # what lies between two pools is not simulated
        assert 5 not in asked[: asked.index(8)]


def test_another_seed_draws_others(whole):
    with closing(feed_of(plan=Plan(4, seed=2))) as feed:
        assert [numbers(feed.batch(step)) for step in range(5)] != whole[:5]


def test_a_pool_without_fresh_clips_stays():
    with closing(feed_of(fresh_per_step=0)) as feed:
        seen = Counter(number for step in range(60) for number in numbers(feed.batch(step)))
    assert set(seen) == set(range(6))
    assert min(seen.values()) > 20  # 240 draws of six: 40 each


def test_more_fresh_clips_than_places_are_refused():
    with pytest.raises(UsageError, match=r"fresh_per_step: expected at most the size of a batch, 4, .* got 4\.5"):
        feed_of(fresh_per_step=4.5)


def test_failures_reach_the_caller():
    with closing(feed_of(work=no_street_two, workers=2)) as feed, pytest.raises(RuntimeError, match="scene 2: ValueError: no street 2"):
        [feed.batch(step) for step in range(5)]


def test_closing_ends_the_processes():
    feed = feed_of(workers=2)
    processes = [worker.process for worker in feed.workers._workers]
    feed.close()
    for process in processes:
        with pytest.raises(ValueError, match="process object is closed"):
            process.is_alive()


def test_what_arrives_is_used_at_once_and_once():
    with closing(feed_of(ArrivalFeed, workers=2, pool_size=24, warm_up=6)) as feed:
        batches = [numbers(feed.batch(step)) for step in range(3)]
        assert feed.num_clips >= 8  # the warm-up, in whole streets
        assert feed.steps_per_epoch is None
        step, seen = 3, {number for batch in batches for number in batch}
        while step < 1000 and (feed.num_clips < 40 or max(seen) < 24):
            batches.append(numbers(feed.batch(step)))
            assert len(set(batches[-1])) == 4
            seen.update(batches[-1])
            step += 1
        assert len(feed._pool) <= 24
    assert len({*batches[0], *batches[1]}) == 8  # new ones before old ones
    assert max(seen) > 23  # and more than the first pool


def test_ranks_simulate_streets_of_their_own():
    kept = []
    for rank in range(2):
        with closing(feed_of(ArrivalFeed, plan=Plan(4, rank, 2), workers=1, warm_up=8, pool_size=8)) as feed:
            kept.append({number // 4 for step in range(6) for number in numbers(feed.batch(step))})
    assert {number % 2 for number in kept[0]} == {0}
    assert {number % 2 for number in kept[1]} == {1}


def _noting(asked, number):
    asked.append(number)
    return streets(number)
