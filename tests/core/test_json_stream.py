"""Large JSON files in pieces, against json.loads of the whole."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perception.core import DataError, json_stream
from perception.core.json_stream import iter_object_of_lists, iter_rows

quick = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])

# Text that looks like the places where a file may be cut, and characters of more than one byte.
texts = st.one_of(
    st.sampled_from(
        ['}, {"a": 1}, {', '"}, {"', '],"', '], "x": [', '}],"y":', "\\", '\\"}, {', "NaN", "é€😀", "\n}\n,\n{", "[{", "Infinity]"]
    ),
    st.text(st.characters(codec="utf-8"), max_size=8),
)
numbers = st.one_of(st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=8,
)
rows = st.dictionaries(texts, values, max_size=4)
layouts = st.sampled_from(
    [{}, {"indent": 0}, {"indent": 3}, {"separators": (",", ":")}, {"separators": (" , ", " : ")}, {"ensure_ascii": False}]
)


@pytest.fixture
def small_blocks(monkeypatch):
    """Sets the size of a block, and of what is read before the first one (room for a key)."""

    def set_size(size: int) -> None:
        monkeypatch.setattr(json_stream, "BLOCK_BYTES", size)
        monkeypatch.setattr(json_stream, "_HEAD_BYTES", max(size, 100))

    return set_size


def written(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def all_rows(path: Path) -> list:
    result = []
    for first, piece in iter_rows(path):
        assert first == len(result)
        result += piece
    return result


def whole(path: Path, key: str) -> tuple[dict, dict]:
    """The streamed object put together, and the other values."""
    streamed, others = {}, {}
    for name, piece in iter_object_of_lists(path, key):
        if name is None:
            streamed |= piece
        else:
            others[name] = piece["value"]
    return streamed, others


def outcome(read):
    """What `read` returns, and the message of the error it raised, or ""."""
    try:
        return read(), ""
    except DataError as error:
        return None, str(error)


@quick
@given(st.lists(rows, max_size=30), st.integers(10, 400), layouts)
def test_rows_are_those_of_the_whole_document(small_blocks, tmp_path, document, block, layout):
    small_blocks(block)
    assert all_rows(written(tmp_path / "rows.json", json.dumps(document, **layout))) == document


@quick
@given(
    st.dictionaries(texts, st.lists(st.one_of(rows, values), max_size=4), max_size=12),
    st.dictionaries(texts.filter(lambda name: name != "results"), values, max_size=2),
    st.booleans(),
    st.integers(10, 400),
    layouts,
)
def test_an_object_of_lists_is_that_of_the_whole_document(small_blocks, tmp_path, results, others, comes_first, block, layout):
    small_blocks(block)
    document = {"results": results, **others} if comes_first else {**others, "results": results}
    path = written(tmp_path / "results.json", json.dumps(document, **layout))
    assert whole(path, "results") == (results, others)


def test_both_orders_of_keys_come_in_the_order_of_the_file(tmp_path):
    path = written(tmp_path / "a.json", '{"meta": {"a": 1}, "results": {"t": [{}]}}')
    assert list(iter_object_of_lists(path, "results")) == [("meta", {"value": {"a": 1}}), (None, {"t": [{}]})]
    path = written(tmp_path / "a.json", '{"results": {"t": [{}]}, "meta": {"a": 1}}')
    assert list(iter_object_of_lists(path, "results")) == [(None, {"t": [{}]}), ("meta", {"value": {"a": 1}})]


def test_a_large_file_comes_in_many_pieces(small_blocks, tmp_path):
    small_blocks(1000)
    document = [{"token": str(i), "size": [1, 2, 3]} for i in range(1000)]
    pieces = [len(piece) for _, piece in iter_rows(written(tmp_path / "a.json", json.dumps(document)))]
    assert sum(pieces) == 1000
    assert max(pieces) < 60  # a row has about 40 bytes: some 25 a block

    results = {str(i): [{"score": 0.5}] * 2 for i in range(1000)}
    pieces = [len(piece) for _, piece in iter_object_of_lists(written(tmp_path / "b.json", json.dumps({"results": results})), "results")]
    assert sum(pieces) == 1000
    assert max(pieces) < 60


def test_what_follows_the_streamed_object_may_be_larger_than_an_item(small_blocks, monkeypatch, tmp_path):
    small_blocks(500)
    monkeypatch.setattr(json_stream, "MAX_ITEM_BYTES", 2000)
    others = {"a": [{"x": [{}]}] * 100, "b": {"c": [[{}], [{}]] * 100}}  # with places that look like ends of items
    path = written(tmp_path / "a.json", json.dumps({"results": {"t": [{"a": 1}]}, **others}))
    assert whole(path, "results") == ({"t": [{"a": 1}]}, others)


@pytest.mark.parametrize("block", [7, 60, 1000])
def test_nan_is_read_in_results_and_refused_in_rows(small_blocks, tmp_path, block):
    small_blocks(block)
    text = '{"results": {"a": [{"v": [NaN, -Infinity], "s": "}], \\"b\\": ["}], "b": [{"v": NaN}], "c": [{"v": [Infinity]}]}, "meta": NaN}'
    streamed, others = whole(written(tmp_path / "a.json", text), "results")
    assert repr(streamed) == repr(json.loads(text)["results"])
    assert repr(others) == "{'meta': nan}"
    with pytest.raises(DataError, match=r"rows\.json: invalid JSON at byte 7: "):
        all_rows(written(tmp_path / "rows.json", '[{"v": NaN}, {"v": 1}]'))


ROWS = '[{"a": "é}, {", "b": [1.5, {"c": null}]}, {"a": "", "b": []},\n{"x": -1e5}]'
RESULTS = '{"meta": {"é": true}, "results": {"t": [{"s": "],"}], "u": [], "v": [{"a": [1, NaN]}]}, "n": 12}'


@pytest.mark.parametrize("block", [1, 16, 4096])
def test_rows_cut_short_at_any_byte_are_refused(small_blocks, tmp_path, block):
    small_blocks(block)
    content = ROWS.encode()
    assert all_rows(written(tmp_path / "rows.json", content)) == json.loads(ROWS)
    for length in range(len(content)):
        with pytest.raises(DataError, match=r"rows\.json: ") as error:
            all_rows(written(tmp_path / "rows.json", content[:length]))
        assert "\n" not in str(error.value)
        if length:
            assert "cut short" in str(error.value) or "invalid JSON at byte" in str(error.value)


@pytest.mark.parametrize("block", [1, 16, 4096])
def test_results_cut_short_at_any_byte_are_refused(small_blocks, tmp_path, block):
    small_blocks(block)
    content = RESULTS.encode()
    assert repr(whole(written(tmp_path / "a.json", content), "results")[0]) == repr(json.loads(RESULTS)["results"])
    for length in range(len(content)):
        with pytest.raises(DataError, match=r"a\.json: ") as error:
            whole(written(tmp_path / "a.json", content[:length]), "results")
        assert "\n" not in str(error.value)


@quick
@given(st.binary(max_size=3), st.integers(0, len(ROWS.encode())), st.integers(0, 3), st.integers(1, 100))
def test_changed_bytes_give_the_rows_of_the_document_or_an_error(small_blocks, tmp_path, inserted, position, removed, block):
    small_blocks(block)
    content = ROWS.encode()
    content = content[:position] + inserted + content[position + removed :]
    path = written(tmp_path / "rows.json", content)
    got, message = outcome(lambda: all_rows(path))
    if message:
        assert message.startswith(str(path))
        assert "\n" not in message
    else:
        assert got == json.loads(content)


@quick
@given(st.binary(max_size=3), st.integers(0, len(RESULTS.encode())), st.integers(0, 3), st.integers(1, 100))
def test_changed_bytes_give_the_results_of_the_document_or_an_error(small_blocks, tmp_path, inserted, position, removed, block):
    small_blocks(block)
    content = RESULTS.encode()
    content = content[:position] + inserted + content[position + removed :]
    path = written(tmp_path / "results.json", content)
    got, message = outcome(lambda: repr(whole(path, "results")))
    if message:
        assert message.startswith(str(path))
        assert "\n" not in message
    else:
        document = json.loads(content)
        assert got == repr((document.pop("results", {}), document))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "expected an array of rows, '.*', got an empty file", id="empty"),
        pytest.param(" \n", "expected an array of rows, '.*', got an empty file", id="only space"),
        pytest.param('{"a": 1}', r"expected an array of rows, '.*', got '\{", id="an object"),
        pytest.param("[{}, 3]", r"row 1: expected an object, got 3", id="a number among rows"),
        pytest.param('[{}, ["' + 99 * "x" + '"]]', r"row 1: expected an object, got .{57}\.\.\.$", id="a long list among rows"),
        pytest.param("[{}", "invalid JSON at byte 3: the file ends too early, it was cut short", id="no bracket"),
        pytest.param("[{},]", "invalid JSON at byte 3: trailing comma", id="comma at the end"),
        pytest.param("[{}] x", "invalid JSON at byte 5: unexpected content after document", id="text behind"),
        pytest.param('[{"é": x}]', "invalid JSON at byte 8: unexpected character", id="byte, not character"),
        pytest.param(b'[{"a": "\xff"}]', "invalid JSON at byte 8: ", id="not UTF-8"),
        pytest.param("[" * 5000, "invalid JSON at byte 1025: depth limit", id="too deep"),
        pytest.param('[{"a": 1e999}]', "invalid JSON at byte 7: number is infinity", id="too large"),
    ],
)
def test_rows_that_are_refused_are_named_with_file_and_place(tmp_path, text, message):
    with pytest.raises(DataError, match=r"rows\.json: " + message):
        all_rows(written(tmp_path / "rows.json", text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("[]", r"expected an object, '\{\.\.\.\}', got '\[\]'", id="an array"),
        pytest.param('{"results": [1]}', r"'results': expected an object of lists, got '\[1\]\}'", id="results is a list"),
        pytest.param("{3: 4}", r"invalid JSON at byte 1: expected a key, got '3: 4\}'", id="no key"),
        pytest.param(r'{"\x": 4}', "invalid JSON at byte 1: expected a key", id="bad escape in a key"),
        pytest.param('{"a": 1 "b": 2}', "invalid JSON at byte 8: expected ',' or '}'", id="no comma"),
        pytest.param('{"a": 1,}', r"invalid JSON at byte 8: expected a key, got '\}'", id="comma at the end"),
        pytest.param('{"results": {"a": [1,, 2]}}', "invalid JSON at byte 21: ", id="two commas"),
        pytest.param('{"results": {"a": [tru]}}', "invalid JSON at byte 19: ", id="a word"),
        pytest.param('{"results": {"a": []}', "invalid JSON at byte 21: the file ends too early, it was cut short", id="no bracket"),
        pytest.param('{"results": {"a": []}} {', "invalid JSON: text after the end of the document", id="text behind"),
        pytest.param('{"meta": ' + "[" * 100_000, "invalid JSON at byte 9: .*recursion", id="too deep"),
        pytest.param('{"meta": "' + "x" * (5 << 20), "invalid JSON at byte 9: no value ends within 4194304 bytes", id="a value too large"),
    ],
)
def test_results_that_are_refused_are_named_with_file_and_place(tmp_path, text, message):
    with pytest.raises(DataError, match=r"results\.json: " + message):
        whole(written(tmp_path / "results.json", text), "results")


@pytest.mark.parametrize("block", [100, 1 << 20])
def test_the_place_of_a_fault_is_found_in_the_middle_of_a_large_file(small_blocks, tmp_path, block):
    small_blocks(block)
    text = json.dumps([{"é": i} for i in range(500)], ensure_ascii=False)
    place = text.index('{"é": 250}') + 1
    content = (text[:place] + "?" + text[place:]).encode()
    with pytest.raises(DataError, match=f"invalid JSON at byte {content.index(b'?')}: "):
        all_rows(written(tmp_path / "a.json", content))
    content = b'{"results": {"t": ' + content + b', "u": [{}]}}'
    with pytest.raises(DataError, match=f"invalid JSON at byte {content.index(b'?')}: "):
        whole(written(tmp_path / "a.json", content), "results")


def test_an_item_that_is_too_large_is_refused(small_blocks, monkeypatch, tmp_path):
    small_blocks(100)
    monkeypatch.setattr(json_stream, "MAX_ITEM_BYTES", 1000)
    big = json.dumps({"a": "x" * 2000})
    assert len(all_rows(written(tmp_path / "a.json", json.dumps([{"a": "x" * 500}] * 20)))) == 20
    with pytest.raises(DataError, match=r"a\.json: invalid JSON at byte \d+: no item ends within 1000 bytes"):
        all_rows(written(tmp_path / "a.json", f"[{{}}, {big}, {{}}]"))
    with pytest.raises(DataError, match=r"a\.json: invalid JSON at byte \d+: no item ends within 1000 bytes"):
        whole(written(tmp_path / "a.json", f'{{"results": {{"t": [{big}], "u": [{{}}]}}}}'), "results")


def test_escaped_keys_and_a_byte_order_mark_are_understood(tmp_path):
    content = b'\xef\xbb\xbf{"m\\u0065ta": 1, "\\u0072esults": {"a": []}}'
    assert whole(written(tmp_path / "a.json", content), "results") == ({"a": []}, {"meta": 1})
    assert all_rows(written(tmp_path / "b.json", b'\xef\xbb\xbf [{"a": 1}]')) == [{"a": 1}]


@pytest.mark.parametrize("read", [all_rows, lambda path: whole(path, "results")], ids=["rows", "results"])
def test_files_that_cannot_be_read_are_named(tmp_path, read):
    with pytest.raises(DataError, match=r"none\.json: expected a readable file, got No such file"):
        read(tmp_path / "none.json")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(DataError, match=r"folder\.json: expected a readable file, got Is a directory"):
        read(tmp_path / "folder.json")
