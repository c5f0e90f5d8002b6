"""Every fault of a submission in one go, each with its sample and box; the official devkit is the second opinion."""

import json
import random
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perception.core import DataError, json_stream
from perception.evaluation import Fault, read_submission, validate_submission
from tests.evaluation.makers import META, detection, track, write_results

NAN, INF = float("nan"), float("inf")


def judged(path: Path, task: str) -> bool:
    """True where the devkit loads the file."""
    pytest.importorskip("nuscenes.eval.detection.evaluate")
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.common.loaders import load_prediction
    from nuscenes.eval.detection.data_classes import DetectionBox
    from nuscenes.eval.tracking.data_classes import TrackingBox

    config_factory("tracking_nips_2019")  # only with it the devkit knows the names of the tracked classes
    try:
        load_prediction(str(path), 500, DetectionBox if task == "detection" else TrackingBox)
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError):
        return False
    return True


def faults_of(tmp_path, results, expected=None, **more) -> list[Fault]:
    return validate_submission(write_results(tmp_path / "results.json", results, **more), expected)[1]


@pytest.mark.parametrize("maker", [detection, track])
def test_a_sound_file_has_no_faults_and_the_devkit_loads_it(tmp_path, maker):
    more = {"tracking_id": "8"} if maker is track else {}
    results = {"a": [maker(), maker(velocity=[NAN, NAN], **more)], "b": [], "c": [maker("c")]}
    assert faults_of(tmp_path, results, ["c", "b", "a"]) == []
    assert judged(tmp_path / "results.json", "tracking" if maker is track else "detection")


VECTORS = ("translation", "size", "rotation", "velocity")
REFUSED, ACCEPTED = False, True  # by the devkit, which stops at the first fault and sees less
FORM = [
    *[pytest.param({name: None}, f"{name}: expected . numbers, got None", REFUSED, id=f"{name} null") for name in VECTORS],
    *[pytest.param({name: [1.0]}, rf"{name}: expected . numbers, got \[1.0\]", REFUSED, id=f"{name} too short") for name in VECTORS],
    *[pytest.param({name: [1.0] * 5}, rf"{name}: expected . numbers, got \[1.0, 1", REFUSED, id=f"{name} too long") for name in VECTORS],
    pytest.param({"translation": []}, r"translation: expected 3 numbers, got \[\]", REFUSED, id="no numbers"),
    pytest.param({"translation": ["1.0", "2.0", "3.0"]}, "translation: expected 3 numbers, got ", REFUSED, id="numbers as text"),
    pytest.param({"translation": "123"}, "translation: expected 3 numbers, got '123'", REFUSED, id="a text of three letters"),
    pytest.param({"translation": [None, 1.0, 2.0]}, "translation: expected 3 numbers, got ", REFUSED, id="a null among numbers"),
    pytest.param({"translation": {"x": 1, "y": 2, "z": 3}}, "translation: expected 3 numbers, got ", REFUSED, id="an object"),
    pytest.param({"translation": [[1.0], [2.0], [3.0]]}, "translation: expected 3 numbers, got ", ACCEPTED, id="nested lists"),
    pytest.param({"translation": [True, 1.0, 2.0]}, r"translation: expected 3 numbers, got \[True, 1.0, 2.0\]", ACCEPTED, id="a boolean"),
    pytest.param({"size": 1.5}, "size: expected 3 numbers, got 1.5", REFUSED, id="a number for a list"),
    pytest.param({"detection_score": "0.5"}, "detection_score: expected a number, got '0.5'", ACCEPTED, id="score as text"),
    pytest.param({"detection_score": None}, "detection_score: expected a number, got None", REFUSED, id="score null"),
    pytest.param({"detection_score": True}, "detection_score: expected a number, got True", ACCEPTED, id="score true"),
    pytest.param({"detection_score": [0.5]}, r"detection_score: expected a number, got \[0.5\]", REFUSED, id="score in a list"),
    pytest.param({"detection_name": "cars"}, "detection_name: expected .*, got 'cars'; did you mean 'car'", REFUSED, id="unknown class"),
    pytest.param({"detection_name": None}, "detection_name: expected one of car, .*, got None", REFUSED, id="class null"),
    pytest.param({"detection_name": ["car"]}, r"detection_name: expected one of car, .*, got \['car'\]", REFUSED, id="class a list"),
    pytest.param({"attribute_name": "vehicle.flies"}, "attribute_name: expected .*, got 'vehicle.flies'", REFUSED, id="unknown attribute"),
    pytest.param({"attribute_name": None}, "attribute_name: expected an attribute or '', got None", REFUSED, id="attribute null"),
    pytest.param({"attribute_name": {}}, r"attribute_name: expected an attribute or '', got \{\}", REFUSED, id="attribute an object"),
    pytest.param({"sample_token": "b"}, "sample_token: expected that of its list, got 'b'", ACCEPTED, id="another sample's box"),
    pytest.param({"sample_token": 7}, "sample_token: expected that of its list, got 7", REFUSED, id="token a number"),
]  # fmt: skip
VALUES = [
    *[
        pytest.param({name: [*sound, number]}, f"{name}: expected finite numbers, got .*{number}", accepts, id=f"{name} {number}")
        for name, sound in (("translation", [1.0, 2.0]), ("size", [1.0, 2.0]), ("rotation", [1.0, 0.0, 0.0]))
        for number, accepts in ((NAN, REFUSED), (INF, ACCEPTED))
    ],
    pytest.param({"detection_score": NAN}, r"score: expected finite numbers, got \[nan\]", REFUSED, id="score NaN"),
    pytest.param({"detection_score": INF}, r"score: expected finite numbers, got \[inf\]", ACCEPTED, id="score inf"),
    pytest.param({"velocity": [INF, 0.0]}, r"velocity: expected finite numbers, got \[inf, 0.0\]", ACCEPTED, id="velocity inf"),
    pytest.param({"size": [1.9, -4.5, 1.6]}, r"size: expected width, length, height > 0, got \[1.9, -4.5", ACCEPTED, id="negative size"),
    pytest.param({"size": [0.0, 4.5, 1.6]}, "size: expected width, length, height > 0", ACCEPTED, id="size zero"),
    pytest.param({"rotation": [0.0, 0.0, 0.0, 0.0]}, "rotation: expected a quaternion w x y z, got all zero", ACCEPTED, id="no rotation"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message", "devkit_accepts"), FORM + VALUES)
def test_a_fault_is_told_with_sample_and_box(tmp_path, changes, message, devkit_accepts):
    faults = faults_of(tmp_path, {"b": [detection("b")], "a": [detection(), detection(**changes), detection()]})
    assert [(fault.sample, fault.box) for fault in faults] == [("a", 1)]
    with pytest.raises(DataError, match=f"sample a: box 1: {message}"):
        raise DataError(str(faults[0]))
    assert judged(tmp_path / "results.json", "detection") == devkit_accepts


@pytest.mark.parametrize(("changes", "message", "devkit_accepts"), FORM)
def test_without_a_listener_the_first_fault_of_form_stops_reading(tmp_path, changes, message, devkit_accepts):
    path = write_results(tmp_path / "results.json", {"a": [detection(), detection(**changes)]})
    with pytest.raises(DataError, match=rf"results.json: sample a: box 1: {message}"):
        read_submission(path)


@pytest.mark.parametrize("field", list(detection()))
def test_a_missing_field_is_named(tmp_path, field):
    box = detection()
    del box[field]
    faults = faults_of(tmp_path, {"a": [box]})
    assert [str(fault) for fault in faults] == [f"sample a: box 0: lacks {field}"]
    assert judged(tmp_path / "results.json", "detection") == (field == "detection_score")  # the devkit takes -1 for it


def test_whole_numbers_are_accepted_as_the_devkit_does(tmp_path):
    assert faults_of(tmp_path, {"a": [detection(detection_score=1, translation=[1, 2, 3], rotation=[1, 0, 0, 0])]}) == []
    assert judged(tmp_path / "results.json", "detection")


@pytest.mark.parametrize("digits", [19, 25, 308, 320], ids=lambda n: f"{n} digits")
def test_huge_whole_numbers_are_numbers_or_faults_but_no_crash(tmp_path, digits):
    for results in (
        {"a": [detection(translation=[10**digits, 1, 2])]},
        {"a": [detection(), detection(size=[0, 0, 0], detection_score=-(10**digits))], "b": []},
    ):
        path = write_results(tmp_path / "results.json", results)
        try:
            validate_submission(path)
        except DataError as error:
            assert digits == 320
            assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("items", "box", "message"),
    [
        pytest.param(None, None, "expected a list of boxes, got None", id="null"),
        pytest.param({"0": detection()}, None, "expected a list of boxes, got {", id="an object"),
        pytest.param("none", None, "expected a list of boxes, got 'none'", id="text"),
        pytest.param([detection(), None], 1, "expected an object, got None", id="a box null"),
        pytest.param([detection(), [1.0]], 1, "expected an object, got [1.0]", id="a box a list"),
        pytest.param([3], 0, "expected an object, got 3", id="a box a number"),
        pytest.param([{}], 0, "lacks sample_token, translation, size, rotation, velocity, detection_name, ", id="a box empty"),
    ],
)  # fmt: skip
def test_what_is_no_list_of_boxes_is_told(tmp_path, items, box, message):
    faults = faults_of(tmp_path, {"b": [detection("b")], "a": items, "c": [detection("c")]})
    assert [(fault.sample, fault.box) for fault in faults] == [("a", box)]
    assert faults[0].what.startswith(message)
    if items != {"0": detection()}:
        assert not judged(tmp_path / "results.json", "detection")


@pytest.mark.parametrize("meta", [None, [], "lidar", 3], ids=repr)
def test_meta_must_be_an_object(tmp_path, meta):
    faults = faults_of(tmp_path, {"a": []}, meta=meta)
    assert [str(fault) for fault in faults] == [f"file: meta: expected an object with use_lidar, use_camera, ..., got {meta!r}"]


def test_a_file_without_meta_has_that_fault_and_the_devkit_refuses_it(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"results": {"a": [detection()]}}))
    submission, faults = validate_submission(path)
    assert len(submission) == 1
    assert [fault.what[:23] for fault in faults] == ["meta: expected an object"[:23]]
    assert not judged(path, "detection")


def test_more_than_500_boxes_are_told_500_are_not(tmp_path):
    faults = faults_of(tmp_path, {"a": [detection()] * 500, "b": [detection("b")] * 501})
    assert faults == [Fault("b", None, "expected at most 500 boxes, got 501")]
    assert not judged(tmp_path / "results.json", "detection")
    assert faults_of(tmp_path, {"a": [detection()] * 500}) == []
    assert judged(tmp_path / "results.json", "detection")


def test_boxes_with_a_faulty_form_count_among_the_500(tmp_path):
    faults = faults_of(tmp_path, {"b": [detection("b")] * 250 + [None] + [detection("b")] * 250})
    assert [(fault.box, fault.what) for fault in faults] == [
        (250, "expected an object, got None"),
        (None, "expected at most 500 boxes, got 501"),
    ]


def test_missing_and_foreign_samples_are_told_where_the_split_is_known(tmp_path):
    faults = faults_of(tmp_path, {"b": [], "x": [], "a": []}, ["a", "b", "c", "d"])
    assert [str(fault) for fault in faults] == [
        "sample c: is missing; a sample without boxes needs an empty list",
        "sample d: is missing; a sample without boxes needs an empty list",
        "sample x: is not a sample of the split",
    ]
    assert faults_of(tmp_path, {"b": [], "x": [], "a": []}) == []


def test_a_track_has_one_class(tmp_path):
    results = {
        "a": [track(tracking_id="1"), track(tracking_id="2")],
        "b": [track("b", tracking_id="2"), track("b", tracking_id="1", tracking_name="truck")],
    }
    assert faults_of(tmp_path, results) == [Fault("b", 1, "tracking_id '1': expected one class a track, got car and truck")]


def test_a_track_goes_on_from_sample_to_sample(tmp_path):
    assert faults_of(tmp_path, {"a": [track()], "b": [track("b")], "c": [], "d": [track("d")]}) == []


def test_a_track_comes_once_a_sample(tmp_path):
    results = {"a": [track(tracking_id="1"), track(tracking_id="2"), track(tracking_id="1")], "b": [track("b", tracking_id="1")]}
    assert faults_of(tmp_path, results) == [Fault("a", 2, "tracking_id '1': expected once a sample, got it again")]


@pytest.mark.parametrize(
    ("changes", "message", "devkit_accepts"),
    [
        pytest.param({"tracking_id": 7}, "tracking_id: expected text of at most 256 characters, got 7", ACCEPTED, id="id a number"),
        pytest.param({"tracking_id": None}, "tracking_id: expected text of at most 256 characters, got None", ACCEPTED, id="id null"),
        pytest.param(
            {"tracking_id": "x" * 257}, "tracking_id: expected text of at most 256 characters, got 'xxx", ACCEPTED, id="id too long"
        ),
        pytest.param(
            {"tracking_name": "barrier"}, "tracking_name: expected one of bicycle, .*, got 'barrier'", REFUSED, id="no tracked class"
        ),
        pytest.param({"tracking_score": None}, "tracking_score: expected a number, got None", REFUSED, id="score null"),
    ],
)
def test_a_fault_of_a_track_is_told(tmp_path, changes, message, devkit_accepts):
    faults = faults_of(tmp_path, {"a": [track(), track(tracking_id="8") | changes]})
    assert [(fault.sample, fault.box) for fault in faults] == [("a", 1)]
    with pytest.raises(DataError, match=message):
        raise DataError(faults[0].what)
    assert judged(tmp_path / "results.json", "tracking") == devkit_accepts


def twice(first: list, second: list, *, between: str = "") -> str:
    """A file with two lists for sample a."""
    lists = ", ".join(
        [f'"a": {json.dumps(first)}', *([between] if between else []), f'"a": {json.dumps(second)}', f'"z": {json.dumps([detection("z")])}']
    )
    return f'{{"meta": {json.dumps(META)}, "results": {{"first": [], {lists}}}}}'


@pytest.mark.parametrize("block", [1 << 20, 600], ids=["in one piece", "in different pieces"])
@pytest.mark.parametrize("between", ["", '"b": [], "c": []'], ids=["next to each other", "apart"])
@pytest.mark.parametrize(
    ("first", "second"),
    [([detection()], [detection()]), ([], [detection()]), ([detection()], []), ([], []), ([detection(size=[1, 2])], [detection()])],
    ids=["boxes twice", "empty first", "empty second", "both empty", "a faulty box lost"],
)
def test_a_sample_that_comes_twice_is_told(tmp_path, monkeypatch, first, second, between, block):
    monkeypatch.setattr(json_stream, "BLOCK_BYTES", block)
    path = tmp_path / "results.json"
    path.write_text(twice(first, second, between=between))
    faults = validate_submission(path)[1]
    assert [str(fault) for fault in faults if "twice" in fault.what] == ["sample a: comes twice in the file"]
    path.write_text(twice(first, second, between=between).replace('"z": [', '"z": [17, '))  # another fault does not hide it
    faults = validate_submission(path)[1]
    assert [str(fault) for fault in faults if "twice" in fault.what] == ["sample a: comes twice in the file"]


def test_a_list_that_a_faulty_box_lacks_does_not_hide_a_sample_that_comes_twice(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(twice([], [detection()]).replace('"translation": [10.0, 20.0, 1.0]', '"translation": null', 1))
    assert {str(fault)[:40] for fault in validate_submission(path)[1]} == {
        "sample a: box 0: translation: expected 3 numbers, got None"[:40],
        "sample a: comes twice in the file",
    }


def test_brackets_in_texts_and_further_lists_are_not_taken_for_samples(tmp_path):
    results = {"a[[": [detection("a[[", more=[[1], [2]]), detection("a[[", more="[[")], "b": [detection("b")], "c]": []}
    assert faults_of(tmp_path, results) == []


def test_tokens_are_shown_on_one_line_whatever_they_hold(tmp_path):
    path = tmp_path / "results.json"
    path.write_text('{"meta": {}, "results": {"a\\nb\\u001b[31m\\ud800": [7], "": [8], "' + "x" * 300 + '": [9]}}')
    lines = [str(fault) for fault in validate_submission(path)[1]]
    assert lines == [
        r"sample 'a\nb\x1b[31m\ud800': box 0: expected an object, got 7",
        "sample '': box 0: expected an object, got 8",
        f"sample 'x{'x' * 55}...: box 0: expected an object, got 9",
    ]


def test_all_kinds_of_fault_in_one_file_are_told_in_one_go(tmp_path):
    sizeless = track("form", tracking_id="n")
    del sizeless["size"]
    results = {
        "form": [
            sizeless,
            track("other", tracking_id="1"),
            track("form", tracking_id="2", tracking_name="tram"),
            track("form", tracking_id="3", translation=[1, 2]),
            track("form", tracking_id=4),
            track("form", tracking_id="5", tracking_score="high"),
            track("form", tracking_id="sound"),
        ],
        "values": [
            track("values", tracking_id="6", translation=[NAN, 0, 0]),
            track("values", tracking_id="7", size=[1, -1, 1]),
            track("values", tracking_id="8", velocity=[0, INF]),
            track("values", tracking_id="9", rotation=[0, 0, 0, 0]),
            track("values", tracking_id="10", tracking_score=NAN),
            track("values", tracking_id="11"),
            track("values", tracking_id="11"),
            track("values", tracking_id="sound", tracking_name="bus"),
        ],
        "many": [track("many", tracking_id=f"m{i}") for i in range(501)],
        "no list": {},
        "foreign": [],
    }  # fmt: skip
    faults = faults_of(tmp_path, results, ["form", "values", "many", "no list", "missing"], meta=None)
    found = [(fault.sample, fault.box, fault.what.split(":")[0].split(",")[0]) for fault in faults]
    assert sorted(found, key=str) == sorted(
        [
            ("form", 0, "lacks size"),
            ("form", 1, "sample_token"),
            ("form", 2, "tracking_name"),
            ("form", 3, "translation"),
            ("form", 4, "tracking_id"),
            ("form", 5, "tracking_score"),
            ("values", 0, "translation"),
            ("values", 1, "size"),
            ("values", 2, "velocity"),
            ("values", 3, "rotation"),
            ("values", 4, "score"),
            ("values", 6, "tracking_id '11'"),
            ("values", 7, "tracking_id 'sound'"),
            ("many", None, "expected at most 500 boxes"),
            ("no list", None, "expected a list of boxes"),
            ("", None, "meta"),
            ("missing", None, "is missing; a sample without boxes needs an empty list"),
            ("foreign", None, "is not a sample of the split"),
        ],
        key=str,
    )


def test_box_numbers_are_those_of_the_file_even_after_boxes_left_out(tmp_path):
    results = {"a": [3, detection(), detection(size=[-1, 1, 1])], "b": [None, None, detection("b", translation=[INF, 0, 0])]}
    faults = faults_of(tmp_path, results)
    assert {(fault.sample, fault.box) for fault in faults} == {("a", 0), ("a", 2), ("b", 0), ("b", 1), ("b", 2)}


# What a mutation may put in the place of a value, and bytes that break JSON in interesting places.
STRANGE = [
    None,
    True,
    0,
    -1,
    7,
    2**63,
    -(2**70),
    10**320,
    1e308,
    NAN,
    INF,
    "",
    "car",
    "NaN",
    "\ud800",
    "\0",
    [],
    [[]],
    {},
    [1, 2],
    {"a": [1]},
    "x" * 300,
]
BYTES = [
    b"",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b'"',
    b"\\",
    b"\xff",
    b"\0",
    b"\n",
    b"NaN",
    b"Infinity",
    b"1e999",
    b"-",
    b"null",
    b'"a":[],',
    b"[" * 2000,
    b"]}}",
]


def mutated_bytes(text: bytes, draw: random.Random) -> bytes:
    """`text` with one to four cuts, insertions, replacements, copies or swaps."""
    for _ in range(draw.randint(1, 4)):
        a, b = sorted(draw.choices(range(len(text) + 1), k=2))
        b = min(b, a + draw.choice([0, 1, 3, 40, 400]))
        kind = draw.randrange(5)
        if kind == 0:
            text = text[:a] + text[b:]
        elif kind == 1:
            text = text[:a] + draw.choice(BYTES) + text[a:]
        elif kind == 2:
            text = text[:a] + draw.choice(BYTES) + text[b:]
        elif kind == 3:
            text = text[:b] + text[a:]
        else:
            text = text[:a] if draw.random() < 0.3 else text[:a] + bytes([draw.randrange(256)]) + text[a + 1 :]
    return text


def mutated_structure(value, draw: random.Random):
    """`value` with one part replaced, left out, or moved elsewhere."""
    if isinstance(value, dict) and value and draw.random() < 0.85:
        key = draw.choice(list(value))
        if draw.random() < 0.1:
            return {k: v for k, v in value.items() if k != key}
        if draw.random() < 0.1:
            return {draw.choice(["", "size", "\ud800", "x"]) if k == key else k: v for k, v in value.items()}
        return value | {key: mutated_structure(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.85:
        i = draw.randrange(len(value))
        if draw.random() < 0.15:
            return value[:i] + value[i + 1 :] if draw.random() < 0.5 else [*value, value[i]]
        return [*value[:i], mutated_structure(value[i], draw), *value[i + 1 :]]
    return draw.choice(STRANGE)


def mutation(seed: int, maker) -> bytes:
    draw = random.Random(seed)
    more = [{"tracking_id": str(i)} if maker is track else {} for i in range(4)]
    document = {
        "meta": META,
        "results": {"a": [maker(**more[0]), maker(**more[1])], "b": [], "c": [maker("c", **more[2]), maker("c", **more[3])]},
    }
    if draw.random() < 0.5:
        for _ in range(draw.randint(1, 3)):
            document = mutated_structure(document, draw)
        return json.dumps(document, indent=draw.choice([None, 1])).encode()
    return mutated_bytes(json.dumps(document).encode(), draw)


@pytest.mark.parametrize("maker", [detection, track])
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), block=st.sampled_from([50, 300, 1 << 20]))
def test_no_mutation_gives_anything_but_faults_or_a_data_error(tmp_path, maker, seed, block):
    path = tmp_path / "results.json"
    path.write_bytes(mutation(seed, maker))
    old, json_stream.BLOCK_BYTES = json_stream.BLOCK_BYTES, block
    try:
        try:
            submission, faults = validate_submission(path, ["a", "b", "c"])
        except DataError as error:
            assert "\n" not in str(error), str(error)  # noqa: PT017
            faults = [None]
        else:
            assert len(submission) == submission.offset[-1]
            assert all(str(fault).isprintable() for fault in faults)
            form_faults = []
            read_submission(path, report=form_faults.append)
            assert form_faults == faults[: len(form_faults)]
            if not faults:  # what we find no fault with can be tracked: every sample becomes values
                assert [len(submission.detections(token)) for token in submission.tokens] == list(
                    submission.offset[1:] - submission.offset[:-1]
                )
        try:
            read_submission(path)
        except DataError:
            assert faults
    finally:
        json_stream.BLOCK_BYTES = old


@pytest.mark.parametrize("maker", [detection, track])
def test_what_passes_the_validation_passes_the_devkit(tmp_path, maker):
    """Of 1500 mutations those without faults must be loaded by the devkit too; not the other way round, it sees less.

    Left out are whole numbers of more digits than NumPy's integers have: doubles to us, objects to the devkit, which stumbles on them.
    """
    passed, path = 0, tmp_path / "results.json"
    for text in (mutation(seed, maker) for seed in range(1500)):
        if re.search(rb"\d{19}", text):
            continue
        path.write_bytes(text)
        try:
            faults = validate_submission(path)[1]
        except DataError:
            continue
        if not faults:
            passed += 1
            assert judged(path, "detection" if maker is detection else "tracking"), path.read_bytes()
    assert passed > 20
