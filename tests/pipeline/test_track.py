"""From detections to files: one run's folder, the policies for missing samples, the same bytes twice, and nothing half written."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict

import numpy as np
import pyarrow.parquet as pq
import pytest

import perception
from perception.core import NUSCENES_DETECTION, Boxes3D, DataError, Detections, UsageError
from perception.drives import NuScenes
from perception.drives.simulated import simulate_detections, simulate_scenes
from perception.drives.simulated import write_nuscenes as write_simulated
from perception.evaluation import detection_boxes, read_submission, validate_submission, write_submission
from perception.export import SCHEMAS, open_run
from perception.pipeline import track_submission
from perception.pipeline.record import ASIDE
from perception.tracking import load_tracker_config
from tests import makers
from tests.conftest import ROOT
from tests.evaluation.makers import SPLIT, VERSION, detection, track, write_results, write_street


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    return write_street(tmp_path_factory.mktemp("street"))


@pytest.fixture(scope="module")
def run(street, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    return track_submission(street.detections, street.dataset, out, config=load_tracker_config(), split=SPLIT)


def tracked(street, out, results=None, **options):
    """Track the street's detections, or `results` written beside the output."""
    path = street.detections if results is None else write_results(out / "given.json", results)
    return track_submission(path, street.dataset, out / "run", config=load_tracker_config(), **options)


def results_of(street):
    return json.loads(street.detections.read_bytes())["results"]


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_has_the_documented_files(run):
    names = {f"{kind}/sim-000{i}.parquet" for kind in ("detections", "tracks", "frames") for i in (1, 2)}
    assert set(contents(run.out)) == {"run.json", "nuscenes/tracks.json", *names}
    for kind, schema in SCHEMAS.items():
        assert pq.read_schema(run.out / kind / "sim-0001.parquet").equals(schema)


def test_the_submission_is_sound_and_covers_the_split(run, street):
    submission, faults = validate_submission(run.submission, street.tokens)
    assert faults == []
    assert submission.task == "tracking"
    assert len(submission) == run.counts.boxes_written > 50


def test_track_ids_differ_between_drives(run, street):
    submission = read_submission(run.submission)
    ids = defaultdict(set)
    for drive in street.dataset.drives(SPLIT):
        for token in drive.tokens:
            ids[drive.name].update(submission.tracking_id[submission.rows(token)].tolist())
    assert ids["sim-0001"]
    assert ids["sim-0002"]
    assert not ids["sim-0001"] & ids["sim-0002"]
    assert all(name.startswith(f"{drive}-") for drive, names in ids.items() for name in names)


def test_the_submission_holds_the_seen_tracks_of_the_tables_and_no_coasted_ones(run, street):
    submission, opened = read_submission(run.submission), open_run(run.out)
    coasted = 0
    for drive in opened:
        for frame in drive:
            seen = frame.tracks[~frame.tracks.coasted]
            coasted += int(frame.tracks.coasted.sum())
            rows = submission.rows(frame.token)
            assert submission.tracking_id[rows].tolist() == [f"{drive.name}-{i}" for i in seen.track_id]
            np.testing.assert_allclose(submission.translation[rows], seen.boxes.center)
    assert coasted > 0


def test_run_json_tells_what_was_done(run, street):
    info = json.loads((run.out / "run.json").read_text())
    config = load_tracker_config().model_dump(mode="json")
    text = json.dumps(config, sort_keys=True).encode()
    assert info["schema_version"] == 1
    assert info["command"] == "track"
    assert info["versions"]["perception"] == perception.__version__
    assert info["config"] == config
    assert info["config_hash"] == hashlib.blake2b(text, digest_size=8).hexdigest()
    assert info["inputs"]["detections"] == {
        "name": "detections.json",
        "blake2b": hashlib.blake2b(street.detections.read_bytes(), digest_size=16).hexdigest(),
    }
    assert info["inputs"]["dataset"] == {"version": VERSION, "split": SPLIT}
    assert info["drives"] == ["sim-0001", "sim-0002"]
    assert set(info["seconds"]) == {"read", "detect", "track", "write"}
    tables = open_run(run.out)
    assert info["counts"] == {
        "drives": 2,
        "frames": 12,
        "detections": len(read_submission(street.detections)),
        "tracks": len(set(zip(tables.table()["drive"].to_pylist(), tables.table()["track_id"].to_pylist(), strict=True))),
        "boxes_written": len(read_submission(run.submission)),
        "frames_missing": 0,
        "samples_foreign": 0,
    }
    assert set(tables.table()["config_hash"].to_pylist()) == {info["config_hash"]}
    assert tables.table("detections").num_rows == info["counts"]["detections"]


def test_a_second_run_gives_the_same_bytes(run, street, tmp_path):
    again = tracked(street, tmp_path, split=SPLIT)
    first, second = contents(run.out), contents(again.out)
    assert set(first) == set(second)
    for name in set(first) - {"run.json"}:
        assert first[name] == second[name], name
    a, b = json.loads(first["run.json"]), json.loads(second["run.json"])
    for info in (a, b):
        del info["seconds"], info["started_us"]
    assert a == b


def test_without_a_split_the_drives_of_the_file_are_tracked(run, street, tmp_path):
    second = street.dataset.drive("sim-0002")
    report = tracked(street, tmp_path, {token: results_of(street)[token] for token in second.tokens})
    assert open_run(report.out).names == ["sim-0002"]
    for kind in SCHEMAS:  # a drive does not depend on the ones before it, its numbers neither
        file = f"{kind}/sim-0002.parquet"
        assert (report.out / file).read_bytes() == (run.out / file).read_bytes()
    assert (report.counts.drives, report.counts.frames, report.counts.frames_missing) == (1, 6, 0)
    everything = tracked(street, tmp_path / "all")
    assert open_run(everything.out).names == ["sim-0001", "sim-0002"]


def test_the_order_of_samples_in_the_file_changes_nothing(run, street, tmp_path):
    report = tracked(street, tmp_path, dict(reversed(results_of(street).items())), split=SPLIT)
    assert report.submission.read_bytes() == run.submission.read_bytes()


def test_a_missing_sample_is_an_error_that_names_it(street, tmp_path):
    results = results_of(street)
    token = street.dataset.drive("sim-0002").tokens[2]
    del results[token]
    with pytest.raises(DataError, match=f"drive sim-0002: sample {token} has no entry in the detections; --on-missing skip or empty"):
        tracked(street, tmp_path, results, split=SPLIT)
    assert not (tmp_path / "run" / "run.json").exists()
    assert not (tmp_path / "run" / "nuscenes" / "tracks.json").exists()


def test_a_missing_sample_is_skipped_or_empty_and_counted(street, tmp_path):
    results = results_of(street)
    token = street.dataset.drive("sim-0002").tokens[2]
    del results[token]
    (tmp_path / "skip").mkdir()
    skipped = tracked(street, tmp_path / "skip", results, split=SPLIT, on_missing="skip")
    assert (skipped.counts.frames, skipped.counts.frames_missing) == (11, 1)
    assert token not in read_submission(skipped.submission).tokens
    assert [frame.token for frame in open_run(skipped.out).drive("sim-0002")] == [
        t for t in street.dataset.drive("sim-0002").tokens if t != token
    ]
    assert [frame.index for frame in open_run(skipped.out).drive("sim-0002")] == [0, 1, 2, 3, 4]
    (tmp_path / "empty").mkdir()
    empty = tracked(street, tmp_path / "empty", results, split=SPLIT, on_missing="empty")
    assert (empty.counts.frames, empty.counts.frames_missing) == (12, 1)
    submission = read_submission(empty.submission)
    assert len(submission.tracking_id[submission.rows(token)]) == 0
    frame = open_run(empty.out).drive("sim-0002")[2]
    assert len(frame.tracks) > 0
    assert frame.tracks.coasted.all()  # what was seen before is predicted


def test_foreign_samples_stop_the_run_or_are_counted(street, tmp_path):
    results = results_of(street) | {"nowhere": [detection("nowhere")], "nothing": []}
    with pytest.raises(
        DataError, match=r"given.json: 2 of its 14 samples are not in v1.0-simulated, first nowhere; is it the right version\?"
    ):
        tracked(street, tmp_path, results, split=SPLIT)
    report = tracked(street, tmp_path, results, split=SPLIT, on_missing="skip")
    assert report.counts.samples_foreign == 2
    assert set(read_submission(report.submission).tokens) == set(street.tokens)


def test_a_file_of_another_data_set_is_refused_whatever_the_policy(street, tmp_path):
    with pytest.raises(DataError, match=r"1 of its 1 samples are not in v1.0-simulated, first a; is it the right version"):
        tracked(street, tmp_path, {"a": [detection()]}, on_missing="skip")


def test_a_file_of_tracks_is_refused(street, tmp_path):
    with pytest.raises(DataError, match="expected a detection submission, got one of tracks"):
        tracked(street, tmp_path, {"a": [track()]})


def test_a_faulty_file_is_refused_with_its_first_fault_and_their_number(street, tmp_path):
    token = street.tokens[0]
    results = results_of(street) | {token: [detection(token), detection(token, size=[-1, 1, 1]), detection(token, detection_name="tram")]}
    with pytest.raises(
        DataError, match=rf"given.json: sample {token}: box 2: detection_name: .* \(and 1 more; `perception validate` lists all\)"
    ):
        tracked(street, tmp_path, results)
    assert not (tmp_path / "run").exists()


def test_unknown_splits_are_refused(street, tmp_path):
    with pytest.raises(UsageError, match=r"split 'simulated_vall': expected one of .*; did you mean 'simulated_val'"):
        tracked(street, tmp_path, split="simulated_vall")


def test_a_file_without_boxes_gives_a_run_without_tracks(street, tmp_path):
    report = tracked(street, tmp_path, {token: [] for token in street.tokens}, split=SPLIT)
    assert (report.counts.frames, report.counts.tracks, report.counts.boxes_written) == (12, 0, 0)
    run = open_run(report.out)
    assert [len(frame.tracks) for drive in run for frame in drive] == [0] * 12
    assert run.table("frames").num_rows == 12
    assert json.loads(report.submission.read_text())["results"] == {token: [] for token in street.tokens}


def test_of_more_than_500_tracks_the_500_best_are_written_and_all_are_in_the_tables(street, tmp_path):
    place = np.stack(np.meshgrid(np.arange(25), np.arange(22)), axis=-1).reshape(-1, 2) * 10.0  # far apart: all are tracks
    boxes = Boxes3D(np.column_stack([place, np.ones(550)]), np.tile([4.0, 2.0, 1.5], (550, 1)), np.zeros(550), np.zeros((550, 2)))
    score = np.random.default_rng(0).permutation(550) / 1000 + 0.3
    value = Detections(boxes, np.zeros(550, np.int64), score, NUSCENES_DETECTION)
    tokens = street.dataset.drive("sim-0001").tokens
    report = tracked(street, tmp_path, {token: detection_boxes(token, value) for token in tokens})
    submission, faults = validate_submission(report.submission)
    assert faults == []
    assert np.diff(submission.offset).tolist() == [500] * 6
    assert [len(frame.tracks) for frame in open_run(report.out).drive("sim-0001")] == [550] * 6


def test_meta_is_passed_on(street, tmp_path):
    path = write_results(tmp_path / "d.json", results_of(street), meta={"use_camera": True, "method": "mine"})
    report = track_submission(path, street.dataset, tmp_path / "run", config=load_tracker_config())
    assert json.loads(report.submission.read_text())["meta"] == {"use_camera": True, "method": "mine"}


def test_progress_is_told_after_each_drive(street, tmp_path):
    told = []
    tracked(street, tmp_path, split=SPLIT, advance=lambda *args: told.append(args))
    assert told == [("sim-0001", 1, 2), ("sim-0002", 2, 2)]


def test_a_run_that_fails_is_no_finished_run_even_over_an_old_one(street, tmp_path):
    tracked(street, tmp_path, split=SPLIT)
    results = results_of(street)
    del results[street.tokens[-1]]
    with pytest.raises(DataError, match="has no entry in the detections"):
        tracked(street, tmp_path, results, split=SPLIT)
    with pytest.raises(DataError, match=r"run.json: expected the folder of a finished run"):
        open_run(tmp_path / "run")
    assert not (tmp_path / "run" / "nuscenes" / "tracks.json").exists()  # the old one would be scored in place of the new


def test_real_table_layouts_with_cameras_and_sweeps_are_tracked_too(tmp_path):
    root = makers.write_nuscenes(tmp_path / "data", splits={"mine": ["scene-0916"]})
    dataset = NuScenes(root, cameras=False, truth=False)
    tokens = dataset.drive("scene-0916").tokens
    boxes = {t: [detection(t, translation=[10.0 + k, 2.0, 0.8], velocity=[2.0, 0.0])] for k, t in enumerate(tokens)}
    report = track_submission(
        write_results(tmp_path / "d.json", boxes), dataset, tmp_path / "run", config=load_tracker_config(), split="mine"
    )
    frames = list(open_run(report.out).drive("scene-0916"))
    assert [frame.tracks.track_id.tolist() for frame in frames] == [[frames[0].tracks.track_id[0]]] * 3
    np.testing.assert_allclose([frame.ego_to_global.translation[0] for frame in frames], [0, 2, 4])


def assert_everything_complete(out):
    """Every file of an interrupted run is whole, and there is no other litter. Returns whether the run is finished."""
    for path in out.rglob("*"):
        if path.is_dir():
            continue
        if path.name.endswith(".partial"):  # killed in the instant in which a file is replaced: the old one is still there
            assert (path.parent / path.name[1:].rsplit(".", 2)[0]).is_file(), path
            continue
        assert not path.name.startswith("."), path
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            assert table.schema.equals(SCHEMAS[path.parent.name])
        else:
            assert path.suffix == ".json", path
            json.loads(path.read_bytes())
    return (out / "run.json").exists()


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="only Linux has files without a name (O_TMPFILE)")
def test_kill_9_at_any_moment_leaves_no_half_written_file(tmp_path):
    scenes = simulate_scenes(8, seed=1, num_frames=6)
    write_simulated(tmp_path / "data", scenes, version=VERSION, splits={SPLIT: [scene.name for scene in scenes]})
    dataset = NuScenes(tmp_path / "data", VERSION, cache=tmp_path / "cache")
    found = [item for i, scene in enumerate(scenes) for item in simulate_detections(scene, np.random.default_rng(i))]
    tokens = [token for drive in dataset.drives() for token in drive.tokens]
    write_submission(tmp_path / "d.json", [(t, detection_boxes(t, d)) for t, d in zip(tokens, found, strict=True)])
    out = tmp_path / "run"
    command = [sys.executable, "-m", "perception", "track", str(tmp_path / "d.json"), "--data", str(tmp_path / "data"), "--out", str(out)]

    def start():
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def wait_for_files(process, count):
        while sum(len(list((out / kind).glob("*.parquet"))) for kind in SCHEMAS) < count and process.poll() is None:
            time.sleep(0.0005)

    with start() as process:  # once undisturbed
        assert process.wait(timeout=60) == 0, process.stderr.read()
    whole = contents(out)
    assert assert_everything_complete(out)
    rng, unfinished, with_files = random.Random(0), 0, 0
    for k in range(8):
        for path in [path for path in out.rglob("*") if path.is_file()]:
            path.unlink()
        with start() as process:
            wait_for_files(process, 1 + 2 * k)  # of 24: a moment that every machine hits, however fast
            time.sleep(rng.uniform(0, 0.01))
            process.send_signal(signal.SIGKILL)
            process.wait(timeout=20)
        is_finished = assert_everything_complete(out)
        unfinished += not is_finished
        with_files += bool(contents(out)) and not is_finished
        if is_finished:
            left = {name for name in contents(out) if not name.startswith(f"{ASIDE}/")}  # or killed while it cleared up
            assert left == set(whole)
        else:
            with pytest.raises(DataError, match="expected the folder of a finished run"):
                open_run(out)
    assert unfinished >= 4, "the moments of the kills do not fall into the run"
    assert with_files >= 4
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0
    again = contents(out)
    assert {k: v for k, v in again.items() if k != "run.json"} == {k: v for k, v in whole.items() if k != "run.json"}
