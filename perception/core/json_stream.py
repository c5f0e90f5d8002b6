"""Large JSON files in pieces: an array of rows, or an object of lists, parsed a few megabytes at a time.

orjson parses whole documents only. A piece is cut where an item seems to end, and the parser is the judge of the cut: a prefix of an
array (or object) that parses once its bracket is closed is exactly its first items, whatever stands in the strings.
"""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from perception.core.errors import DataError

BLOCK_BYTES = 8 << 20
# The largest single item (with what follows the last one): far above any real row or frame, far below what hurts.
MAX_ITEM_BYTES = 64 << 20
_MAX_CUTS = 4
_ROW_END = re.compile(rb"\}\s*,\s*(?=\{)")
_LIST_END = re.compile(rb"\]\s*,\s*(?=\")")
_SPACE = b" \t\r\n"


def iter_rows(path: Path) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """The rows of a JSON file that is one array of objects, in lists of some thousands, each with the number of its first row.

    Raises DataError naming file and byte for a missing, truncated or invalid file, or a row that is no object.
    """
    with _open(path) as file:
        first = 0
        for piece, _tail in _pieces(file, _skip_to(file, b"[", path), path, b"[", b"]", allow_nan=False):
            for i, row in enumerate(piece):
                if not isinstance(row, dict):
                    raise DataError(f"{path}: row {first + i}: expected an object, got {_show(row)}")
            yield first, piece
            first += len(piece)


def iter_object_of_lists(path: Path, key: str) -> Iterator[tuple[str | None, dict[str, Any]]]:
    """Stream the object of lists at top-level `key` of a JSON object; the other top-level values come whole (4 MiB at most each).

    Yields (None, items) for pieces of the streamed object and (name, {"value": v}) for every other key, in the file's order. NaN and
    Infinity are accepted, as Python's own json writes them. Raises DataError as `iter_rows` does.
    """
    with _open(path) as file:
        buffer = _skip_to(file, b"{", path)
        while (buffer := _fill(file, buffer).lstrip(_SPACE))[:1] != b"}":
            name, buffer = _read_key(file, buffer, path)
            if name == key:
                if buffer[:1] != b"{":
                    raise DataError(f"{path}: {key!r}: expected an object of lists, got {_show(buffer[:20].decode(errors='replace'))}")
                for piece, tail in _pieces(file, buffer[1:], path, b"{", b"}", allow_nan=True):
                    buffer = tail
                    yield None, piece
            else:
                value, buffer = _decode_first(file, buffer, path)
                yield name, {"value": value}
            buffer = _fill(file, buffer).lstrip(_SPACE)
            if buffer[:1] == b",":
                buffer = buffer[1:]
            elif buffer[:1] != b"}":
                raise _invalid(path, file.tell() - len(buffer), "expected ',' or '}'" if buffer else "the file ends too early, it was cut short")
        if buffer[1:].strip(_SPACE) or file.read(1 << 16).strip(_SPACE):
            raise _invalid(path, None, "text after the end of the document")


def _pieces(file: BinaryIO, buffer: bytes, path: Path, opening: bytes, closing: bytes, *, allow_nan: bool) -> Iterator[tuple[Any, bytes]]:
    """Parsed pieces of the array or object whose content starts at `buffer`; with the last one comes what follows its closing bracket."""
    while True:
        block = file.read(BLOCK_BYTES)
        buffer += block
        offset = file.tell() - len(buffer) - 1  # of the opening bracket put in front of the buffer
        if not block:
            text = opening + buffer
            if opening == b"[":
                yield _parse(text, allow_nan, path, offset), b""
            else:
                yield _decode_prefix(text, path, offset)
            return
        for end, begin in _cuts(buffer, closing):
            piece = opening + buffer[:end] + closing
            try:
                value = _parse(piece, allow_nan, path, offset)
            except _InvalidJson as error:
                # An array that breaks before the cut is broken whatever follows; an object may have ended before it, at its closing brace.
                if opening == b"[" and error.position < len(piece) - 2:
                    raise
                continue
            buffer = buffer[begin:]
            yield value, b""
            break
        if len(buffer) > MAX_ITEM_BYTES:
            raise _invalid(path, offset, f"no item ends within {MAX_ITEM_BYTES >> 20} MiB")


class _InvalidJson(DataError):
    position = 0  # in the parsed text


def _cuts(buffer: bytes, closing: bytes) -> Iterator[tuple[int, int]]:
    """(end of an item, begin of the next) at the last places where an item may end, from the back, a few at most."""
    mark, separator = (b"}", _ROW_END) if closing == b"]" else (b"]", _LIST_END)
    position, found = len(buffer), 0
    while found < _MAX_CUTS and (position := buffer.rfind(mark, 0, position)) >= 0:
        match = separator.match(buffer, position)
        # A list of objects ends in "}]" or is "[]"; the number lists inside of an object end in a digit.
        if match and (mark == b"}" or buffer[max(position - 64, 0) : position].rstrip(_SPACE)[-1:] in (b"}", b"[")):
            found += 1
            yield position + 1, match.end()


def _parse(text: bytes, allow_nan: bool, path: Path, offset: int) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if allow_nan and (b"NaN" in text or b"Infinity" in text):
            with contextlib.suppress(ValueError, RecursionError):
                return json.loads(text)
        invalid = _invalid(path, offset + error.pos, error.msg.split(": line")[0])
        invalid.position = error.pos
        raise invalid from None


def _decode_prefix(text: bytes, path: Path, offset: int) -> tuple[Any, bytes]:
    """The first JSON value of `text`, and the bytes after it."""
    try:
        characters = text.decode()
        value, end = json.JSONDecoder().raw_decode(characters)
    except (ValueError, RecursionError) as error:
        position = getattr(error, "pos", getattr(error, "start", 0))
        reason = "the file ends too early, it was cut short" if position >= len(text) - 1 else str(error).split(": line")[0]
        raise _invalid(path, offset + position, reason) from None
    return value, characters[end:].encode()


def _decode_first(file: BinaryIO, buffer: bytes, path: Path) -> tuple[Any, bytes]:
    """The JSON value at the start of `buffer`, which is topped up as needed, and the bytes after it."""
    buffer = _fill(file, buffer)
    try:
        return _decode_prefix(buffer, path, file.tell() - len(buffer))
    except DataError:
        buffer = _fill(file, buffer, 4 << 20)
        return _decode_prefix(buffer, path, file.tell() - len(buffer))


def _read_key(file: BinaryIO, buffer: bytes, path: Path) -> tuple[str, bytes]:
    match = re.match(rb'"((?:[^"\\]|\\.){0,1000})"\s*:\s*', buffer)
    if not match:
        got = f"expected a key, got {_show(buffer[:20].decode(errors='replace'))}" if buffer else "the file ends too early, it was cut short"
        raise _invalid(path, file.tell() - len(buffer), got)
    return match[1].decode(errors="replace"), buffer[match.end() :]


def _skip_to(file: BinaryIO, opening: bytes, path: Path) -> bytes:
    """The first bytes of the file after the opening bracket."""
    head = file.read(1 << 16)
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip(_SPACE)
    if text[:1] != opening:
        kind = "an array of rows, '[...]'" if opening == b"[" else "an object, '{...}'"
        raise DataError(f"{path}: expected {kind}, got {_show(text[:20].decode(errors='replace')) if text else 'an empty file'}")
    return text[1:]


def _fill(file: BinaryIO, buffer: bytes, size: int = 1 << 16) -> bytes:
    """`buffer`, topped up from the file to `size` bytes where it can be."""
    return buffer + file.read(size - len(buffer)) if len(buffer) < size else buffer


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: expected a readable file, got {error.strerror or error}") from None


def _invalid(path: Path, offset: int | None, reason: str) -> _InvalidJson:
    where = "" if offset is None else f" at byte {max(offset, 0)}"
    return _InvalidJson(f"{path}: invalid JSON{where}: {reason}")


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
