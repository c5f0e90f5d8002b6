"""Large JSON files in pieces: an array of rows, or an object of lists, parsed a megabyte at a time.

orjson parses whole documents only. A piece is cut where an item seems to end, and the parser is the judge of the cut: a prefix of an
array (or object) that parses once its bracket is closed is exactly its first items, whatever stands in the strings.
"""

import codecs
import contextlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from perception.core.errors import DataError, shown

BLOCK_BYTES = 1 << 20  # the values parsed from one block are ten times as large and should fit the cache
# The largest single item (with what follows the last one): far above any real row or frame, far below what hurts.
MAX_ITEM_BYTES = 64 << 20
_HEAD_BYTES = 1 << 16  # room for any key
_MAX_VALUE_BYTES = 4 << 20  # of a value beside the streamed object
_MAX_CUTS = 4  # an item with more objects of its own is read to the end of a block that happens to end between two items
_ROW_END = re.compile(rb"\}[ \t\r\n]*,[ \t\r\n]*(?=\{)")
_LIST_END = re.compile(rb"\][ \t\r\n]*,[ \t\r\n]*(?=\")")
_KEY = re.compile(rb'("(?:[^"\\]|\\.){0,1000}")[ \t\r\n]*:[ \t\r\n]*', re.DOTALL)
_COMPRESSED = (b"\x1f\x8b", b"\xfd7zXZ", b"PK\x03\x04", b"BZh", b"\x28\xb5\x2f\xfd")  # gzip, xz, zip, bzip2, zstd
_SPACE = b" \t\r\n"
_CUT_SHORT = "the file ends too early, it was cut short"


def iter_rows(path: Path) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """The rows of a JSON file that is one array of objects, in lists of some thousands, each with the number of its first row.

    Raises DataError naming file and byte for a missing, truncated or invalid file, or a row that is no object.
    """
    with _open(path) as file:
        first = 0
        for piece, _text, _tail in _pieces(file, _skip_to(file, b"[", path), path, b"[", b"]", allow_nan=False):
            for i, row in enumerate(piece):
                if not isinstance(row, dict):
                    raise DataError(f"{path}: row {first + i}: expected an object, got {shown(row)}")
            count = len(piece)
            yield first, piece
            del piece  # before the next one is parsed: they are most of the memory
            first += count


def iter_object_of_lists(
    path: Path, key: str, *, watch: Callable[[bytes], None] | None = None
) -> Iterator[tuple[str | None, dict[str, Any]]]:
    """Stream the object of lists at top-level `key` of a JSON object; the other top-level values come whole (4 MiB at most each).

    Yields (None, items) for pieces of the streamed object and (name, {"value": v}) for every other key, in the file's order. NaN and
    Infinity are accepted, as Python's own json writes them. Raises DataError as `iter_rows` does, and for a top-level key that comes twice.
    watch  called with the JSON text of each piece before it is yielded: of keys that come twice in it a parsed piece has the last one only
    """
    names: set[str] = set()
    with _open(path) as file:
        buffer = _fill(file, _skip_to(file, b"{", path)).lstrip(_SPACE)
        is_last = buffer[:1] == b"}"
        while not is_last:
            name, buffer = _read_key(file, buffer, path)
            if name in names:
                raise DataError(f"{path}: the key {name!r} comes twice")
            names.add(name)
            if name == key:
                if buffer[:1] != b"{":
                    raise DataError(f"{path}: {key!r}: expected an object of lists, got {shown(buffer[:20].decode(errors='replace'))}")
                for piece, text, tail in _pieces(file, buffer[1:], path, b"{", b"}", allow_nan=True):
                    buffer = tail
                    if watch:
                        watch(text)
                    del text
                    yield None, piece
                    del piece
            else:
                value, buffer = _decode_first(file, buffer, path)
                yield name, {"value": value}
            buffer = _fill(file, buffer).lstrip(_SPACE)
            is_last = buffer[:1] == b"}"
            if not is_last:
                if buffer[:1] != b",":
                    raise _invalid(path, file.tell() - len(buffer), "expected ',' or '}'" if buffer else _CUT_SHORT)
                buffer = _fill(file, buffer[1:]).lstrip(_SPACE)
        if buffer[1:].strip(_SPACE) or file.read(1 << 16).strip(_SPACE):
            raise _invalid(path, None, "text after the end of the document")


def _pieces(
    file: BinaryIO, buffer: bytes, path: Path, opening: bytes, closing: bytes, *, allow_nan: bool
) -> Iterator[tuple[Any, bytes, bytes]]:
    """Parsed pieces of the array or object whose content starts at `buffer`, their text, what follows the closing bracket of the last."""
    while True:
        block = file.read(BLOCK_BYTES)
        buffer += block
        offset = file.tell() - len(buffer) - 1  # of the opening bracket put in front of the buffer
        if not block:
            if opening == b"[":
                yield _parse(opening + buffer, allow_nan, path, offset), opening + buffer, b""
            else:
                yield _last_piece(opening + buffer, path, offset)
            return
        del block
        for end, begin in _cuts(buffer, closing):
            piece = opening + buffer[:end] + closing
            try:
                value = _parse(piece, allow_nan, path, offset)
            except _InvalidJson as error:
                if error.position >= len(piece) - 2:
                    continue  # nothing wrong before the cut, but it lies inside of an item
                if opening == b"[":
                    raise
                with contextlib.suppress(DataError):  # an object may have ended before the cut, at its closing brace
                    yield _last_piece(opening + buffer, path, offset)
                    return
                raise
            buffer = buffer[begin:]
            yield value, piece, b""
            del value, piece
            break
        if len(buffer) > MAX_ITEM_BYTES:
            raise _invalid(path, offset, f"no item ends within {MAX_ITEM_BYTES} bytes")


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
    """The JSON document `text`; _InvalidJson with the byte where it breaks, which is its end where only something is missing."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        position, reason = _byte_position(text, error.pos), error.msg
    if allow_nan and (b"NaN" in text or b"Infinity" in text):
        try:
            return json.loads(text.decode())
        except json.JSONDecodeError as error:
            position, reason = _byte_position(text, error.pos), error.msg
            if reason.startswith("Unterminated string"):  # its position is where the string begins
                position, reason = len(text), _CUT_SHORT
        except (ValueError, RecursionError):
            pass  # not UTF-8, or too deep: orjson has said so
    reason = _CUT_SHORT if position >= len(text) and text[:1] == b"[" else reason
    invalid = _invalid(path, offset + position, reason.split(": line")[0])
    invalid.position = position
    raise invalid


def _last_piece(text: bytes, path: Path, offset: int) -> tuple[Any, bytes, bytes]:
    """The value at the start of `text`, its own text, and the bytes after it."""
    value, tail = _decode_prefix(text, path, offset)
    return value, text[: len(text) - len(tail)], tail


def _decode_prefix(text: bytes, path: Path, offset: int) -> tuple[Any, bytes]:
    """The first JSON value of `text`, and the bytes after it; a character may be cut in two at the end."""
    try:
        characters, used = codecs.utf_8_decode(text, "strict", False)
    except UnicodeDecodeError as error:
        raise _invalid(path, offset + error.start, "expected UTF-8") from None
    try:
        value, end = json.JSONDecoder().raw_decode(characters)
    except (ValueError, RecursionError) as error:
        reason = str(error).split(": line")[0]
        position = _byte_position(text, getattr(error, "pos", 0))
        if position >= used or reason.startswith("Unterminated string"):
            position, reason = used, _CUT_SHORT
        raise _invalid(path, offset + position, reason) from None
    return value, characters[end:].encode() + text[used:]


def _byte_position(text: bytes, position: int) -> int:
    """The byte where character `position` of `text` stands, or the first one that is no UTF-8."""
    try:
        return len(codecs.utf_8_decode(text, "strict", False)[0][:position].encode())
    except UnicodeDecodeError as error:
        return error.start


def _decode_first(file: BinaryIO, buffer: bytes, path: Path) -> tuple[Any, bytes]:
    """The JSON value at the start of `buffer`, which is topped up as needed, and the bytes after it."""
    buffer = _fill(file, buffer)
    with contextlib.suppress(DataError):
        return _decode_prefix(buffer, path, 0)
    buffer = _fill(file, buffer, _MAX_VALUE_BYTES)
    try:
        return _decode_prefix(buffer, path, file.tell() - len(buffer))
    except _InvalidJson as error:
        if len(buffer) < _MAX_VALUE_BYTES or not str(error).endswith(_CUT_SHORT):
            raise
        raise _invalid(path, file.tell() - len(buffer), f"no value ends within {_MAX_VALUE_BYTES} bytes") from None


def _read_key(file: BinaryIO, buffer: bytes, path: Path) -> tuple[str, bytes]:
    if match := _KEY.match(buffer):
        with contextlib.suppress(ValueError):  # a bad escape, or not UTF-8
            return json.loads(match[1].decode()), buffer[match.end() :]
    got = f"expected a key, got {shown(buffer[:20].decode(errors='replace'))}" if buffer else _CUT_SHORT
    raise _invalid(path, file.tell() - len(buffer), got)


def _skip_to(file: BinaryIO, opening: bytes, path: Path) -> bytes:
    """The first bytes of the file after the opening bracket."""
    head = file.read(_HEAD_BYTES)
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip(_SPACE)
    if text[:1] != opening:
        kind = "an array of rows, '[...]'" if opening == b"[" else "an object, '{...}'"
        got = shown(text[:20].decode(errors="replace")) if text else "an empty file"
        if head.startswith(_COMPRESSED):
            got = "a compressed file; unpack it first"
        raise DataError(f"{path}: expected {kind}, got {got}")
    return text[1:]


def _fill(file: BinaryIO, buffer: bytes, size: int | None = None) -> bytes:
    """`buffer`, topped up from the file to `size` bytes (by default enough for any key) where it can be."""
    size = _HEAD_BYTES if size is None else size
    return buffer + file.read(size - len(buffer)) if len(buffer) < size else buffer


@contextlib.contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    """The file; trouble of the system, now or while it is read, becomes a DataError."""
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise DataError(f"{path}: expected a readable file, got {error.strerror or error}") from None


def _invalid(path: Path, offset: int | None, reason: str) -> _InvalidJson:
    where = "" if offset is None else f" at byte {max(offset, 0)}"
    return _InvalidJson(f"{path}: invalid JSON{where}: {reason}")
