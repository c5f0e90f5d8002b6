"""Rows of a struct of arrays: the one implementation of indexing, length and concatenation for the values of `core`."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np

from perception.core.errors import DataError

T = TypeVar("T")


def is_rows(value: Any) -> bool:
    """True for what has one entry a row: arrays and nested values; constants of the whole (classes, frames) are not."""
    return isinstance(value, np.ndarray) or getattr(value, "_has_rows", False)


def select_rows(value: T, index: Any) -> T:
    """The rows of `value` at `index` (int, slice, boolean mask or integer array), as a value of the same type.

    An int gives one row, still as a value of length 1. A mask must have one entry a row.
    """
    if isinstance(index, (int, np.integer)) and not isinstance(index, bool):
        index, length = int(index), len(value)  # type: ignore[arg-type]  # int(): np.uint8(255) + 1 is 0
        if not -length <= index < length:
            raise IndexError(f"{type(value).__name__}: expected a row in {-length}..{length - 1}, got {index}")
        index = slice(index, index + 1 or None)
    elif not isinstance(index, slice):
        index = np.asarray(index)
        if index.ndim != 1:
            raise IndexError(f"{type(value).__name__}: expected an index of one dimension, got shape {index.shape}")
        if index.size == 0 and index.dtype.kind == "f":  # [] is a float array to NumPy
            index = index.astype(np.int64)
    changes = {f.name: item[index] for f in fields(value) if is_rows(item := getattr(value, f.name))}  # type: ignore[arg-type]
    return replace(value, **changes)  # type: ignore[type-var]


def concatenate(values: Sequence[T]) -> T:
    """The rows of all values, in order, as one value.

    Raises DataError for no values, or values of which some have an optional column and some have not, or whose constants differ.
    """
    if not values:
        raise DataError("concatenate: expected at least one value, got none")
    first = values[0]
    other = next((value for value in values if type(value) is not type(first)), None)
    if other is not None:
        raise DataError(f"concatenate: expected values of one type, got {type(first).__name__} and {type(other).__name__}")
    changes: dict[str, Any] = {}
    for field in fields(first):  # type: ignore[arg-type]
        items = [getattr(value, field.name) for value in values]
        where = f"{type(first).__name__}.{field.name}"
        if all(item is None for item in items):
            continue
        if any(item is None for item in items):
            raise DataError(f"{where}: expected in all {len(items)} values or in none, got it in {sum(i is not None for i in items)}")
        if isinstance(items[0], np.ndarray):
            changes[field.name] = np.concatenate(items)
        elif is_rows(items[0]):
            changes[field.name] = concatenate(items)
        elif any(item != items[0] for item in items):
            raise DataError(f"{where}: expected the same in all values, got {items[0]!r} and {next(i for i in items if i != items[0])!r}")
    return replace(first, **changes)  # type: ignore[type-var]
