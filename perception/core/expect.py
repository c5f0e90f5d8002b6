"""Checks at the door of every value: shape, dtype and finiteness, with messages that show expected and got."""

from typing import Any

import numpy as np

from perception.core.errors import DataError

_DTYPES = {name: np.dtype(name) for name in ("float32", "float64", "int64", "bool", "int32", "int16", "int8", "uint8")}


def expect_array(name: str, value: Any, shape: tuple[int | None, ...], dtype: str, *, finite: bool = False) -> np.ndarray:
    """`value` as an array of `dtype` and `shape` (None: any length), copied only where a conversion needs it.

    Raises DataError naming `name`, the expected and the given shape or dtype, and the first bad row where `finite` is asked for.
    """
    wanted = _DTYPES[dtype]
    try:
        array = value if isinstance(value, np.ndarray) else np.asarray(value)
    except ValueError as error:  # rows of different length
        raise DataError(f"{name}: expected rows of one length, got a ragged {type(value).__name__}") from error
    if array.dtype != wanted:
        # float -> int would drop fractions silently, so only conversions within a kind (or from it to float) are done for the caller
        if not (np.can_cast(array.dtype, wanted, "same_kind") or array.size == 0):
            raise DataError(f"{name}: expected dtype {dtype}, got {array.dtype}")
        _expect_range(name, array, wanted)
        array = array.astype(wanted)
    if array.ndim != len(shape) or any(want is not None and want != have for want, have in zip(shape, array.shape, strict=True)):
        if array.ndim and len(array) == 0 and shape and shape[0] in (None, 0):  # [] stands for "no rows" whatever their width
            return np.zeros([n or 0 for n in shape], dtype=wanted)
        text = ", ".join("N" if n is None else str(n) for n in shape) + ("," if len(shape) == 1 else "")
        raise DataError(f"{name}: expected shape ({text}), got {array.shape}")
    if finite:
        expect_finite(name, array)
    return array


def _expect_range(name: str, array: np.ndarray, wanted: np.dtype) -> None:
    """Raise DataError where integers would wrap around in a narrower type."""
    if array.size == 0 or array.dtype.kind not in "iu" or wanted.kind not in "iu" or np.can_cast(array.dtype, wanted):
        return
    limits = np.iinfo(wanted)
    for extreme in (int(array.min()), int(array.max())):
        if not limits.min <= extreme <= limits.max:
            raise DataError(f"{name}: expected integers {limits.min}..{limits.max} ({wanted}), got {extreme}")


def expect_finite(name: str, array: np.ndarray) -> None:
    """Raise DataError naming the first row of `array` that holds NaN or infinity."""
    is_finite = np.isfinite(array)
    if not is_finite.all():
        row = int(np.argwhere(~is_finite)[0][0])
        raise DataError(f"{name}: expected finite numbers, got {array[row]} in row {row}")


def expect_labels(name: str, label: np.ndarray, num_classes: int) -> None:
    """Raise DataError where a label is not an index into the class set."""
    if label.size and (label.min() < 0 or label.max() >= num_classes):
        row = int(np.flatnonzero((label < 0) | (label >= num_classes))[0])
        raise DataError(f"{name}: expected class indices 0..{num_classes - 1}, got {label[row]} in row {row}")


def expect_strings(name: str, value: Any, length: int) -> np.ndarray:
    """`value` as an array (length,) of str."""
    # As objects, or NumPy would turn None and numbers into the texts "None" and "1".
    array = value if isinstance(value, np.ndarray) else np.asarray(value, dtype=object)
    if array.dtype.kind != "U":
        wrong = [item for item in array.ravel() if not isinstance(item, str)]
        if wrong:
            raise DataError(f"{name}: expected text, got {wrong[0]!r} ({array.dtype} array)")
        array = array.astype(np.str_)
    if array.shape != (length,):
        raise DataError(f"{name}: expected shape ({length},), got {array.shape}")
    return array
