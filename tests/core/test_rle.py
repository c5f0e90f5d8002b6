"""Run-length coded masks: by hand, against pycocotools, and with texts that mean harm."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from perception.core import DataError
from perception.core.rle import MAX_PIXELS, decode_rle, encode_rle, encode_runs, rle_runs


def columns(*texts):
    """A mask from its columns, "#" where it is set."""
    return np.array([[c == "#" for c in text] for text in texts]).T


@pytest.mark.parametrize(
    ("mask", "counts"),
    [
        pytest.param(columns("....", "...."), "8", id="nothing: one run of background"),
        pytest.param(columns("##", "##"), "04", id="everything: a run of no background first"),
        pytest.param(columns(".#.", "..."), "114", id="one pixel"),
        pytest.param(columns("..#", "#.."), "222", id="a run goes on at the head of the next column"),
        # runs 1 2 1 4: the fourth is written as 4 - 2
        pytest.param(columns(".##.", "####"), "1212", id="differences from the fourth run on"),
        # runs 1 3 1 2 2: 2 - 3 = -1 is 31 without a sign bit in a sixth place: "O"; 2 - 1 = 1
        pytest.param(columns(".###.", "##.."[:4] + "."), "131O2", id="a negative difference"),
        # 16 needs its sign bit clear: 16 | 32 -> "`", then 0 -> "0"
        pytest.param(columns("." * 16 + "#"), "`01", id="sixteen takes two groups"),
        # 100 = 3 * 32 + 4: 4 | 32 -> "T", then 3
        pytest.param(columns("." * 100), "T3", id="a hundred takes two groups"),
    ],
)
def test_masks_by_hand(mask, counts):
    rle = encode_rle(mask)
    assert rle == {"size": list(mask.shape), "counts": counts}
    np.testing.assert_array_equal(decode_rle(rle), mask)


def masks():
    blocks = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9))
    return st.tuples(blocks, st.integers(1, 12), st.integers(1, 12)).map(lambda t: np.repeat(np.repeat(t[0], t[1], 0), t[2], 1))


@given(masks())
def test_decoding_undoes_encoding(mask):
    rle = encode_rle(mask)
    for counts in (rle["counts"], rle["counts"].encode()):
        np.testing.assert_array_equal(decode_rle({"size": rle["size"], "counts": counts}), mask)


@given(masks())
def test_pycocotools_writes_the_same(mask):
    coco = pytest.importorskip("pycocotools.mask")
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert encode_rle(mask) == {"size": list(theirs["size"]), "counts": theirs["counts"].decode()}
    np.testing.assert_array_equal(decode_rle(theirs), mask)


def test_pycocotools_reads_a_whole_picture():
    coco = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    mask = np.zeros((900, 1600), bool)
    mask[100:400, 700:1500] = rng.random((300, 800)) < 0.5
    rle = encode_rle(mask)
    np.testing.assert_array_equal(coco.decode(rle), mask)
    assert coco.area(rle) == mask.sum()
    np.testing.assert_array_equal(decode_rle(rle), mask)


@given(masks(), st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))
@example(np.ones((4, 3), bool), 0, 0, 2, 2)  # runs join at the borders of columns
def test_a_window_is_the_same_as_the_whole(mask, top, left, below, right):
    whole = np.pad(mask, ((top, below), (left, right)))
    assert encode_rle(mask, size=whole.shape, corner=(top, left)) == encode_rle(whole)


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0)], ids=str)
def test_a_mask_without_pixels_has_no_runs(shape):
    rle = encode_rle(np.zeros(shape, bool))
    assert rle == {"size": list(shape), "counts": ""}
    assert decode_rle(rle).shape == shape


def test_a_list_of_runs_is_read_too():
    np.testing.assert_array_equal(decode_rle({"size": [2, 2], "counts": [1, 2, 1]}), columns(".#", "#."))
    np.testing.assert_array_equal(decode_rle({"size": (2, 2), "counts": [1, 1, 0, 1, 1]}), columns(".#", "#."))  # a run of length 0


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        pytest.param([4], "mask 3: expected a mapping with size and counts, got", id="no mapping"),
        pytest.param({"size": [2, 2]}, "mask 3: expected a mapping with size and counts, got", id="no counts"),
        pytest.param({"size": [2], "counts": "4"}, r"mask 3: size: expected \[rows, columns\], got \[2\]", id="one side"),
        pytest.param({"size": [2.0, 2], "counts": "4"}, "size: expected", id="a fraction"),
        pytest.param({"size": [True, 4], "counts": "4"}, "size: expected", id="a flag"),
        pytest.param({"size": [-2, -2], "counts": "4"}, "size: expected", id="below 0"),
        pytest.param({"size": [10**30, 1], "counts": "4"}, "size: expected", id="a side of 10^30"),
        pytest.param({"size": [2**20, 2**20], "counts": "4"}, f"size: expected at most {MAX_PIXELS} pixels", id="a huge image"),
        pytest.param({"size": [2, 2], "counts": 4}, "counts: expected text or a list of integers, got 4", id="a number"),
        pytest.param({"size": [2, 2], "counts": None}, "counts: expected text", id="None"),
        pytest.param({"size": [2, 2], "counts": "3"}, "expected runs that add up to 2 x 2 = 4 pixels, got 3", id="too short"),
        pytest.param({"size": [2, 2], "counts": "41"}, "expected runs that add up to 2 x 2 = 4 pixels, got 5", id="too long"),
        pytest.param({"size": [2, 2], "counts": ""}, "expected runs that add up to 2 x 2 = 4 pixels, got 0", id="no runs"),
        pytest.param({"size": [2, 2], "counts": "4O1"}, "expected runs of 0 to 4 pixels, got -1 in run 1", id="a run below 0"),
        pytest.param({"size": [2, 2], "counts": "oooooo?"}, "expected runs of 0 to 4 pixels, got", id="a run of 16 billion"),
        pytest.param({"size": [9, 9], "counts": "4T"}, "a text that ends with a count, got one that is cut short", id="cut short"),
        pytest.param({"size": [9, 9], "counts": "P" * 99 + "0"}, "expected at most 7 characters a count, got 100", id="an endless count"),
        pytest.param({"size": [2, 2], "counts": "4 "}, "expected characters '0' to 'o', got ' ' at 1", id="a blank"),
        pytest.param({"size": [2, 2], "counts": b"\xff"}, "expected characters '0' to 'o', got 'ÿ' at 0", id="no ASCII, bytes"),
        pytest.param({"size": [2, 2], "counts": "٤"}, "expected ASCII text", id="a digit of another script"),
        pytest.param({"size": [2, 2], "counts": "0" * 36}, "expected at most 35 entries for 2 x 2 pixels, got 36", id="a long text"),
        pytest.param({"size": [2, 2], "counts": [0] * 6}, "expected at most 5 entries for 2 x 2 pixels, got 6", id="a long list"),
        pytest.param({"size": [2, 2], "counts": [1.0, 3]}, "counts: expected integers, got 1.0 in run 0", id="a fraction of a pixel"),
        pytest.param({"size": [2, 2], "counts": [10**30]}, "counts: expected integers, got 1000", id="a run of 10^30"),
        pytest.param({"size": [2, 2], "counts": [5, -1]}, "expected runs of 0 to 4 pixels, got 5 in run 0", id="runs that cancel"),
    ],
)
def test_bad_masks_are_refused(rle, message):
    with pytest.raises(DataError, match=message):
        decode_rle(rle, where="mask 3")


@given(st.one_of(st.text("0123456789:;<=>?@OPQTo`^_", max_size=20), st.binary(max_size=20)), st.integers(0, 6), st.integers(0, 6))
def test_any_text_gives_a_mask_or_a_data_error(counts, height, width):
    try:
        mask = decode_rle({"size": [height, width], "counts": counts})
    except DataError:
        return
    assert mask.shape == (height, width)
    assert mask.dtype == bool


@pytest.mark.parametrize(
    ("mask", "options", "message"),
    [
        pytest.param(np.zeros((2, 2), np.uint8), {}, "encode_rle: mask: expected dtype bool, got uint8", id="dtype"),
        pytest.param(np.zeros(4, bool), {}, r"expected shape \(N, N\), got \(4,\)", id="shape"),
        pytest.param(np.zeros((2, 2), bool), {"size": (3, 3), "corner": (2, 0)}, "expected a window within 3 x 3 pixels", id="below"),
        pytest.param(np.zeros((2, 2), bool), {"size": (3, 3), "corner": (0, -1)}, "expected a window within 3 x 3 pixels", id="left"),
    ],
)
def test_encoding_refuses_what_is_no_mask(mask, options, message):
    with pytest.raises(DataError, match=message):
        encode_rle(mask, **options)


@given(st.integers(1, 5), st.integers(1, 5), st.lists(st.tuples(st.integers(0, 25), st.integers(0, 25)), max_size=6))
def test_spans_in_any_order_are_the_mask_of_all_of_them(height, width, spans):
    flat = np.zeros(height * width, bool)
    spans = [(min(begin, len(flat)), min(end, len(flat))) for begin, end in spans]
    for begin, end in spans:
        flat[begin:end] = True
    begin, end = np.array(spans, np.int64).reshape(-1, 2).T
    assert encode_runs((height, width), begin, end) == encode_rle(flat.reshape(width, height).T)


def test_spans_beyond_the_image_are_refused():
    with pytest.raises(DataError, match="encode_runs: expected spans within 4 pixels, got 3 to 5"):
        encode_runs((2, 2), np.array([3]), np.array([5]))


def test_runs_are_those_of_the_mask():
    size, runs = rle_runs({"size": [3, 2], "counts": [1, 2, 3]})
    assert (size, runs.tolist()) == ((3, 2), [1, 2, 3])
