"""Instances: what is checked at the door, and masks as pieces of columns."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from perception.core import DataError
from perception.core.rle import encode_rle
from perception.fusion import Instances
from tests.fusion.makers import SIZE, box_mask, shown


def pixels_of(spans, index, size):
    mask = np.zeros(size[::-1], bool)
    for column, top, bottom in zip(*(part[spans.instance == index] for part in (spans.column, spans.top, spans.bottom)), strict=True):
        assert not mask[top:bottom, column].any()
        mask[top:bottom, column] = True
    return mask


def test_pieces_of_a_mask_follow_its_columns():
    mask = box_mask(1, 2, 3, 5)
    mask[7:9, 2] = True  # a second piece in column 2
    spans = shown((mask, 0, 1.0), (box_mask(0, 0, 0, 0), 0, 1.0), (box_mask(15, 0, 16, 12), 0, 1.0)).spans
    assert spans.instance.tolist() == [0, 0, 0, 2]
    assert spans.column.tolist() == [1, 2, 2, 15]
    assert spans.top.tolist() == [2, 2, 7, 0]
    assert spans.bottom.tolist() == [5, 5, 9, 12]
    assert spans.area.tolist() == [8, 0, 12]


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(bool, st.tuples(st.integers(0, 4), st.integers(1, 7), st.integers(1, 7))))
def test_both_ways_to_pieces_give_the_masks(masks):
    size = masks.shape[2], masks.shape[1]
    found = Instances.from_masks(masks, np.zeros(len(masks), int), np.ones(len(masks)), size)
    quick, slow = found._spans_of_texts(), found._spans_of_runs()
    for one, other in zip(quick, slow, strict=True):
        np.testing.assert_array_equal(one, other)
    for i, mask in enumerate(masks):
        np.testing.assert_array_equal(pixels_of(slow, i, size), mask)
        np.testing.assert_array_equal(found.mask(i), mask)
    assert slow.area.tolist() == masks.sum((1, 2)).tolist()


@pytest.mark.parametrize("counts", [[20, 3, 0, 2, 167], b"d0"], ids=["a list, with an empty run", "bytes"])
def test_other_forms_of_counts_are_read(counts):
    rle = {"size": [12, 16], "counts": counts if isinstance(counts, list) else encode_rle(box_mask(2, 1, 4, 3))["counts"].encode()}
    found = Instances(SIZE, [0], [1.0], [[0, 0, 1, 1]], (rle,))
    assert pixels_of(found.spans, 0, SIZE).sum() == found.spans.area[0] == found.mask(0).sum() > 0


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        pytest.param("0", r"CAM: mask 1: counts: expected runs that add up to 12 x 16 = 192 pixels, got 0", id="too short"),
        pytest.param("P", r"CAM: mask 1: counts: expected a text that ends with a count", id="cut short"),
        pytest.param("a b", r"CAM: mask 1: counts: expected characters '0' to 'o', got ' '", id="foreign character"),
        pytest.param("é", r"CAM: mask 1: counts: expected ASCII text", id="no ASCII"),
        pytest.param("oooooooo0", r"CAM: mask 1: counts: expected at most 7 characters a count", id="endless count"),
        pytest.param("O1P60", r"CAM: mask 1: counts: expected runs of 0 to 192 pixels, got -1", id="negative run"),
        pytest.param(None, r"CAM: mask 1: counts: expected text or a list", id="no counts"),
    ],
)
def test_damaged_masks_are_named(counts, message):
    good = encode_rle(box_mask(2, 1, 4, 3))
    found = Instances(SIZE, [0, 0], [1, 1], np.zeros((2, 4)), (good, good | {"counts": counts}), "CAM")
    with pytest.raises(DataError, match=message):
        _ = found.spans


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"label": [10]}, r"label: expected class indices 0\.\.9, got 10", id="unknown class"),
        pytest.param({"label": [0, 1]}, r"label: expected shape \(1,\), got \(2,\)", id="one label too many"),
        pytest.param({"score": [1.5]}, r"score: expected numbers of 0 to 1, got 1.5", id="score above 1"),
        pytest.param({"score": [np.nan]}, r"score: expected finite", id="no score"),
        pytest.param({"box": [[0, 1, 2]]}, r"box: expected shape \(1, 4\)", id="three corners"),
        pytest.param({"size": (12, 16)}, r"expected the size of its picture, \[16, 12\] rows and columns, got \[12, 16\]", id="turned"),
        pytest.param({"rle": ("mask",)}, r"mask 0: expected the size of its picture", id="no mask"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    good = {"size": SIZE, "label": [0], "score": [1.0], "box": [[0, 0, 1, 1]], "rle": (encode_rle(box_mask(0, 0, 1, 1)),)}
    assert len(Instances(**good)) == 1
    with pytest.raises(DataError, match=message):
        Instances(**(good | change))


def test_rows_boxes_and_repr():
    found = shown((box_mask(1, 2, 5, 4), 3, 0.5), (box_mask(0, 0, 0, 0), 4, 0.25), (box_mask(6, 6, 16, 12), 5, 1.0))
    assert found.box.tolist() == [[1, 2, 5, 4], [0, 0, 0, 0], [6, 6, 16, 12]]
    assert repr(found) == "Instances(instances, 3 in 16x12)"
    assert found[np.array([True, False, True])].label.tolist() == [3, 5]
    assert (len(found[1]), found[1].score.tolist(), len(found[:0])) == (1, [0.25], 0)
    np.testing.assert_array_equal(found[2].mask(0), found.mask(2))
    empty = Instances.empty(SIZE)
    assert (len(empty), len(empty.spans.column), empty.spans.area.tolist()) == (0, 0, [])


def test_to_a_file_and_back():
    found = shown((box_mask(1, 2, 5, 4), 3, 0.5), (box_mask(0, 0, 0, 0), 4, 0.25), (box_mask(6, 6, 16, 12), 5, 1.0))
    wide = Instances(SIZE, found.label, found.score, [[-3, 2, 5.5, 4], [0, 0, 0, 0], [20, 20, 30, 30]], found.rle)
    picture = wide.to_picture("t", "s", "f.jpg")
    assert picture.box.tolist() == [[0, 2, 5.5, 4], [6, 6, 16, 12]]  # cut at the border; outside of the picture, that of the mask
    back = Instances.from_picture(picture)
    assert (back.label.tolist(), back.score.tolist(), back.where) == ([3, 5], [0.5, 1.0], "f.jpg")
    np.testing.assert_array_equal(back.mask(1), found.mask(2))
