"""Run-length coded masks into pieces of columns, compiled by numba. What it refuses goes to `perception.core.rle`, which says why."""

import numpy as np
from numba import types

from perception.core.compiled import compiled

_INT64 = types.int64[::1]
_MOST_BITS = 35  # of a count, as `perception.core.rle` has it


@compiled(
    types.int64(types.Array(types.uint8, 1, "C", readonly=True), _INT64, types.int64, types.int64, _INT64, _INT64, _INT64, _INT64, _INT64),
    nogil=True,
)
def find_pieces(
    text: np.ndarray,
    text_end: np.ndarray,
    height: int,
    width: int,
    instance: np.ndarray,
    column: np.ndarray,
    top: np.ndarray,
    bottom: np.ndarray,
    area: np.ndarray,
) -> int:
    """The pieces of N masks of one size, in order; returns how many there are, or -1 where a text is not as it should be.

    text, text_end                 (B,) the texts one behind the other, (N,) where each ends
    instance, column, top, bottom  are written to; where there are more pieces than they have room for, the first ones are written
    area                           (N,) is written to
    """
    capacity, pixels = len(instance), height * width
    count, at = 0, 0
    for mask in range(len(text_end)):
        end = text_end[mask]
        place, number = np.int64(0), 0
        run = before = before_that = np.int64(0)
        area[mask] = 0
        while at < end:
            value, shift, more = np.int64(0), 0, True
            while more:
                if at >= end or shift >= _MOST_BITS:  # cut short, or too long
                    return -1
                code = np.int64(text[at]) - 48
                if code < 0 or code > 63:
                    return -1
                value |= (code & 31) << shift
                shift += 5
                at += 1
                more = (code & 32) != 0
                if not more and (code & 16) != 0:
                    value -= np.int64(1) << shift
            run = value + before_that if number > 2 else value
            before_that, before = before, run
            if run < 0 or run > pixels - place:
                return -1
            if number % 2 == 1 and run > 0:
                area[mask] += run
                first, last = place, place + run
                while first < last:  # a run that goes on over the foot of a column is a piece in each column that it reaches
                    c = first // height
                    foot = min((c + 1) * height, last)
                    if count < capacity:
                        instance[count], column[count] = mask, c
                        top[count], bottom[count] = first - c * height, foot - c * height
                    count += 1
                    first = foot
            place += run
            number += 1
        if place != pixels:
            return -1
    return count
