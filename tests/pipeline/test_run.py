"""Drives to a run's folder: what is written, what a failure leaves, and that a resumed run has the bytes of an undisturbed one."""

import gc
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pytest

from perception.core import DataError, Detections, PointCloud, UsageError
from perception.drives import NuScenes
from perception.evaluation import read_submission, validate_submission
from perception.export import open_run
from perception.pipeline import EXPORTERS, Options, Pipeline, run_drives
from perception.pipeline.record import ASIDE
from perception.tracking import build_tracker
from tests.conftest import ROOT
from tests.pipeline.makers import ClumpDetector, Stream, SyntheticDrive, contents, write_small_nuscenes


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_small_nuscenes(tmp_path_factory.mktemp("nuscenes"))


def run(out, drives, *, detector=None, tracker=True, resume=False, **options):
    names = {"num_sweeps", "config", "inputs", "exporters", "meta"}
    more = {key: options.pop(key) for key in names & set(options)}
    chosen = Options(resume=resume, **options)
    return run_drives(drives, detector or ClumpDetector(), build_tracker() if tracker else None, out, options=chosen, **more)


def three_drives(**changes):
    return [SyntheticDrive(name, 4, **(changes if name == "b" else {})) for name in ("a", "b", "c")]


def without_seconds(files):
    """The files with run.json parsed and without the seconds, which no two runs share."""
    info = json.loads(files["run.json"])
    info.pop("seconds"), info.pop("started_us")
    return files | {"run.json": info}


def test_a_run_over_nuscenes_has_the_documented_files(root, tmp_path):
    report = run(tmp_path / "run", NuScenes(root).drives())
    names = {f"{kind}/scene-000{i}.parquet" for kind in ("detections", "tracks", "frames") for i in (1, 2)}
    assert set(contents(tmp_path / "run")) == {"run.json", "nuscenes/detections.json", "nuscenes/tracks.json", *names}
    assert report.submission == tmp_path / "run" / "nuscenes" / "tracks.json"
    assert (report.counts.drives, report.counts.frames, report.counts.detections) == (2, 6, 24)  # 4 clumps a cloud
    assert report.failed == {}


def test_both_submissions_are_sound_and_cover_all_samples(root, tmp_path):
    dataset = NuScenes(root)
    tokens = [token for drive in dataset.drives() for token in drive.tokens]
    run(tmp_path, dataset.drives())
    for task, name in (("detection", "detections"), ("tracking", "tracks")):
        submission, faults = validate_submission(tmp_path / "nuscenes" / f"{name}.json", tokens)
        assert (submission.task, faults, submission.tokens) == (task, [], tokens)
        assert submission.meta == {"use_camera": False, "use_lidar": True, "use_radar": False, "use_map": False, "use_external": False}


def test_the_submission_of_detections_holds_what_the_table_holds(root, tmp_path):
    run(tmp_path, NuScenes(root).drives())
    submission = read_submission(tmp_path / "nuscenes" / "detections.json")
    for drive in open_run(tmp_path):
        for frame in drive:
            mine, theirs = submission.detections(frame.token), drive.detections_of(frame.index)
            np.testing.assert_allclose(mine.boxes.center, theirs.boxes.center)
            np.testing.assert_allclose(mine.score, theirs.score, rtol=1e-6)
            assert mine.names.tolist() == theirs.names.tolist()
            assert all(mine.attribute != "")


def test_meta_says_which_sensors_were_used(root, tmp_path):
    meta = {"use_camera": True, "use_lidar": True, "use_radar": False, "use_map": False, "use_external": False}
    run(tmp_path, NuScenes(root).drives(), meta=meta)
    assert read_submission(tmp_path / "nuscenes" / "detections.json").meta == meta


def test_of_more_than_500_detections_the_best_500_are_submitted_and_all_are_in_the_table(tmp_path):
    drive = SyntheticDrive(num_frames=1, num_objects=510, num_points=1)
    run(tmp_path, [drive], exporters=["parquet", "nuscenes"])
    submission, faults = validate_submission(tmp_path / "nuscenes" / "detections.json")
    assert (len(submission), faults) == (500, [])
    assert submission.score.min() == pytest.approx(0.2 + 0.7 / 5000)  # scores fall with the number of the clump
    assert open_run(tmp_path).table("detections").num_rows == 510


def test_drives_without_sample_tokens_get_no_submission(tmp_path):
    report = run(tmp_path, three_drives())
    assert report.submissions == []
    with pytest.raises(UsageError, match="its drives have no sample tokens"):
        print(report.submission)
    assert not (tmp_path / "nuscenes").exists()
    assert not (tmp_path / ASIDE).exists()
    assert open_run(tmp_path).names == ["a", "b", "c"]


def test_without_a_tracker_there_are_detections_only(root, tmp_path):
    report = run(tmp_path, NuScenes(root).drives(), tracker=False)
    assert report.submission == tmp_path / "nuscenes" / "detections.json"
    assert {name.split("/")[0] for name in contents(tmp_path)} == {"run.json", "nuscenes", "detections", "frames"}
    assert json.loads((tmp_path / "run.json").read_bytes())["command"] == "detect"
    assert report.counts.boxes_written == len(read_submission(report.submission)) == 24


def test_run_json_tells_what_was_done(tmp_path):
    report = run(tmp_path, three_drives(), num_sweeps=2, inputs={"weights": {"name": "w", "blake2b": "0"}})
    info = json.loads((tmp_path / "run.json").read_bytes())
    assert info["config"]["num_sweeps"] == 2
    assert info["config"]["detector"] == {"class": "ClumpDetector"}
    assert info["config"]["tracker"]["name"] == "greedy"
    assert info["inputs"] == {"weights": {"name": "w", "blake2b": "0"}}
    assert (info["drives"], info["failed"]) == (["a", "b", "c"], {})
    assert info["counts"] == vars(report.counts)
    assert sum(item["frames"] for item in info["by_drive"].values()) == info["counts"]["frames"] == 12
    assert {"read", "wait", "detect", "track", "write"} == set(info["seconds"])
    assert set(open_run(tmp_path).table()["config_hash"].to_pylist()) == {info["config_hash"]}


def test_the_tracks_of_a_run_are_those_of_the_pipeline_step_by_step(tmp_path):
    run(tmp_path, three_drives())
    pipeline = Pipeline(ClumpDetector(), build_tracker())
    for drive, saved in zip(three_drives(), open_run(tmp_path), strict=True):
        pipeline.reset()
        for frame, kept in zip(drive, saved, strict=True):
            tracks = pipeline.step(frame)
            assert kept.token == frame.token
            assert kept.tracks.track_id.tolist() == tracks.track_id.tolist()
            np.testing.assert_allclose(kept.tracks.boxes.center, tracks.boxes.center)


@pytest.mark.parametrize("ahead", [0, 1, 5])
def test_how_far_is_read_ahead_changes_no_byte(tmp_path, ahead):
    run(tmp_path / "a", three_drives())
    run(tmp_path / "b", three_drives(), ahead=ahead)
    one, two = without_seconds(contents(tmp_path / "a")), without_seconds(contents(tmp_path / "b"))
    assert one == two


def test_reading_and_computing_overlap(tmp_path):
    class SlowDrive(SyntheticDrive):
        def _cloud(self, number):
            time.sleep(0.02)
            return super()._cloud(number)

    start = time.perf_counter()
    report = run(tmp_path, [SlowDrive(num_frames=20)], detector=ClumpDetector(seconds=0.02))
    wall = time.perf_counter() - start
    assert report.seconds["read"] > 0.4
    assert report.seconds["detect"] > 0.4
    assert report.seconds["wait"] < 0.5 * report.seconds["read"]
    assert wall < report.seconds["read"] + report.seconds["detect"]


def test_a_stream_of_unknown_length_is_run_to_its_end(tmp_path):
    told = []
    report = run(tmp_path, [Stream("s", 5)], after_frame=lambda *args: told.append(args))
    assert report.counts.frames == 5
    assert told == [("s", i, None) for i in range(1, 6)]


def test_progress_counts_the_frames_of_all_drives(tmp_path):
    frames, drives = [], []
    run(tmp_path, three_drives(), after_frame=lambda *a: frames.append(a), after_drive=lambda *a: drives.append(a))
    assert frames == [(name, i + 1, 12) for i, name in enumerate("aaaabbbbcccc")]
    assert drives == [("a", 1, 3), ("b", 2, 3), ("c", 3, 3)]


# Failures


@pytest.mark.parametrize(
    ("error", "text"),
    [
        pytest.param(lambda: DataError("x.bin: expected a,\ngot b"), "x.bin: expected a, got b", id="bad data"),
        pytest.param(lambda: OSError(5, "Input/output error"), "OSError: [Errno 5] Input/output error", id="system"),
        pytest.param(lambda: RuntimeError("CUDA out of memory"), "RuntimeError: CUDA out of memory", id="torch"),
    ],
)
def test_a_drive_that_fails_is_named_and_the_others_are_kept(tmp_path, error, text):
    run(tmp_path / "whole", three_drives())
    report = run(tmp_path / "run", three_drives(broken_at=2, error=error))
    assert report.failed == {"b": text}
    opened = open_run(tmp_path / "run")
    assert opened.names == ["a", "c"]
    assert opened.info["failed"] == {"b": text}
    assert report.counts.frames == 8
    whole, got = contents(tmp_path / "whole"), contents(tmp_path / "run")
    assert {name: got[name] for name in got if name.endswith(".parquet")} == {
        name: whole[name] for name in whole if name.endswith(("a.parquet", "c.parquet"))
    }


def test_a_failed_drive_is_tried_again_by_resume_and_the_result_is_that_of_a_whole_run(root, tmp_path):
    dataset = NuScenes(root)
    run(tmp_path / "whole", dataset.drives())
    path = dataset.lidar_path(1)
    bytes_before = path.read_bytes()
    try:
        path.write_bytes(bytes_before[:-3])
        report = run(tmp_path / "run", dataset.drives())
        assert list(report.failed) == ["scene-0001"]
        assert "the file was cut short" in report.failed["scene-0001"]
        assert read_submission(tmp_path / "run" / "nuscenes" / "tracks.json").tokens == dataset.drive("scene-0002").tokens
    finally:
        path.write_bytes(bytes_before)
    report = run(tmp_path / "run", dataset.drives(), resume=True)
    assert (report.failed, report.resumed) == ({}, 1)
    assert without_seconds(contents(tmp_path / "run")) == without_seconds(contents(tmp_path / "whole"))


def test_all_drives_may_fail(tmp_path):
    report = run(tmp_path, [SyntheticDrive("a", broken_at=0), SyntheticDrive("b", broken_at=0)])
    assert list(report.failed) == ["a", "b"]
    assert len(open_run(tmp_path)) == 0


def test_trouble_of_the_output_ends_the_run(tmp_path, monkeypatch):
    def fail(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("perception.export.parquet.DriveWriter.add_frame", fail)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path, three_drives())


def test_a_programming_error_is_not_hidden(tmp_path):
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, three_drives(broken_at=1, error=ZeroDivisionError))


def test_no_thread_is_left_whatever_happens(tmp_path):
    before = threading.active_count()
    run(tmp_path / "a", three_drives(broken_at=1))
    with pytest.raises(ZeroDivisionError):
        run(tmp_path / "b", three_drives(broken_at=1, error=ZeroDivisionError))
    gc.collect()
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("drives", "message"),
    [
        pytest.param([], "expected at least one drive", id="none"),
        pytest.param([SyntheticDrive("a"), SyntheticDrive("a")], "expected drives of different names, got 'a' twice", id="twice"),
    ],
)
def test_drives_must_be_there_and_differ(tmp_path, drives, message):
    with pytest.raises(UsageError, match=message):
        run(tmp_path / "run", drives)
    assert not (tmp_path / "run").exists()


def test_unknown_exporters_are_refused(tmp_path):
    with pytest.raises(UsageError, match="exporter 'parket': expected one of parquet, nuscenes; did you mean 'parquet'"):
        run(tmp_path, three_drives(), exporters=["parket"])


# Resuming


class Stopped(BaseException):
    """Like Ctrl-C."""


def interrupted(out, drives, frames, **arguments):
    def stop(_name, done, _total):
        if done == frames:
            raise Stopped

    with pytest.raises(Stopped):
        run(out, drives, after_frame=stop, **arguments)


def test_an_interrupted_run_keeps_its_finished_drives_and_resume_computes_the_others_only(tmp_path):
    run(tmp_path / "whole", three_drives())
    interrupted(tmp_path / "run", three_drives(), 6)  # in the middle of b
    left = contents(tmp_path / "run")
    assert {name for name in left if name.endswith(".parquet")} == {f"{kind}/a.parquet" for kind in ("detections", "tracks", "frames")}
    with pytest.raises(DataError, match="expected the folder of a finished run"):
        open_run(tmp_path / "run")
    drives = three_drives()
    report = run(tmp_path / "run", drives, resume=True)
    assert (report.resumed, report.counts.drives) == (1, 3)
    assert [drive.clouds_read for drive in drives] == [0, 4, 4]
    assert without_seconds(contents(tmp_path / "run")) == without_seconds(contents(tmp_path / "whole"))


def test_without_resume_a_run_starts_over(tmp_path):
    interrupted(tmp_path, three_drives(), 6)
    drives = three_drives()
    assert run(tmp_path, drives).resumed == 0
    assert [drive.clouds_read for drive in drives] == [4, 4, 4]


def test_resume_of_nothing_is_a_run_and_of_a_finished_run_does_nothing(tmp_path):
    first = run(tmp_path, three_drives(), resume=True)
    files, drives = contents(tmp_path), three_drives()
    again = run(tmp_path, drives, resume=True)
    assert again.resumed == 3
    assert again.counts == first.counts
    assert [drive.clouds_read for drive in drives] == [0, 0, 0]
    assert contents(tmp_path) == files


def test_a_file_that_has_gone_is_made_again(root, tmp_path):
    run(tmp_path / "whole", NuScenes(root).drives())
    run(tmp_path / "run", NuScenes(root).drives())
    (tmp_path / "run" / "tracks" / "scene-0002.parquet").unlink()
    run(tmp_path / "run", NuScenes(root).drives(), resume=True)
    assert without_seconds(contents(tmp_path / "run")) == without_seconds(contents(tmp_path / "whole"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"num_sweeps": 3}, "config.num_sweeps was 1, is now 3", id="sweeps"),
        pytest.param({"config": {"detector": {"a": 2}}}, r"config.detector.a was 1, is now 2", id="config"),
        pytest.param({"config": {"detector": {"a": 1}, "tracker": 5}}, r"config.tracker was None, is now 5", id="new key"),
        pytest.param({"config": {}}, r"config.detector was \{'a': 1\}, is now None", id="lost key"),
        pytest.param({"inputs": {"weights": {"name": "w", "blake2b": "cd"}}}, "inputs.weights.blake2b was 'ab', is now 'cd'", id="weights"),
        pytest.param({"tracker": False}, "command was 'run', is now 'detect'", id="command"),
        pytest.param({"drives": three_drives()[:2]}, "drives was 3 entries, is now 2", id="fewer drives"),
        pytest.param({"drives": [SyntheticDrive(n, 4) for n in "acb"]}, r"drives\[1\] was 'b', is now 'c'", id="other order"),
        pytest.param(
            {"drives": [SyntheticDrive(n, 4, step_us=400_000) for n in "abc"]},
            "the frames of drive a have other tokens, times or poses than before",
            id="other times",
        ),
        pytest.param({"drives": [SyntheticDrive(n, 5) for n in "abc"]}, "the frames of drive a", id="more frames"),
    ],
)
@pytest.mark.parametrize("is_finished", [True, False], ids=["finished", "interrupted"])
def test_resume_with_other_settings_or_inputs_is_refused_with_one_line(tmp_path, monkeypatch, changes, message, is_finished):
    arguments = {"config": {"detector": {"a": 1}}, "inputs": {"weights": {"name": "v", "blake2b": "ab"}}}
    if is_finished:
        run(tmp_path, three_drives(), **arguments)
    else:
        interrupted(tmp_path, three_drives(), 6, **arguments)
    before = contents(tmp_path)
    changed = arguments | changes
    with pytest.raises(UsageError, match=rf"this run cannot be resumed: .*{message}.*; leave out --resume to start over") as caught:
        run(tmp_path, changed.pop("drives", three_drives()), resume=True, **changed)
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == before


def test_a_file_of_weights_may_be_renamed(tmp_path):
    run(tmp_path, three_drives(), inputs={"weights": {"name": "v", "blake2b": "ab"}})
    assert run(tmp_path, three_drives(), inputs={"weights": {"name": "w", "blake2b": "ab"}}, resume=True).resumed == 3


def test_another_version_of_the_package_does_not_resume(tmp_path, monkeypatch):
    run(tmp_path, three_drives())
    monkeypatch.setattr("perception.__version__", "9.9.9")
    with pytest.raises(UsageError, match=r"versions.perception was '.*', is now '9.9.9'"):
        run(tmp_path, three_drives(), resume=True)


@pytest.mark.parametrize("text", ["", "[]", "{", "{}", '{"config": {}, "inputs": {}, "seconds": {}, "by_drive": {"a": {}}}', "[" * 100_000])
def test_a_broken_record_is_bad_data(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(DataError, match=r"run.json: expected the record of a run, got .*; move it away and leave out --resume"):
        run(tmp_path, three_drives(), resume=True)


SCRIPT = textwrap.dedent("""
    import sys
    from pathlib import Path
    from perception.drives import NuScenes
    from perception.pipeline import EXPORTERS, Options, Pipeline, run_drives
    from perception.tracking import build_tracker
    from tests.pipeline.makers import ClumpDetector
    drives = NuScenes(sys.argv[1]).drives()
    run_drives(drives, ClumpDetector(sweeps=2, seconds=0.002), build_tracker(), Path(sys.argv[2]), options=Options(resume=True))
""")


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="only Linux has files without a name (O_TMPFILE)")
def test_a_run_killed_again_and_again_ends_with_the_bytes_of_an_undisturbed_one(tmp_path):
    root = write_small_nuscenes(tmp_path / "data", num_scenes=10, samples=4)
    command = [sys.executable, "-c", SCRIPT, str(root)]
    subprocess.run([*command, str(tmp_path / "whole")], cwd=ROOT, check=True, timeout=60)
    whole, out = without_seconds(contents(tmp_path / "whole")), tmp_path / "run"
    rng, kills, finished_before = random.Random(0), 0, []
    for k, how in ((1, signal.SIGKILL), (4, signal.SIGINT), (7, signal.SIGKILL)):
        with subprocess.Popen([*command, str(out)], cwd=ROOT, stderr=subprocess.DEVNULL) as process:
            while len(list((out / "frames").glob("*.parquet"))) < k and process.poll() is None:
                time.sleep(0.0005)
            time.sleep(rng.uniform(0, 0.03))  # a drive takes some 30 ms
            process.send_signal(how)
            kills += process.wait(timeout=20) != 0
        left = contents(out)
        assert all(left[name] == whole[name] for name in left if name.endswith(".parquet"))
        record = json.loads(left.get(f"{ASIDE}/record.json") or left["run.json"])
        for name in record["by_drive"]:  # what counts as finished is there, all of it
            assert {f"{kind}/{name}.parquet" for kind in ("detections", "tracks", "frames")} <= set(left)
        finished_before.append(len(record["by_drive"]))
    assert kills >= 2, "the kills do not fall into the run"
    assert finished_before == sorted(finished_before)
    subprocess.run([*command, str(out)], cwd=ROOT, check=True, timeout=60)
    assert without_seconds(contents(out)) == whole


def test_what_a_kill_left_behind_goes_when_the_run_is_resumed(tmp_path):
    run(tmp_path, three_drives())
    whole = contents(tmp_path)
    users = tmp_path / ".notes.partial"
    users.write_text("of the user")
    for path in (".run.json.0123abcd.partial", "tracks/.a.parquet.89abcdef.partial", f"{ASIDE}/nuscenes/a.json"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("half")
    run(tmp_path, three_drives(), resume=True)
    assert contents(tmp_path) == whole | {users.name: b"of the user"}


# Memory


@dataclass
class SameDetections:
    """The same three objects whatever the points."""

    sweeps: int = 2
    found: Detections = field(default_factory=lambda: Pipeline(ClumpDetector()).detect(drive := SyntheticDrive()[0], drive.cloud))

    def detect(self, cloud, lidar_to_ego):  # noqa: ARG002
        return self.found


@pytest.mark.parametrize(("num_frames", "group"), [(640, 64), pytest.param(7168, 1024, marks=pytest.mark.slow)])
def test_memory_is_flat_over_a_drive(tmp_path, monkeypatch, num_frames, group):
    """What is allocated after each group of rows is what was after the first: an hour of two frames a second, or less with smaller groups.

    The clouds are large: one too many that is kept would be seen.
    """
    monkeypatch.setattr("perception.export.parquet._FRAMES_A_GROUP", group)

    class LargeDrive(SyntheticDrive):
        def _cloud(self, number):  # noqa: ARG002
            return PointCloud(np.zeros((50_000, 5), np.float32))  # 1 MB

    run(tmp_path / "first", [LargeDrive(num_frames=3)], detector=SameDetections())  # loads what is loaded once
    levels = []

    def note(_name, done, _total):
        if done % group == 0:
            gc.collect()
            levels.append(tracemalloc.get_traced_memory()[0] + pa.total_allocated_bytes())

    tracemalloc.start(1)
    try:
        report = run(
            tmp_path / "run", [LargeDrive(num_frames=num_frames)], detector=SameDetections(), after_frame=note, exporters=list(EXPORTERS)
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert report.counts.frames == num_frames
    assert max(levels) - levels[0] < 1e6, levels
    assert peak < levels[0] + 30e3 * group + 15e6, peak  # rows that wait for their group and are put together, clouds of 2 MB that are read
