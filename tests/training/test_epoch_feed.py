"""Samples of recordings in batches: every one once an epoch, in an order that the seed decides."""

from collections import Counter
from contextlib import closing

import numpy as np
import pytest
import torch

from perception.core import NUSCENES_DETECTION, ClassSet, UsageError
from perception.training.epoch_feed import EpochFeed, balanced_order
from perception.training.plan import Plan
from tests.training.feed_makers import NumberedSource

KINDS = ["clips", "clouds"]


def feed_of(count=10, *, kind="clips", plan=None, workers=0, order=None, source=None) -> EpochFeed:
    source = source or NumberedSource(count, kind)
    order = np.arange(count) if order is None else np.array(order)
    return EpochFeed(source, order, NUSCENES_DETECTION, "ego", plan or Plan(4, seed=1), workers, "cpu")


def numbers(samples):
    return [len(sample.points) - 1 for sample in samples]


@pytest.mark.parametrize("kind", KINDS)
def test_samples_come_whole(kind):
    with closing(feed_of(kind=kind)) as feed:
        samples, expected = feed.batch(0), feed.numbers(0)
    for sample, number in zip(samples, expected, strict=True):
        assert sample.token == f"clip {number}"
        assert sample.points.shape == (number + 1, 5)
        assert (sample.points[:, 3] == number).all()
        assert sample.labels.tolist() == [0]
        assert sample.num_points.tolist() == [number + 1]
        torch.testing.assert_close(sample.boxes[:, :6], torch.tensor([[5.0, 0, 1, 2, 4, 1.5]]))  # det3d: width before length
        assert sample.origin.tolist() == [1, 0, 2]


def test_each_sample_comes_once_an_epoch():
    with closing(feed_of(8)) as feed:
        assert feed.steps_per_epoch == 2
        epochs = [numbers(feed.batch(2 * epoch)) + numbers(feed.batch(2 * epoch + 1)) for epoch in range(3)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(8))] * 3
    assert epochs[0] != epochs[1] != epochs[2]


def test_what_is_left_of_an_epoch_is_left_out():
    with closing(feed_of(11)) as feed:
        assert feed.steps_per_epoch == 2  # 11 samples, batches of 4
        epochs = [feed.numbers(2 * epoch) + feed.numbers(2 * epoch + 1) for epoch in range(30)]
    assert all(len(set(epoch)) == 8 for epoch in epochs)
    assert len({frozenset(epoch) for epoch in epochs}) > 1


def test_few_samples_fill_a_batch_in_turns():
    with closing(feed_of(3, plan=Plan(8))) as feed:
        assert feed.steps_per_epoch == 1
        for step in range(3):
            assert sorted(Counter(numbers(feed.batch(step))).values()) == [2, 3, 3]


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_processes_changes_nothing(workers):
    with closing(feed_of()) as one, closing(feed_of(workers=workers)) as more:
        for step in range(6):
            assert numbers(more.batch(step)) == numbers(one.batch(step)) == one.numbers(step)
        assert more.wait_seconds > 0


def test_ranks_share_the_batch_of_one():
    with closing(feed_of()) as whole, closing(feed_of(plan=Plan(4, 0, 2, 1))) as first, closing(feed_of(plan=Plan(4, 1, 2, 1))) as second:
        for step in range(6):
            (a, c), (b, d) = numbers(first.batch(step)), numbers(second.batch(step))
            assert [a, b, c, d] == numbers(whole.batch(step))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_start_in_the_middle_and_jumps_give_the_same(workers):
    with closing(feed_of()) as whole, closing(feed_of(workers=workers, plan=Plan(4, seed=1, first_step=5))) as feed:
        for step in (5, 6, 3, 3, 10):
            assert numbers(feed.batch(step)) == whole.numbers(step)


def test_the_seed_decides():
    first, again, other = (feed_of(plan=Plan(4, seed=seed)).numbers(0) for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_sample_is_named(workers):
    """By its number in the source."""
    with closing(feed_of(source=NumberedSource(10, "broken"), workers=workers)) as feed:
        first = feed.numbers(0)[0]
        with pytest.raises(RuntimeError, match=f"^sample {first}: OSError: broken"):
            feed.batch(0)


def test_rare_classes_come_more_often():
    # samples 0..8 have a car; 9 has a bicycle too
    order = balanced_order(NumberedSource(10, "clips", (["car"],) * 9 + (["car", "bicycle", "bicycle"],)), NUSCENES_DETECTION, 0)
    assert len(order) == 10  # 11 entries, two classes: 5 of each list
    assert Counter(order.tolist())[9] >= 5
    with closing(feed_of(order=[9, 9, 9, 4])) as feed:
        assert sorted(feed.numbers(0)) == [4, 9, 9, 9]
        assert feed.steps_per_epoch == 1


def test_classes_of_other_networks_do_not_count():
    source = NumberedSource(2, "clips", (["car"], ["bicycle"]))
    assert balanced_order(source, ClassSet(("bicycle", "bus")), 0).tolist() == [1]
    with pytest.raises(UsageError, match="class_balanced: expected samples with objects of bus, found none"):
        balanced_order(source, ClassSet(("bus",)), 0)
