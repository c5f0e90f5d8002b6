"""Class-balanced resampling: rare classes come as often as common ones."""

import numpy as np
import pytest

from perception.training.resample import class_balanced


def test_each_class_is_drawn_as_often_as_any_other():
    # 90 + 9 + 3 entries, three classes: 34 from each list
    lists = {"car": np.arange(90), "bus": range(100, 109), "bicycle": [200, 201, 202]}
    drawn = class_balanced(lists, seed=0)
    assert drawn.dtype == np.int64
    assert [len(part) for part in np.split(drawn, [34, 68])] == [34, 34, 34]
    for part, indices in zip(np.split(drawn, [34, 68]), lists.values(), strict=True):
        assert set(part) <= set(indices)
    assert set(drawn[68:]) == {200, 201, 202}  # with replacement, 34 times of three


def test_the_published_size():
    # Ten lists of all 28,130 frames would give 28,130 each: the resampled set is as long as the lists together.
    lists = {name: np.arange(size) for name, size in enumerate([20, 10, 5, 5, 3, 1, 1, 1, 1, 3])}
    assert len(class_balanced(lists, seed=1)) == 50


def test_the_seed_decides():
    lists = {0: np.arange(50), 1: np.arange(7)}
    assert class_balanced(lists, 3).tolist() == class_balanced(lists, 3).tolist()
    assert class_balanced(lists, 3).tolist() != class_balanced(lists, 4).tolist()


@pytest.mark.parametrize(
    ("lists", "drawn"),
    [
        pytest.param({}, [], id="no classes"),
        pytest.param({"car": [], "bus": []}, [], id="no samples"),
        pytest.param({"car": [4, 4], "bus": []}, [4, 4], id="a class without a sample is left out"),
    ],
)
def test_what_is_empty_is_left_out(lists, drawn):
    assert class_balanced(lists, 0).tolist() == drawn
