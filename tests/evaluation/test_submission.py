"""Submissions are read as they stand, in pieces, and written complete; what is wrong in their form is named."""

import gc
import json
import math

import numpy as np
import orjson
import pytest

from perception.core import NUSCENES_DETECTION, NUSCENES_TRACKING, Boxes3D, DataError, Detections, Tracks, Transform, json_stream
from perception.core.borders import boxes_from_det3d, boxes_to_nuscenes, yaw_of_quaternions
from perception.evaluation import (
    best_boxes,
    detection_boxes,
    join_submissions,
    read_submission,
    submission_writer,
    tracking_boxes,
    write_submission,
)
from perception.evaluation.submission import LIDAR_META
from tests.evaluation.makers import META, detection, track, write_results


def some_detections(count: int, seed: int = 0) -> Detections:
    rng = np.random.default_rng(seed)
    boxes = Boxes3D(
        rng.normal(0, 500, (count, 3)), rng.uniform(0.5, 5, (count, 3)), rng.uniform(-3.1, 3.1, count), rng.normal(0, 5, (count, 2))
    )
    attribute = rng.choice(["vehicle.moving", "", "pedestrian.standing"], count)
    return Detections(boxes, rng.integers(0, 10, count), rng.random(count), NUSCENES_DETECTION, attribute=attribute)


def some_tracks(count: int, **changes) -> Tracks:
    rng = np.random.default_rng(1)
    boxes = Boxes3D(rng.normal(0, 50, (count, 3)), rng.uniform(1, 5, (count, 3)), rng.uniform(-3, 3, count), rng.normal(0, 5, (count, 2)))
    columns = {
        "boxes": boxes,
        "label": np.arange(count) % 7,
        "score": rng.permutation(count) / max(count, 1),
        "classes": NUSCENES_TRACKING,
        "track_id": np.arange(count) + 100,
        "age": np.zeros(count),
        "hits": np.ones(count, np.int64),
        "coasted": np.zeros(count, bool),
    }
    return Tracks(**{**columns, **changes})


def test_a_submission_is_read_as_columns(tmp_path):
    results = {
        "a": [detection(), detection(detection_name="pedestrian", attribute_name="")],
        "b": [],
        "c": [detection("c", velocity=[1, 2])],
    }
    read = read_submission(write_results(tmp_path / "d.json", results))
    assert repr(read) == "Submission(detection, 3 samples, 3 boxes)"
    assert read.meta == META
    assert read.tokens == ["a", "b", "c"]
    assert read.offset.tolist() == [0, 2, 2, 3]
    assert read.translation.tolist() == [[10.0, 20.0, 1.0]] * 3
    assert read.size.tolist() == [[1.9, 4.5, 1.6]] * 3
    assert read.rotation.tolist() == [[1.0, 0.0, 0.0, 0.0]] * 3
    assert read.velocity.tolist() == [[0.5, -0.25], [0.5, -0.25], [1.0, 2.0]]  # whole numbers are numbers
    assert read.score.tolist() == [0.75] * 3
    assert [read.classes.names[i] for i in read.label] == ["car", "pedestrian", "car"]
    assert read.tracking_id is None
    first = read.detections("a")
    assert first.names.tolist() == ["car", "pedestrian"]
    assert first.attribute.tolist() == ["vehicle.moving", ""]
    assert first.boxes.size.tolist() == [[4.5, 1.9, 1.6]] * 2  # l w h of w l h
    assert len(read.detections("b")) == 0
    with pytest.raises(KeyError):
        read.detections("nonsense")


def test_a_submission_of_tracks_is_seen_from_its_boxes(tmp_path):
    read = read_submission(write_results(tmp_path / "t.json", {"a": [], "b": [track("b"), track("b", tracking_id="scene-0103-12")]}))
    assert (read.task, read.attribute) == ("tracking", None)
    assert read.tracking_id.tolist() == ["7", "scene-0103-12"]
    assert read.label.tolist() == [NUSCENES_TRACKING.index("car")] * 2


def test_numbers_keep_every_digit(tmp_path):
    values = [math.pi * 10**k for k in range(-3, 3)] + [5e-324, 1.7976931348623157e308, -0.1]
    results = {"a": [detection(translation=values[3 * i : 3 * i + 3]) for i in range(3)]}
    assert read_submission(write_results(tmp_path / "d.json", results)).translation.ravel().tolist() == values


def test_fields_that_the_schema_does_not_have_are_passed_over(tmp_path):
    more = {"ego_translation": [1.0, 2.0, 3.0], "num_pts": -1, "is_new": True, "note": '[[[[ }], "b": [{'}
    read = read_submission(write_results(tmp_path / "d.json", {"a": [detection(**more), detection()], "b": [detection("b", **more)]}))
    assert read.offset.tolist() == [0, 2, 3]


def test_meta_may_follow_the_results(tmp_path):
    path = tmp_path / "d.json"
    path.write_text(json.dumps({"results": {"a": [detection()], "b": []}, "meta": META, "comment": [1, "x"]}, indent=3))
    assert read_submission(path).meta == META


@pytest.mark.parametrize("indent", [None, 0, 4], ids=["one line", "a line an entry", "indented"])
def test_the_size_of_the_pieces_changes_nothing(tmp_path, monkeypatch, indent):
    rng = np.random.default_rng(5)
    counts = [0, 3, 1, 0, 0, 7, 2, *rng.integers(0, 6, 20).tolist()]
    results = {f"s{i}": detection_boxes(f"s{i}", some_detections(n, i)) for i, n in enumerate(counts)}
    path = tmp_path / "d.json"
    path.write_text(json.dumps({"meta": META, "results": results}, indent=indent))
    whole = read_submission(path)
    monkeypatch.setattr(json_stream, "BLOCK_BYTES", 700)
    pieces = read_submission(path)
    assert pieces.tokens == whole.tokens == list(results)
    assert np.diff(pieces.offset).tolist() == counts
    for name in ("offset", "translation", "size", "rotation", "velocity", "label", "score", "attribute"):
        np.testing.assert_array_equal(getattr(pieces, name), getattr(whole, name))


def test_what_is_written_is_read_back_to_every_digit(tmp_path):
    values = {f"s{i}": some_detections(n, i) for i, n in enumerate([5, 0, 70, 1] * 50)}  # more samples than one write takes
    count = write_submission(tmp_path / "d.json", ((token, detection_boxes(token, value)) for token, value in values.items()))
    read = read_submission(tmp_path / "d.json")
    assert count == len(read) == 76 * 50
    assert read.tokens == list(values)
    assert read.meta == LIDAR_META
    for token, value in values.items():
        again = read.detections(token)
        for name in ("center", "size", "velocity"):
            np.testing.assert_array_equal(getattr(again.boxes, name), getattr(value.boxes, name))
        np.testing.assert_allclose(again.boxes.yaw, value.boxes.yaw, rtol=0, atol=1e-15)  # through a quaternion
        for name in ("label", "score", "attribute"):
            np.testing.assert_array_equal(getattr(again, name), getattr(value, name))


def test_a_file_without_samples_is_written_and_read(tmp_path):
    assert write_submission(tmp_path / "d.json", [], meta={"use_lidar": True}) == 0
    assert json.loads((tmp_path / "d.json").read_text()) == {"meta": {"use_lidar": True}, "results": {}}
    assert repr(read_submission(tmp_path / "d.json")) == "Submission(detection, 0 samples, 0 boxes)"


def test_whatever_meta_was_read_is_written_again(tmp_path):
    meta = {"big": 10**300, "half": "\ud800", "nan": float("nan"), "ü": [None, True, {"x": {}}]}
    write_submission(tmp_path / "d.json", [("a", [detection()])], meta=meta)
    again = read_submission(tmp_path / "d.json").meta
    assert again["nan"] != again["nan"]
    assert {**again, "nan": 0} == {**meta, "nan": 0}


def test_meta_that_is_nested_too_deep_is_a_data_error(tmp_path):
    meta = {}
    for _ in range(100_000):
        meta = {"x": meta}
    with pytest.raises(DataError, match=r"meta: expected an object .*, got one nested too deep"):
        write_submission(tmp_path / "d.json", [], meta=meta)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_in_the_middle_leaves_the_old_file(tmp_path):
    path = tmp_path / "d.json"
    write_submission(path, [("a", [detection()])])
    before = path.read_bytes()

    def samples():
        yield from [(f"s{i}", [detection(f"s{i}")]) for i in range(200)]
        raise DataError("the drive ended")

    with pytest.raises(DataError, match="the drive ended"):
        write_submission(path, samples())
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["d.json"]


def test_unknown_velocity_is_written_as_zero(tmp_path):
    value = some_detections(2)
    boxes = Boxes3D(value.boxes.center, value.boxes.size, value.boxes.yaw, np.array([[np.nan, np.nan], [1.5, -2.0]]))
    written = detection_boxes("a", Detections(boxes, value.label, value.score, value.classes))
    assert [box["velocity"] for box in written] == [[0.0, 0.0], [1.5, -2.0]]
    assert [box["attribute_name"] for box in written] == ["", ""]  # no attributes known
    assert b"null" not in orjson.dumps(written)


def test_track_ids_get_the_prefix_and_keep_their_order():
    written = tracking_boxes("a", some_tracks(9), prefix="scene-0103-")
    assert [box["tracking_id"] for box in written] == [f"scene-0103-{i}" for i in range(100, 109)]
    assert [box["tracking_name"] for box in written] == [*NUSCENES_TRACKING, "bicycle", "bus"]
    assert {tuple(box) for box in written} == {tuple(track())}  # the schema's fields, in its order


def test_the_500_best_tracks_are_written_in_their_order():
    tracks = some_tracks(620)
    written = tracking_boxes("a", tracks, prefix="")
    best = np.sort(np.argsort(-tracks.score)[:500])
    assert [box["tracking_id"] for box in written] == [str(i) for i in tracks.track_id[best]]
    assert min(box["tracking_score"] for box in written) == 120 / 620  # 500 of 0/620 .. 619/620
    assert len(tracking_boxes("a", some_tracks(500), prefix="")) == 500


@pytest.mark.parametrize("error", [None, DataError], ids=["read", "refused"])
@pytest.mark.parametrize("was_on", [True, False])
def test_reading_leaves_the_garbage_collector_as_it_was(tmp_path, was_on, error):
    path = write_results(tmp_path / "d.json", {"a": [detection(size=1) if error else detection()]})
    (gc.enable if was_on else gc.disable)()
    try:
        if error:
            with pytest.raises(error):
                read_submission(path)
        else:
            read_submission(path)
        assert gc.isenabled() == was_on
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "expected an object, '{...}', got an empty file", id="empty"),
        pytest.param("[1, 2]", r"expected an object, '\{...\}', got '\[1, 2\]'", id="a list"),
        pytest.param('{"meta": {}}', "expected a nuScenes submission with the key 'results', found none", id="no results"),
        pytest.param('{"meta": {}, "results": []}', r"'results': expected an object of lists, got '\[\]\}'", id="results a list"),
        pytest.param('{"meta": {}, "results": null}', "'results': expected an object of lists, got 'null}'", id="results null"),
        pytest.param('{"meta": {}, "results": {"a": [', "invalid JSON at byte .*cut short", id="truncated"),
        pytest.param('{"meta": {}, "results": {"a": []}', "invalid JSON at byte .*cut short", id="truncated before the last brace"),
        pytest.param('{"meta": {}, "results": {"a": []}} x', "text after the end of the document", id="text behind"),
        pytest.param('{"meta": {}, "results": {"a": []}, "results": {}}', "the key 'results' comes twice", id="two results"),
        pytest.param('{"meta": {}, "results": {"a": [}}', "invalid JSON at byte 31", id="a bracket is missing"),
        pytest.param('{"meta": {}, "results": {"a": [' + "[" * 50_000 + "]" * 50_000 + "]}}", "invalid JSON|recursion", id="deep"),
        pytest.param('{"meta": {}, "results": {"a": [1' + "0" * 6000 + "]}}", "invalid JSON at byte", id="a number of 6000 digits"),
    ],
)
def test_what_is_no_submission_is_refused_whoever_reports(tmp_path, text, message):
    path = tmp_path / "d.json"
    path.write_text(text)
    for report in (None, lambda _fault: None):
        with pytest.raises(DataError, match=message) as refused:
            read_submission(path, report=report)
        assert str(path) in str(refused.value)
        assert "\n" not in str(refused.value)


def test_bytes_that_are_no_utf8_are_refused_with_their_place(tmp_path):
    text = json.dumps({"meta": META, "results": {"a": [detection()]}}).encode().replace(b"vehicle", b"veh\xffcle")
    (tmp_path / "d.json").write_bytes(text)
    with pytest.raises(DataError, match=f"invalid JSON at byte {text.index(0xFF)}"):
        read_submission(tmp_path / "d.json")


@pytest.mark.parametrize("name", ["nothing.json", "."])
def test_a_path_that_is_no_file_is_refused(tmp_path, name):
    with pytest.raises(DataError, match=r"expected a readable file, got (No such file|Is a directory)"):
        read_submission(tmp_path / name)


@pytest.mark.shared
def test_the_file_that_the_reference_wrote_has_no_faults(shared):
    faults = []
    read = read_submission(shared / "fixtures" / "nusc_json" / "expected_results.json", report=faults.append)
    assert faults == []
    assert np.diff(read.offset).tolist() == [62, 40, 44, 21, 0]
    assert len(read) == 167


@pytest.mark.shared
def test_boxes_moved_by_our_core_are_those_that_the_reference_writes(shared):
    """Translation, size and velocity to 1e-6; of the attitude the heading only: our boxes stand upright, the reference's tilt with the
    sensor (up to 4 degrees here). Its own yaw step is float32, so that 1e-6 is what can be asked for."""
    folder = shared / "fixtures" / "nusc_json"
    arrays, frames = np.load(folder / "detections.npz"), json.loads((folder / "frames.json").read_text())
    expected = json.loads((folder / "expected_results.json").read_text())["results"]
    compared = 0
    for i, name in enumerate(frames["sample_order"]):
        frame = frames["frames"][name]
        sensor, ego = (
            Transform.from_quaternion(frame[key]["rotation"], frame[key]["translation"]) for key in ("calibrated_sensor", "ego_pose")
        )
        boxes = boxes_from_det3d(arrays[f"{i}/box3d_lidar"].astype(np.float64)).transformed(ego @ sensor)
        score = arrays[f"{i}/scores"].astype(np.float64)
        ours = detection_boxes(name, Detections(boxes, np.zeros(len(boxes), np.int64), score, NUSCENES_DETECTION))
        theirs = expected[name]
        assert len(ours) == len(theirs)
        for mine, its in zip(ours, theirs, strict=True):
            assert mine["sample_token"] == its["sample_token"]
            assert mine["detection_score"] == its["detection_score"]
            for key in ("translation", "size", "velocity"):
                np.testing.assert_allclose(mine[key], its[key], rtol=0, atol=1e-6, err_msg=f"{name} {key}")
            turn = yaw_of_quaternions(np.array([mine["rotation"], its["rotation"]]))
            assert abs(math.remainder(turn[0] - turn[1], 2 * math.pi)) < 1e-6
            _w, x, y, _z = its["rotation"]
            if math.hypot(x, y) < 1e-6:  # upright: the whole quaternion, up to its sign
                sign = np.sign(np.dot(mine["rotation"], its["rotation"]))
                np.testing.assert_allclose(sign * np.array(mine["rotation"]), its["rotation"], rtol=0, atol=1e-6)
            compared += 1
    assert compared == 167


def test_quaternions_are_of_unit_length_and_turn_about_z():
    _t, _s, rotation, _v = boxes_to_nuscenes(some_detections(50).boxes)
    np.testing.assert_allclose(np.linalg.norm(rotation, axis=1), 1.0)
    assert not rotation[:, 1:3].any()


@pytest.mark.parametrize("cuts", [[], [0], [100], [70, 70], [1, 64, 65, 130], list(range(0, 150, 7))], ids=str)
def test_parts_are_joined_into_the_bytes_of_one_file(tmp_path, cuts):
    samples = [(f"s{i}", detection_boxes(f"s{i}", some_detections(i % 4, seed=i))) for i in range(150)]
    write_submission(tmp_path / "whole.json", samples)
    parts = []
    for start, stop in zip([0, *cuts], [*cuts, 150], strict=True):
        parts.append(tmp_path / f"{len(parts)}.json")
        with submission_writer(parts[-1]) as writer:
            for token, boxes in samples[start:stop]:
                writer.add(token, boxes)
        assert writer.num_boxes == sum(len(boxes) for _, boxes in samples[start:stop])
    join_submissions(tmp_path / "joined.json", parts)
    assert (tmp_path / "joined.json").read_bytes() == (tmp_path / "whole.json").read_bytes()


def test_a_part_of_another_run_is_refused(tmp_path):
    write_submission(tmp_path / "a.json", [("a", [])], meta=LIDAR_META | {"use_camera": True})
    (tmp_path / "b.json").write_bytes(b"{}")
    for name in ("a.json", "b.json", "none.json"):
        with pytest.raises(DataError, match=rf"{name}: expected a part of whole.json, got"):
            join_submissions(tmp_path / "whole.json", [tmp_path / name])
        assert not (tmp_path / "whole.json").exists()


def test_a_writer_that_is_left_by_an_error_leaves_no_file(tmp_path):
    def fail():
        with submission_writer(tmp_path / "d.json") as writer:
            writer.add("a", [])
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_the_500_best_boxes_keep_their_order_and_ties_go_to_the_first():
    found = some_detections(600)
    assert best_boxes(found[:500]).score.tolist() == found.score[:500].tolist()
    kept = best_boxes(found)
    assert kept.score.tolist() == [score for score in found.score if score >= np.sort(found.score)[100]]
    same = Detections(found.boxes, found.label, np.full(600, 0.5), NUSCENES_DETECTION)
    np.testing.assert_array_equal(best_boxes(same).boxes.center, same.boxes.center[:500])
