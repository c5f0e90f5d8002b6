"""The checks at the door of every value."""

import numpy as np
import pytest

from perception.core import DataError
from perception.core.expect import expect_array, expect_finite, expect_labels, expect_strings


def test_a_fitting_array_passes_untouched():
    array = np.zeros((4, 3))
    assert expect_array("x", array, (None, 3), "float64", finite=True) is array


@pytest.mark.parametrize(
    ("value", "shape", "dtype"),
    [
        pytest.param([1, 2], (2,), "float64", id="integers to float"),
        pytest.param(np.zeros(2, np.float32), (2,), "float64", id="widening"),
        pytest.param(np.zeros(2), (2,), "float32", id="narrowing within floats"),
        pytest.param(np.array([1, 2], np.uint64), (None,), "int64", id="unsigned that fits"),
        pytest.param([True, False], (2,), "int64", id="bool to integer"),
        pytest.param((1.5, 2.5), (2,), "float64", id="tuple"),
    ],
)
def test_harmless_conversions_are_done(value, shape, dtype):
    got = expect_array("x", value, shape, dtype)
    assert got.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(got, value)


@pytest.mark.parametrize("empty", [[], np.zeros(0), np.zeros((0, 7)), np.zeros(0, np.str_), np.zeros((0, 3), np.int64)], ids=repr)
def test_no_rows_are_no_rows_whatever_their_width_and_type(empty):
    got = expect_array("x", empty, (None, 3), "float64", finite=True)
    assert got.shape == (0, 3)
    assert got.dtype == np.float64
    assert expect_array("x", empty, (0, 4, 4), "int64").shape == (0, 4, 4)


@pytest.mark.parametrize(
    ("value", "shape", "dtype", "message"),
    [
        pytest.param([1.5], (None,), "int64", "x: expected dtype int64, got float64", id="fractions would be lost"),
        pytest.param([1], (1,), "bool", "x: expected dtype bool, got int64", id="numbers are no flags"),
        pytest.param(["1"], (1,), "float64", "x: expected dtype float64, got <U1", id="text"),
        pytest.param(None, (None,), "float64", "x: expected dtype float64, got object", id="None"),
        pytest.param(np.array(["2020"], "M8[us]"), (1,), "int64", "x: expected dtype int64, got datetime64", id="dates"),
        pytest.param(np.zeros((2, 4)), (None, 3), "float64", r"x: expected shape \(N, 3\), got \(2, 4\)", id="width"),
        pytest.param(np.zeros(3), (None, 3), "float64", r"x: expected shape \(N, 3\), got \(3,\)", id="dimensions"),
        pytest.param(np.zeros(3), (2,), "float64", r"x: expected shape \(2,\), got \(3,\)", id="length"),
        pytest.param([], (2, 3), "float64", r"x: expected shape \(2, 3\), got \(0,\)", id="none where two are due"),
        pytest.param(np.zeros((5, 0)), (None, 3), "float64", r"x: expected shape \(N, 3\), got \(5, 0\)", id="five rows without columns"),
        pytest.param(0.0, (1,), "float64", r"x: expected shape \(1,\), got \(\)", id="a bare number"),
        pytest.param([[1, 2], [3]], (None, 2), "float64", "x: expected rows of one length, got a ragged list", id="ragged"),
        pytest.param(np.array([2**63], np.uint64), (1,), "int64", r"x: expected integers -9.*\.\.9.*, got 9223372036854775808", id="wraps"),
        pytest.param(np.array([-1]), (1,), "uint8", "x: expected dtype uint8, got int64", id="signed to unsigned"),
        pytest.param(np.array([1, 300]), (2,), "int8", r"x: expected integers -128\.\.127 \(int8\), got 300", id="too large"),
    ],
)
def test_what_does_not_fit_is_refused(value, shape, dtype, message):
    with pytest.raises(DataError, match=message):
        expect_array("x", value, shape, dtype)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_finite_names_the_first_bad_row(bad):
    with pytest.raises(DataError, match=r"Boxes\.yaw: expected finite numbers, got .* in row 2"):
        expect_finite("Boxes.yaw", np.array([0.0, 1.0, bad, bad]))
    assert expect_array("x", [bad], (1,), "float64").shape == (1,)  # only where it is asked for


@pytest.mark.parametrize(("label", "row"), [([0, 3], 1), ([-1, 0], 0)])
def test_labels_outside_of_the_class_set_are_refused(label, row):
    with pytest.raises(DataError, match=rf"label: expected class indices 0\.\.2, got {label[row]} in row {row}"):
        expect_labels("label", np.array(label), 3)


def test_labels_inside_pass():
    expect_labels("label", np.array([0, 2]), 3)
    expect_labels("label", np.zeros(0, np.int64), 3)


@pytest.mark.parametrize(
    "value",
    [["a", "bcd"], np.array(["a", "bcd"]), np.array(["a", "bcd"], object), ("a", np.str_("bcd"))],
    ids=["list", "array", "objects", "tuple"],
)
def test_strings_become_one_text_array(value):
    got = expect_strings("x", value, 2)
    assert got.dtype.kind == "U"
    assert got.tolist() == ["a", "bcd"]


@pytest.mark.parametrize("empty", [[], np.zeros(0), np.zeros(0, object)], ids=["list", "floats", "objects"])
def test_no_strings(empty):
    assert expect_strings("x", empty, 0).dtype.kind == "U"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        pytest.param(["a", None], "x: expected text, got None", id="None is not the text None"),
        pytest.param(["a", 1], "x: expected text, got 1 ", id="number in a list"),
        pytest.param(np.array([1, 2]), "x: expected text, got .*int64", id="numbers"),
        pytest.param(np.array([b"a", b"b"]), "x: expected text, got .*b'a'", id="bytes"),
        pytest.param(["a"], r"x: expected shape \(2,\), got \(1,\)", id="one too few"),
        pytest.param([["a", "b"]], r"x: expected shape \(2,\), got \(1, 2\)", id="two dimensions"),
        pytest.param("ab", r"x: expected shape \(2,\), got \(\)", id="a bare text"),
    ],
)
def test_what_is_not_text_is_refused(value, message):
    with pytest.raises(DataError, match=message):
        expect_strings("x", value, 2)
