"""What every tracker asks of its input: detections, and a time that does not run backwards."""

import operator

from perception.core.detections import Detections
from perception.core.errors import DataError

_END_US = 1 << 63  # int64; differences of two times in range fit too


def expect_next(where: str, detections: Detections, timestamp_us: int, before_us: int | None) -> int:
    """`timestamp_us` as an int, checked together with `detections` before a tracker changes its state.

    before_us  time of the call before, None for the first; the same time again is allowed
    Raises DataError naming `where`.
    """
    if not isinstance(detections, Detections):
        raise DataError(f"{where}: expected Detections, got {type(detections).__name__}")
    try:
        time_us = operator.index(timestamp_us)
    except TypeError:
        raise DataError(f"{where}: expected timestamp_us as an integer (microseconds), got {timestamp_us!r}") from None
    if not 0 <= time_us < _END_US:
        raise DataError(f"{where}: expected timestamp_us in 0..2^63 - 1, got {time_us}")
    if before_us is not None and time_us < before_us:
        raise DataError(
            f"{where}: expected timestamp_us >= {before_us}, got {time_us}; sort the frames by time, or call reset() to begin another drive"
        )
    return time_us
