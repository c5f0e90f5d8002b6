"""`perception run` and `perception detect`: any recording with any model, one line an error, killed and resumed."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from perception.cli import options
from perception.cli.main import main
from perception.drives import NuScenes
from perception.evaluation import validate_submission
from perception.export import open_run
from tests.conftest import ROOT
from tests.detection.small import small_config
from tests.drives.kitti_maker import DATE, DRIVE, write_kitti_raw, write_kitti_tracking
from tests.evaluation.makers import write_street
from tests.pipeline.makers import contents, write_small_nuscenes

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_small_nuscenes(tmp_path_factory.mktemp("nuscenes"), num_scenes=3, samples=4)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    path.write_text(yaml.safe_dump(small_config(score_threshold=0.0).model_dump(mode="json")))
    return path


@pytest.fixture
def call(capsys, config):
    """Run the command line in this process with the small network: exit code, lines of stdout, lines of stderr."""

    def call(command, *arguments, model=("--seed", "0")):
        capsys.readouterr()
        code = main([str(argument) for argument in (command, *arguments, "--config", config, *model)])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.splitlines()

    return call


def without_times(folder):
    files = contents(folder)
    info = json.loads(files["run.json"])
    del info["seconds"], info["started_us"]
    return files | {"run.json": info}


def test_run_over_nuscenes_prints_counts_and_its_paths_last(call, root, tmp_path):
    code, out, err = call("run", root, "--out", tmp_path / "run")
    assert code == 0
    assert re.fullmatch(r"3 drives, 12 frames, \d+ detections, \d+ tracks", out[0])
    assert out[-1] == str(tmp_path / "run")
    assert str(tmp_path / "run" / "nuscenes" / "detections.json") in out
    assert re.fullmatch(rf"\d+ boxes in {re.escape(str(tmp_path))}/run/nuscenes/tracks.json", out[-2])
    assert [line for line in err if line.startswith("tracking")][-1] == "tracking 12/12 scene-0003"
    tokens = [token for drive in NuScenes(root).drives() for token in drive.tokens]
    for name in ("detections", "tracks"):
        submission, faults = validate_submission(tmp_path / "run" / "nuscenes" / f"{name}.json", tokens)
        assert faults == []
        assert submission.meta["use_lidar"] is True
        assert not any(value for key, value in submission.meta.items() if key != "use_lidar")
    assert len(open_run(tmp_path / "run").table()) > 0


def test_run_json_has_what_the_results_depend_on(call, root, tmp_path, config):
    assert call("run", root, "--out", tmp_path, "--sweeps", 3, "--drive", "scene-0002")[0] == 0
    info = json.loads((tmp_path / "run.json").read_text())
    assert info["config"]["detector"] == json.loads(json.dumps(small_config(score_threshold=0.0).model_dump(mode="json")["detector"]))
    assert info["config"]["tracker"]["name"] == "greedy"
    assert (info["config"]["num_sweeps"], info["config"]["device"], info["config"]["dtype"]) == (3, "cpu", "float32")
    assert info["inputs"] == {"dataset": {"version": "v1.0-mini", "split": None, "on_missing": "error"}, "weights": {"seed": 0}}
    assert info["drives"] == ["scene-0002"]


def test_detect_writes_detections_that_track_takes(call, root, tmp_path):
    code, out, _err = call("detect", root, "--out", tmp_path / "found")
    assert (code, out[-1]) == (0, str(tmp_path / "found"))
    assert not (tmp_path / "found" / "tracks").exists()
    submission = tmp_path / "found" / "nuscenes" / "detections.json"
    assert main(["track", str(submission), "--data", str(root), "--out", str(tmp_path / "tracked")]) == 0
    assert call("run", root, "--out", tmp_path / "run")[0] == 0
    assert submission.read_bytes() == (tmp_path / "run" / "nuscenes" / "detections.json").read_bytes()
    for drive, again in zip(
        open_run(tmp_path / "run"), open_run(tmp_path / "tracked"), strict=True
    ):  # in one go or in two: the same tracks
        for frame, other in zip(drive, again, strict=True):
            assert frame.tracks.track_id.tolist() == other.tracks.track_id.tolist()


def test_kitti_drives_are_run_too_and_get_no_submission(call, tmp_path):
    write_kitti_tracking(tmp_path / "kitti", images=False)
    code, out, _err = call("run", tmp_path / "kitti", "--out", tmp_path / "run")
    assert code == 0
    assert "no nuScenes submission: these drives have no sample tokens" in out
    assert not (tmp_path / "run" / "nuscenes").exists()
    assert open_run(tmp_path / "run").names == ["training-0000", "training-0001"]


def test_the_folder_of_one_drive_of_kittis_raw_recordings_will_do(call, tmp_path):
    other = "2011_09_26_drive_0009_sync"
    write_kitti_raw(tmp_path / "kitti", drives=(DRIVE, other), images=False)
    assert call("detect", tmp_path / "kitti" / DATE / other, "--out", tmp_path / "run")[0] == 0
    assert open_run(tmp_path / "run").names == [other]


def test_nuscenes_below_a_folder_of_kitti_is_nuscenes(call, tmp_path):
    write_kitti_tracking(tmp_path, images=False)
    write_small_nuscenes(tmp_path / "nusc", num_scenes=1, samples=2)
    assert call("detect", tmp_path / "nusc", "--out", tmp_path / "run")[0] == 0
    assert open_run(tmp_path / "run").names == ["scene-0001"]
    for part in ("training", "training/velodyne/0000"):  # a part of KITTI is told so
        code, _, err = call("detect", tmp_path / part, "--out", tmp_path / "run2")
        assert code == 2
        assert f"got a part of it; give {tmp_path}" in err[-1]
    code, _, err = call("detect", tmp_path / "trianing", "--out", tmp_path / "run2")
    assert code == 3
    assert "trianing: expected the folder of a data set, found none" in err[-1]


def test_a_seed_beyond_what_torch_takes_is_one_line(capsys, root, tmp_path):
    assert main(["run", str(root), "--config", "compact", "--seed", str(10**30), "--out", str(tmp_path)]) == 2
    assert "--seed" in capsys.readouterr().err


def test_simulated_drives_are_run_too(call, tmp_path):
    street = write_street(tmp_path)
    code, out, _err = call("run", street.root, "--out", tmp_path / "run", "--split", "first", "--on-missing", "empty")
    assert code == 0
    assert "6 frames without their lidar file (empty)" in out
    assert open_run(tmp_path / "run").names == ["sim-0001"]


def test_profile_tells_where_the_time_of_a_frame_goes(call, root, tmp_path):
    code, out, _err = call("run", root, "--out", tmp_path, "--profile")
    assert code == 0
    assert "mean of 12 frames" in out
    stages = [match[1].strip() for line in out if (match := re.match(r"( *[a-z() ]+?) +\d+\.\d ms", line))]
    expected = [
        "read (beside)",
        "wait for reading",
        "detect",
        "prepare",
        "voxelize",
        "reader",
        "encoder",
        "neck",
        "head",
        "boxes",
        "results",
    ]
    assert stages == [*expected, "rest", "track", "write", "all"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        pytest.param(["--split", "mini_vall"], 2, "split 'mini_vall': expected one of", id="split"),
        pytest.param(["--version", "v1.0-trainval"], 2, "version 'v1.0-trainval': expected a folder", id="version"),
        pytest.param(["--drive", "scene-0009"], 2, "scene 'scene-0009': not in v1.0-mini; did you mean 'scene-000", id="drive"),
        pytest.param(["--on-missing", "ignore"], 2, "on_missing 'ignore': expected error, skip or empty", id="policy"),
        pytest.param(["--tracker", "/nothing.yaml"], 2, "/nothing.yaml: expected a configuration file", id="tracker"),
        pytest.param(["--device", "cuda:77"], 2, "cuda:77", id="device"),
        pytest.param(["--dtype", "int8"], 2, "dtype: expected float32, float16 or bfloat16, got 'int8'", id="dtype"),
        pytest.param(["--sweeps", "0"], 2, "Invalid value for '--sweeps'", id="sweeps"),
        pytest.param(["--weights", "/nothing.safetensors"], 2, "expected weights or a seed for random ones, got both", id="both"),
    ],
)
def test_what_is_not_there_is_refused_before_anything_is_written(call, root, tmp_path, arguments, code, message):
    got, out, err = call("run", root, "--out", tmp_path / "run", *arguments)
    assert (got, out) == (code, [])
    assert message in "\n".join(err)
    assert "Traceback" not in "\n".join(err)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("model", "code", "message"),
    [
        pytest.param([], 2, "expected weights (--weights FILE), or --seed N for random ones", id="no weights"),
        pytest.param(["--weights", "/nothing.safetensors"], 4, "/nothing.safetensors: expected a weight file", id="no such file"),
        pytest.param(["--weights", "OTHER"], 4, "other.safetensors: ", id="of another network"),
        pytest.param(["--weights", "YAML"], 4, "small.yaml: expected a complete .safetensors file", id="no weights at all"),
    ],
)
def test_weights_that_do_not_fit_are_refused(call, root, config, tmp_path, model, code, message):
    import torch
    from safetensors.torch import save_file

    save_file({"stem.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    names = {"OTHER": tmp_path / "other.safetensors", "YAML": config}
    got, out, err = call("run", root, "--out", tmp_path / "run", model=[names.get(part, part) for part in model])
    assert (got, out) == (code, [])
    errors = [line for line in err if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert not (tmp_path / "run").exists()


def test_weights_that_come_with_the_model_need_not_be_named(call, root, config, tmp_path):
    from tests.detection.test_weights import written

    settings = small_config(score_threshold=0.0)
    beside = tmp_path / "mine.yaml"
    beside.write_text(config.read_text())
    weights = written(beside.with_suffix(".safetensors"), settings)
    results = []
    for name, named in (("without", ()), ("with", ("--weights", weights))):
        arguments = ["run", root, "--drive", "scene-0002", "--out", tmp_path / name, "--config", beside, *named]
        assert main([str(argument) for argument in arguments]) == 0
        results.append(without_times(tmp_path / name))
    assert results[0] == results[1]
    assert "mine.safetensors" in json.dumps(results[0]["run.json"]["inputs"]["weights"])


def test_a_network_of_virtual_points_needs_instances(capsys, root, tmp_path):
    code = main(["run", str(root), "--config", "centerpoint_pillar02_virtual", "--seed", "0", "--out", str(tmp_path / "run")])
    assert code == 2
    expected = "this network reads virtual points (MVP): expected a source of instances, --instances SOURCE"
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_instances_without_a_network_of_virtual_points(call, root, tmp_path):
    code, _, err = call("run", root, "--out", tmp_path / "run", "--instances", "file:x.json")
    assert code == 2
    assert "this network reads no virtual points: expected one that does (*_virtual), or no --instances" in err[0]


def test_a_drive_that_fails_is_named_at_the_end_and_the_exit_code_is_1(call, root, tmp_path):
    dataset = NuScenes(root)
    path = dataset.lidar_path(5)  # in the middle of scene-0002
    before = path.read_bytes()
    try:
        path.write_bytes(before[:-3])
        code, out, err = call("run", root, "--out", tmp_path / "run")
    finally:
        path.write_bytes(before)
    assert code == 1
    assert out[0].startswith("2 drives, 8 frames")
    failed = [line for line in err if line.startswith("failed: ")]
    assert len(failed) == 1
    assert re.fullmatch(
        r"failed: scene-0002: .*expected a multiple of 20 bytes .* got \d+; the file was cut short, copy it again", failed[0]
    )
    assert open_run(tmp_path / "run").names == ["scene-0001", "scene-0003"]
    # The other drives' files have not changed, so they are not computed again.
    code, out, _err = call("run", root, "--out", tmp_path / "run", "--resume")
    assert (code, out[0].split(",")[0]) == (0, "3 drives (2 finished before)")
    assert call("run", root, "--out", tmp_path / "whole")[0] == 0
    assert without_times(tmp_path / "run") == without_times(tmp_path / "whole")


def test_resume_refuses_changed_files_and_settings_in_one_line(call, root, tmp_path):
    out = tmp_path / "run"
    assert call("run", root, "--out", out)[0] == 0
    code, _lines, err = call("run", root, "--out", out, "--resume", model=("--seed", "1"))
    assert code == 2
    assert err[-1] == f"error: {out}: this run cannot be resumed: inputs.weights.seed was 0, is now 1; leave out --resume to start over"
    code, _lines, err = call("run", root, "--out", out, "--resume", "--tracker", ROOT / "configs" / "tracker_parity.yaml")
    assert code == 2
    assert "this run cannot be resumed: config.tracker." in err[-1]
    path = NuScenes(root).lidar_path(2)
    stat = path.stat()
    os.utime(path, ns=(time.time_ns() + 10**9, time.time_ns() + 10**9))
    code, _lines, err = call("run", root, "--out", out, "--resume")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert code == 2
    assert err[-1] == (
        f"error: {out}: this run cannot be resumed: {path} has changed since drive scene-0001 was read; leave out --resume to start over"
    )
    assert call("run", root, "--out", out, "--resume")[0] == 0


def send_to_a_run(how: signal.Signals, arguments: list[str], out: Path) -> tuple[int, str]:
    """Exit code and messages of a run that gets a signal when a drive is finished and another nearly; again where it had ended by then."""
    code, err = 0, ""
    for _ in range(10):
        shutil.rmtree(out, ignore_errors=True)
        # A shell that starts jobs in the background tells them to ignore Ctrl-C, and they their children.
        listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        command = [sys.executable, "-m", "perception", *arguments]
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, preexec_fn=listen) as process:
            while len(list((out / "frames").glob("*.parquet"))) < 2 and process.poll() is None:
                time.sleep(0.001)
            process.send_signal(how)
            assert process.stderr is not None
            err = process.stderr.read().decode()
            code = process.wait(timeout=30)
        if code != 0:
            break
    return code, err


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_is_resumed_to_the_same_bytes(call, root, config, tmp_path, how):
    arguments = ["run", str(root), "--config", str(config), "--seed", "0", "--out", str(tmp_path / "run")]
    code, err = send_to_a_run(how, arguments, tmp_path / "run")
    if how == signal.SIGINT:
        assert code == 130, err
        assert f"stopped; what is finished in {tmp_path / 'run'} is kept, and --resume goes on from there" in err.splitlines()
        assert "Traceback" not in err
    code, out, _err = call("run", root, "--out", tmp_path / "run", "--resume")
    assert code == 0
    assert re.match(r"3 drives \([123] finished before\), 12 frames", out[0])
    assert call("run", root, "--out", tmp_path / "whole")[0] == 0
    assert without_times(tmp_path / "run") == without_times(tmp_path / "whole")


def test_names_of_drives_are_no_markup(monkeypatch):
    text = io.StringIO()
    monkeypatch.setattr(options, "messages", Console(file=text, force_terminal=True, width=100, color_system=None))
    with options.progress("tracking") as advance:
        advance("yard [/north] [a]", 1, 2)
    assert "tracking yard [/north] [a]" in text.getvalue()


@pytest.mark.parametrize("total", [10, None])
def test_a_terminal_sees_a_bar_with_rate_and_remaining_time(monkeypatch, total):
    text = io.StringIO()
    monkeypatch.setattr(options, "messages", Console(file=text, force_terminal=True, width=100, color_system=None))
    with options.progress("tracking") as advance:
        for done in range(1, 6):
            advance("scene-0103", done, total)
            time.sleep(0.05)
    shown = text.getvalue()
    assert "tracking scene-0103" in shown
    assert f"5/{total or '?'}" in shown
    assert re.search(r"\d+\.\d/s", shown)
    assert ("0:00:0" in shown) is (total is not None)


def test_elsewhere_there_are_plain_lines_now_and_then(monkeypatch):
    lines = []
    monkeypatch.setattr(options, "tell", lines.append)
    with options.progress("tracking") as advance:
        for done in range(1, 101):
            advance("a", done, 100)
    assert lines == [f"tracking {n}/100 a" for n in range(10, 101, 10)]
    lines.clear()
    with options.progress("tracking") as advance:
        for done in range(1, 101):
            advance("a", done, None)
    assert lines == [f"tracking {n}/? a" for n in (1, 2, 4, 8, 16, 32, 64)]
