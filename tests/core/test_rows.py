"""Laws of indexing and concatenation, for every value that has rows."""

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.core import NUSCENES_DETECTION, NUSCENES_TRACKING, Boxes3D, ClassSet, DataError, Detections, PointCloud, Tracks, concatenate
from perception.core.rows import is_rows

quick = settings(max_examples=40, deadline=None)


def cloud(count: int) -> PointCloud:
    return PointCloud(np.arange(5 * count, dtype=np.float32).reshape(count, 5), ring=np.arange(count))


def boxes(count: int) -> Boxes3D:
    number = np.arange(count, dtype=np.float64)
    velocity = np.column_stack([number, np.where(number % 2, np.nan, number)])
    return Boxes3D(number[:, None] * [1, 2, 3], number[:, None] + [1, 2, 3], number, velocity)


def detections(count: int) -> Detections:
    number = np.arange(count)
    return Detections(boxes(count), number % 10, number / 10, NUSCENES_DETECTION, [f"a{i}" for i in range(count)], num_points=number)


def tracks(count: int) -> Tracks:
    number = np.arange(count)
    covariance = np.ones((count, 4, 4)) * number[:, None, None]
    return Tracks(
        boxes(count), number % 7, number / 10, NUSCENES_TRACKING, number, number / 2, number, number % 2 == 0, number, covariance=covariance
    )


MAKERS = {"PointCloud": cloud, "Boxes3D": boxes, "Detections": detections, "Tracks": tracks}


def assert_same(a, b) -> None:
    """Equal in every column, dtype and all (NaN equals NaN)."""
    assert type(a) is type(b)
    for field in fields(a):
        one, two = getattr(a, field.name), getattr(b, field.name)
        if isinstance(one, np.ndarray):
            np.testing.assert_array_equal(one, two)
            assert one.dtype.kind == two.dtype.kind
        elif is_rows(one):
            assert_same(one, two)
        else:
            assert one == two


@pytest.fixture(params=MAKERS)
def make(request):
    return MAKERS[request.param]


@pytest.mark.parametrize("index", [0, 4, -1, -5, np.int64(2), np.uint8(3)])
def test_an_integer_gives_one_row_of_the_same_type(make, index):
    value = make(5)
    assert_same(value[index], value[[int(index)]])
    assert len(value[index]) == 1


def test_a_small_integer_type_does_not_wrap_around():
    value = cloud(300)  # NumPy 2 keeps the type of np.uint8(255) + 1, which is 0 then
    assert_same(value[np.uint8(255)], value[255:256])
    assert_same(value[np.int8(127)], value[127:128])


@pytest.mark.parametrize("index", [5, -6, np.int64(7)])
def test_rows_that_do_not_exist_are_refused(make, index):
    with pytest.raises(IndexError, match=rf"expected a row in -5\.\.4, got {index}"):
        make(5)[index]
    with pytest.raises(IndexError):
        make(5)[[index]]


def test_iteration_yields_every_row_once(make):
    rows = list(make(3))
    assert len(rows) == 3
    assert_same(concatenate(rows), make(3))


@pytest.mark.parametrize("index", [True, np.bool_(True), np.zeros((5, 5), bool), [[0, 1]], None], ids=repr)
def test_an_index_has_one_dimension(make, index):
    with pytest.raises(IndexError, match="expected an index of one dimension, got shape"):
        make(5)[index]


@pytest.mark.parametrize("index", [[True, False], [0.5], ["a"]], ids=["short mask", "fraction", "text"])
def test_other_indices_are_refused_by_numpy(make, index):
    with pytest.raises(IndexError):
        make(5)[index]


@pytest.mark.parametrize("index", [[], np.zeros(0), np.zeros(0, bool), slice(0, 0)], ids=["list", "floats", "mask", "slice"])
def test_nothing_can_be_picked(make, index):
    value = make(0) if isinstance(index, np.ndarray) and index.dtype == bool else make(5)
    assert_same(value[index], make(0))


@quick
@given(st.sampled_from(sorted(MAKERS)), st.integers(0, 8), st.data())
def test_a_mask_is_its_row_numbers(kind, count, data):
    value = MAKERS[kind](count)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)), dtype=bool)
    assert_same(value[mask], value[np.flatnonzero(mask)])


@quick
@given(st.sampled_from(sorted(MAKERS)), st.integers(1, 8), st.data())
def test_picking_twice_is_picking_the_picked(kind, count, data):
    value = MAKERS[kind](count)
    first = np.array(data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=6)))
    second = np.array(data.draw(st.lists(st.integers(0, len(first) - 1), max_size=6)), dtype=np.int64)
    assert_same(value[first][second], value[first[second]])


@quick
@given(st.sampled_from(sorted(MAKERS)), st.integers(0, 8), st.integers(0, 8))
def test_cutting_and_joining_gives_the_whole(kind, count, cut):
    value = MAKERS[kind](count)
    assert_same(concatenate([value[:cut], value[cut:]]), value)


@quick
@given(st.sampled_from(sorted(MAKERS)), st.lists(st.integers(0, 4), min_size=1, max_size=4))
def test_concatenate_is_associative_and_keeps_order(kind, counts):
    values = [MAKERS[kind](count) for count in counts]
    joined = concatenate(values)
    assert len(joined) == sum(counts)
    step_by_step = values[0]
    for value in values[1:]:
        step_by_step = concatenate([step_by_step, value])
    assert_same(joined, step_by_step)
    start = 0
    for value in values:
        assert_same(joined[start : start + len(value)], value)
        start += len(value)


def test_values_joined_do_not_share_memory_with_their_parts(make):
    part = make(2)
    joined = concatenate([part, part])
    column = next(f.name for f in fields(part) if isinstance(getattr(part, f.name), np.ndarray))
    assert not np.shares_memory(getattr(joined, column), getattr(part, column))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param([], "concatenate: expected at least one value, got none", id="none"),
        pytest.param([boxes(1), cloud(1)], "concatenate: expected values of one type, got Boxes3D and PointCloud", id="types"),
        pytest.param(
            [cloud(1), PointCloud(np.zeros((1, 5), np.float32))],
            "PointCloud.ring: expected in all 2 values or in none, got it in 1",
            id="optional column",
        ),
        pytest.param(
            [Detections.empty(ClassSet(("car",))), Detections.empty(ClassSet(("bus",)))],
            r"Detections.classes: expected the same in all values, got ClassSet\(car\) and ClassSet\(bus\)",
            id="classes",
        ),
    ],
)
def test_what_cannot_be_joined_is_refused(values, message):
    with pytest.raises(DataError, match=message):
        concatenate(values)
