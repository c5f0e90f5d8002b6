"""The command line: exit codes, one line an error, help with an example, and quiet where its reader has gone."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import perception
from perception.cli.main import app, main
from perception.core import DataError, UsageError
from perception.core.errors import CheckpointError, PerceptionError
from perception.evaluation import read_submission
from tests.conftest import ROOT
from tests.evaluation.makers import SPLIT, VERSION, detection, track, write_results, write_street
from tests.evaluation.test_validation import mutation

COMMANDS = ["doctor", "simulate", "run", "detect", "track", "evaluate", "validate", "view", "train", "object-bank", "instances"]
module = importlib.import_module("perception.cli.main")


@pytest.fixture(scope="session")
def street(tmp_path_factory):
    return write_street(tmp_path_factory.mktemp("street"))


@pytest.fixture(scope="session")
def run(street, tmp_path_factory):
    """The folder that `perception track` wrote."""
    out = tmp_path_factory.mktemp("cli") / "run"
    assert main(["track", str(street.detections), "--data", str(street.root), "--split", SPLIT, "--out", str(out)]) == 0
    return out


@pytest.fixture
def call(capsys):
    """Run the command line in this process: exit code, lines of stdout, lines of stderr."""

    def call(*arguments):
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.splitlines()

    return call


def test_version_is_the_packages(call):
    assert call("--version") == (0, [f"perception {perception.__version__}"], [])


def test_without_a_command_there_is_help(call):
    code, out, err = call()
    text = "\n".join(out + err)
    assert code == 2
    assert all(re.search(rf"^ +{name} ", text, re.M) for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_has_an_example_that_names_known_options(call, name):
    code, out, err = call(name, "--help")
    text = " ".join(" ".join(out).split())
    assert (code, err) == (0, [])
    assert f"Usage: perception {name}" in text
    example = re.search(rf"Example: (perception {name}.*?)(?: Arguments:| Options:)", text)
    assert example, text
    assert all(option in text.replace(example[0], "") for option in re.findall(r"--[a-z-]+", example[1]))


def test_all_commands_are_known_to_these_tests():
    names = {(info.name or info.callback.__name__).replace("_", "-") for info in app.registered_commands}
    assert names == set(COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["trck"], "No such command 'trck'", id="unknown command"),
        pytest.param(["validate"], "Missing argument", id="no argument"),
        pytest.param(["track", "d.json"], "Missing option '--data'", id="no data"),
        pytest.param(["validate", "d.json", "--splitt", "val"], "No such option", id="unknown option"),
        pytest.param(["validate", "d.json", "--limit", "many"], "Invalid value for '--limit'", id="a text for a number"),
        pytest.param(["validate", "d.json", "--limit", "-1"], "Invalid value for '--limit'", id="a negative number"),
        pytest.param(["validate", "d.json", "--split", "val"], "--data and --split go together", id="split without data"),
        pytest.param(["validate", "d.json", "--data", "/d"], "--data and --split go together", id="data without split"),
        pytest.param(["evaluate", "d.json", "--data", "d", "--split", "s", "--task", "detections"], "did you mean 'detection'", id="task"),
        pytest.param(["view", "run", "--cameras"], "--cameras: expected --data, the folder with the pictures", id="cameras"),
        pytest.param(["view", "run", "--film", "avi"], "--film avi: expected gif or mp4", id="film"),
    ],
)
def test_wrong_use_is_exit_code_2(call, arguments, message):
    code, out, err = call(*arguments)
    assert (code, out) == (2, [])
    assert message in "\n".join(err)
    assert "Traceback" not in "\n".join(err)


@pytest.mark.parametrize(
    ("error", "code"),
    [(PerceptionError, 1), (UsageError, 2), (DataError, 3), (CheckpointError, 4)],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_each_kind_of_error_has_its_exit_code_and_one_line(monkeypatch, call, error, code):
    def fail(*_arguments, **_options):
        raise error("file.json: expected a, got b")

    monkeypatch.setattr("perception.evaluation.validate_submission", fail)
    assert call("validate", "file.json") == (code, [], ["error: file.json: expected a, got b"])


def test_debug_shows_the_traceback_and_the_line(monkeypatch, call, tmp_path):
    code, out, err = call("--debug", "validate", tmp_path / "nothing.json")
    assert (code, out) == (3, [])
    assert err[0] == "Traceback (most recent call last):"
    assert err[-1] == f"error: {tmp_path / 'nothing.json'}: expected a readable file, got No such file or directory"


def test_an_interrupt_is_exit_code_130(monkeypatch, call):
    def interrupt(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("perception.evaluation.validate_submission", interrupt)
    code, _out, err = call("validate", "file.json")
    assert code == 130
    assert "Traceback" not in "\n".join(err)


def test_trouble_of_the_system_is_one_line(call, street, tmp_path):
    (tmp_path / "file").write_text("in the way")
    code, out, err = call("track", street.detections, "--data", street.root, "--out", tmp_path / "file" / "run")
    assert (code, out) == (2, [])
    assert re.fullmatch(rf"error: {re.escape(str(tmp_path / 'file'))}.*: Not a directory", err[-1])
    assert len([line for line in err if line.startswith("error")]) == 1


def test_a_programming_error_is_not_hidden(monkeypatch):
    def fail(*_arguments, **_options):
        raise ZeroDivisionError

    monkeypatch.setattr("perception.evaluation.validate_submission", fail)
    with pytest.raises(ZeroDivisionError):
        main(["validate", "file.json"])


def console(*arguments, **options):
    return subprocess.run([sys.executable, "-m", "perception", *map(str, arguments)], cwd=ROOT, capture_output=True, timeout=60, **options)


def test_the_console_script_gives_its_exit_code_to_the_shell(tmp_path):
    done = console("validate", tmp_path / "nothing.json", check=False)
    assert done.returncode == 3
    assert done.stderr.decode().splitlines() == [
        f"error: {tmp_path / 'nothing.json'}: expected a readable file, got No such file or directory"
    ]


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    write_results(tmp_path / "d.json", {f"s{i}": [detection(f"s{i}", size=[-1.0, 1.0, 1.0])] * 20 for i in range(200)})
    command = [sys.executable, "-m", "perception", "validate", str(tmp_path / "d.json"), "--limit", "100000"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline().startswith(b"sample s0: box 0: size: expected")
        process.stdout.close()
        assert process.stderr.read() == b""
        process.wait(timeout=30)


def test_track_prints_counts_rates_and_its_path_last(call, street, tmp_path):
    code, out, err = call("track", street.detections, "--data", street.root, "--split", SPLIT, "--out", tmp_path / "run")
    boxes = len(read_submission(street.detections))
    written = len(read_submission(tmp_path / "run" / "nuscenes" / "tracks.json"))
    assert code == 0
    text = " ".join(out)
    assert "2 drives, 12 frames" in text
    assert f"{boxes} detections" in text
    assert str(written) in text
    assert re.search(r"\d+ frames/s", text)
    assert out[-1] == str(tmp_path / "run" / "nuscenes" / "tracks.json")
    assert err[-2:] == ["tracking 1/2 sim-0001", "tracking 2/2 sim-0002"]


def test_track_takes_a_configuration(call, street, tmp_path):
    config = ROOT / "configs" / "tracker_parity.yaml"
    code, _out, _err = call("track", street.detections, "--data", street.root, "--config", config, "--out", tmp_path / "run")
    assert code == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["config"]["tracker"]["parity"] is True


def test_track_tells_what_was_missing(call, street, tmp_path):
    results = json.loads(street.detections.read_text())["results"]
    del results[street.tokens[3]]
    path = write_results(tmp_path / "d.json", results | {"foreign": []})
    code, out, err = call("track", path, "--data", street.root, "--split", SPLIT, "--out", tmp_path / "run")
    assert (code, out) == (3, [])
    assert err[-1].startswith(f"error: {path}: 1 of its 12 samples are not in {VERSION}, first foreign")
    code, out, _err = call("track", path, "--data", street.root, "--split", SPLIT, "--out", tmp_path / "run", "--on-missing", "empty")
    assert code == 0
    assert "1 samples without an entry (empty), 1 unknown samples left out" in out


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        pytest.param(["--on-missing", "ignore"], 2, "on_missing 'ignore': expected error, skip or empty", id="policy"),
        pytest.param(["--split", "nonsense"], 2, "split 'nonsense': expected one of", id="split"),
        pytest.param(["--version", "v1.0-mini"], 2, "version 'v1.0-mini': expected a folder with sample.json, found ", id="version"),
        pytest.param(["--config", "/nothing.yaml"], 2, "/nothing.yaml", id="no configuration"),
    ],
)
def test_track_refuses_what_it_does_not_know(call, street, tmp_path, options, code, message):
    got, out, err = call("track", street.detections, "--data", street.root, "--out", tmp_path / "run", *options)
    assert (got, out) == (code, [])
    assert message in err[-1]
    assert not (tmp_path / "run").exists()


def test_validate_says_that_there_is_nothing_to_say(call, street, run):
    code, out, _err = call("validate", run / "nuscenes" / "tracks.json", "--data", street.root, "--split", SPLIT)
    boxes = len(read_submission(run / "nuscenes" / "tracks.json"))
    assert code == 0
    assert out == [f"{run}/nuscenes/tracks.json: no faults: tracking, 12 samples, {boxes} boxes, all 12 samples of {SPLIT} there"]


def test_validate_lists_all_faults_and_sums_them_up(call, street, tmp_path):
    first, second = street.tokens[:2]
    results = {token: [] for token in street.tokens[:-1]} | {first: [detection(first, size=[1, 2, -3]), 7], second: {}, "foreign": []}
    path = write_results(tmp_path / "d.json", results)
    code, out, _err = call("validate", path, "--data", street.root, "--split", SPLIT)
    assert code == 3
    assert set(out[:-1]) == {
        f"sample {first}: box 1: expected an object, got 7",
        f"sample {first}: box 0: size: expected width, length, height > 0, got [1.0, 2.0, -3.0]",
        f"sample {second}: expected a list of boxes, got {{}}",
        f"sample {street.tokens[-1]}: is missing; a sample without boxes needs an empty list",
        "sample foreign: is not a sample of the split",
    }
    assert out[-1].startswith(f"{path}: 5 faults in 4 samples; most often: ")


def test_validate_prints_as_many_faults_as_asked_for_and_counts_all(call, tmp_path):
    path = write_results(tmp_path / "d.json", {"a": [detection(size=[0, 0, 0])] * 40})
    code, out, _err = call("validate", path, "--limit", 3)
    assert code == 3
    assert len(out) == 5
    assert out[3] == "... and 37 more"
    assert out[4] == f"{path}: 40 faults in 1 samples; most often: size (40)"


def test_markup_in_tokens_is_printed_as_it_stands(call, tmp_path):
    path = write_results(tmp_path / "d.json", {"[bold]a[/x]": [7], ":car:": [8]})
    assert call("validate", path)[1][:2] == [
        "sample [bold]a[/x]: box 0: expected an object, got 7",
        "sample :car:: box 0: expected an object, got 8",
    ]


def test_paths_with_brackets_are_printed_as_they_stand(call, street, tmp_path):
    out = tmp_path / "[bold]x[/y] :car:"
    code, lines, _err = call("track", street.detections, "--data", street.root, "--out", out)
    assert (code, lines[-1]) == (0, str(out / "nuscenes" / "tracks.json"))


def test_evaluate_prints_a_table_a_class_and_its_path_last(call, street, tmp_path):
    pytest.importorskip("nuscenes.eval.detection.evaluate")
    code, out, _err = call("evaluate", street.detections, "--data", street.root, "--split", SPLIT, "--out", tmp_path, "--no-plots")
    assert code == 0
    assert re.fullmatch(r"mAP 0\.\d{4}, NDS 0\.\d{4}, mATE \[m\] 0\.\d{4}, .*", out[0])
    assert out[1].split() == ["class", "AP", "ATE", "[m]", "ASE", "[1-IoU]", "AOE", "[rad]", "AVE", "[m/s]", "AAE", "[1-acc]"]
    assert len({len(line) for line in out[1:12]}) == 1  # columns are aligned
    assert {line.split()[0] for line in out[2:12]} == set(read_submission(street.detections).classes)
    assert out[-1] == str(tmp_path / "detection" / "metrics_summary.json")
    summary = json.loads(Path(out[-1]).read_text())
    assert out[0].startswith(f"mAP {summary['mean_ap']:.4f}, NDS {summary['nd_score']:.4f}")


def test_evaluate_takes_a_runs_folder_and_writes_into_it(call, street, run):
    pytest.importorskip("nuscenes.eval.tracking.evaluate")
    code, out, _err = call("evaluate", run, "--data", street.root, "--split", SPLIT, "--no-plots")
    assert code == 0
    assert re.match(r"AMOTA \d\.\d{4}, AMOTP \[m\] \d\.\d{4}, .*, IDS \d+, FRAG \d+", out[0])
    assert out[-1] == str(run / "evaluation" / "tracking" / "metrics_summary.json")


def test_evaluate_stops_at_faults_before_the_devkit_starts(call, street, tmp_path, monkeypatch):
    monkeypatch.setattr("perception.evaluation.evaluate_officially", lambda *_a, **_k: pytest.fail("the devkit was started"))
    results = {token: [] for token in street.tokens} | {street.tokens[0]: [track(street.tokens[0], tracking_score=None)]}
    path = write_results(tmp_path / "t.json", results)
    code, out, err = call("evaluate", path, "--data", street.root, "--split", SPLIT)
    assert (code, out) == (3, [])
    assert err[-1].startswith(
        f"error: {path}: 1 faults, first: sample {street.tokens[0]}: box 0: tracking_score: expected a number, got None"
    )


def test_evaluate_without_the_devkit_names_the_extra(call, street, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "motmetrics", None)
    code, out, err = call("evaluate", street.detections, "--data", street.root, "--split", SPLIT, "--out", tmp_path)
    assert (code, out) == (2, [])
    assert "pip install 'perception[eval]'" in err[-1]


def test_view_draws_pictures_and_a_film(call, run, tmp_path):
    from PIL import Image

    code, out, _err = call("view", run, "--film", "gif", "--drive", "sim-0002", "--out", tmp_path / "pictures")
    assert code == 0
    assert out == [str(tmp_path / "pictures" / name) for name in ("sim-0002_frame003.png", "sim-0002.png", "sim-0002.gif")]
    for path in out:
        with Image.open(path) as picture:
            assert picture.format == Path(path).suffix[1:].upper()
            assert min(picture.size) >= 300
    with Image.open(out[-1]) as film:
        assert film.n_frames == 6


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        pytest.param(["--drive", "sim-0003"], 2, "no drive 'sim-0003', it has 2; did you mean 'sim-000", id="drive"),
        pytest.param(["--frame", "6"], 2, "drive sim-0001: expected a frame in 0..5, got 6", id="frame"),
        pytest.param(["--radius", "-5"], 2, "radius", id="radius"),
        pytest.param(["--min-score", "nan"], 2, "min_score", id="min score"),
    ],
)
def test_view_refuses_what_a_run_does_not_have(call, run, tmp_path, options, code, message):
    got, out, err = call("view", run, "--out", tmp_path / "pictures", *options)
    assert (got, out) == (code, [])
    assert message in err[-1]
    assert not (tmp_path / "pictures").exists()


@pytest.mark.parametrize("command", [["view"], ["evaluate", "--data", "DATA", "--split", SPLIT]], ids=lambda c: c[0])
def test_a_folder_that_is_no_run_is_bad_data(call, street, tmp_path, command):
    arguments = [str(street.root) if part == "DATA" else part for part in command]
    code, out, err = call(arguments[0], tmp_path, *arguments[1:])
    assert (code, out) == (3, [])
    assert str(tmp_path) in err[-1]


@pytest.mark.parametrize("command", ["validate", "track"])
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_no_mutated_submission_makes_a_command_fail_otherwise_than_with_one_line(call, street, tmp_path, command, seed):
    """500 mutations in all, of a file whose tokens the data set has."""
    tokens = dict(zip(("a", "b", "c"), street.tokens, strict=False))
    text = mutation(seed, detection)
    for name, token in tokens.items():
        text = text.replace(b'"%s"' % name.encode(), b'"%s"' % token.encode())
    path = tmp_path / "mutated.json"
    path.write_bytes(text)
    more = ["--data", street.root, "--out", tmp_path / "run", "--on-missing", "empty"] if command == "track" else []
    code, out, err = call(command, path, *more)
    assert code in (0, 2, 3)
    errors = [line for line in err if not line.startswith(("tracking ", "indexing ", "indexed "))]
    if command == "validate" and code == 3 and out:
        assert errors == []
    else:
        assert len(errors) == (code != 0), err
        assert all(line.startswith("error: ") for line in errors)
