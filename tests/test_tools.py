"""The scripts and the documents: the demo runs, the benchmark's parts work, docs/schema.md and the README say what is there."""

import importlib.util
import inspect
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import perception
from perception.cli.main import main
from perception.core import UsageError
from perception.drives import NuScenes
from perception.drives.simulated import simulate_scenes
from perception.drives.simulated import write_nuscenes as write_simulated
from perception.evaluation import validate_submission
from perception.export import SCHEMAS, open_run
from perception.tracking import GreedyTracker, ParityConfig, ParityTracker, load_tracker_config
from tests.conftest import ROOT
from tests.drives.kitti_maker import write_kitti_tracking
from tests.evaluation.makers import write_street
from tests.makers import write_nuscenes


def tool(name):
    spec = importlib.util.spec_from_file_location(f"tools_{name}", ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_simulated_clouds_are_measured_as_real_ones(tmp_path, capsys):
    module = tool("compare_sim")
    module.compare(tmp_path, None, None, scenes=2, frames=2, seed=3)
    text = capsys.readouterr().out
    assert "4 simulated key frames, 0 real ones" in text
    (missing,) = re.search(r"missing in all.*?simulated \| ([\d.]+) \|", text, re.DOTALL).groups()
    assert 4 < float(missing) < 30
    plane = np.random.default_rng(0).uniform(-20, 20, (2000, 3))
    plane[:, 2] = 0.02 * plane[:, 0] - 1.9
    plane[:300, 2] += 1.5  # cars
    height = module.height_above_road(plane)
    np.testing.assert_allclose(height[300:], 0, atol=1e-6)
    np.testing.assert_allclose(height[:300], 1.5, atol=1e-6)


@pytest.mark.parametrize("frames", [6, pytest.param(40, marks=pytest.mark.slow)])
def test_the_demo_runs_and_prints_its_figures(tmp_path, frames):
    pytest.importorskip("nuscenes.eval.tracking.evaluate")
    command = [sys.executable, str(ROOT / "tools" / "demo.py"), "--out", str(tmp_path / "demo"), "--frames", str(frames)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, done.stderr
    for pattern in (
        rf"1\. simulated street: \d+\.\d s, {frames} key frames with [\d,]+ points and {6 * frames} pictures, \d+ objects",
        r"2\. (compact|simulated detector): \d+ boxes",
        r"3\. greedy tracker: \d+ tracks, \d+ boxes",
        r"4\. .* \d+ rows of Parquet",
        r"detection: mAP 0\.[1-9]\d+, NDS 0\.\d+",
        r"tracking: AMOTA 0\.\d+, AMOTP \[m\] \d\.\d+",
        r"IDS \d+",
    ):
        assert re.search(pattern, done.stdout), (pattern, done.stdout)
    run = open_run(tmp_path / "demo" / "run")
    assert [len(drive) for drive in run] == [frames]
    pictures = list((tmp_path / "demo" / "run" / "pictures").iterdir())
    assert {path.suffix for path in pictures} == {".png", ".gif"}
    for path in pictures:
        with Image.open(path) as picture:
            picture.load()
    assert (tmp_path / "demo" / "run" / "evaluation" / "tracking" / "metrics_summary.json").is_file()


def test_the_demo_runs_the_network_whose_weights_lie_beside_it_and_a_simulated_detector_without(tmp_path, capsys):
    pytest.importorskip("torch")
    from tests.detection.small import small_config
    from tests.detection.test_weights import written

    module = tool("demo")
    scenes = simulate_scenes(1, seed=3, num_frames=3)
    splits = {module.SPLIT: [scenes[0].name]}
    write_simulated(tmp_path / "data", scenes, version=module.VERSION, splits=splits, lidar=True)
    dataset = NuScenes(tmp_path / "data", module.VERSION)
    settings = small_config(score_threshold=0.0)
    (tmp_path / "truth").mkdir()
    model = tmp_path / "mine.yaml"
    model.write_text(json.dumps(settings.model_dump(mode="json")))
    written(model.with_suffix(".safetensors"), settings)
    tokens = [token for drive in dataset.drives(module.SPLIT) for token in drive.tokens]
    for found in (
        lambda: module.found_by_network(str(model), dataset, tmp_path),
        lambda: module.found_by_truth(scenes, dataset, tmp_path, 7),
    ):
        report, detections = found()
        for path in (report.submission, detections):
            submission, faults = validate_submission(path, tokens)
            assert faults == []
        assert submission.task == "detection"
        assert len(submission) > 0
    printed = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert re.search(rf"2\. {re.escape(str(model))}: \d+ boxes, \d+\.\d frames a second", printed)
    assert "2. simulated detector:" in printed


def test_a_frame_of_any_data_set_is_drawn(tmp_path, capsys):
    module = tool("draw_frame")
    module.main(write_nuscenes(tmp_path / "nuscenes"), out=tmp_path / "frame.png", drive="scene-0916", frame=1, height=400)
    module.main(write_kitti_tracking(tmp_path / "kitti"), out=tmp_path / "kitti.png", height=400)
    assert capsys.readouterr().out.split() == [str(tmp_path / "frame.png"), str(tmp_path / "kitti.png")]
    with Image.open(tmp_path / "frame.png") as picture, Image.open(tmp_path / "kitti.png") as other:
        assert picture.size[0] > 2 * picture.size[1]  # the map and a camera
        assert other.height >= 400
    with pytest.raises(UsageError, match="drive 'scene-1': expected one of scene-0103, scene-0916"):
        module.main(tmp_path / "nuscenes", drive="scene-1")
    with pytest.raises(UsageError, match=r"drive scene-0103: expected a frame in 0\.\.2, got 3"):
        module.main(tmp_path / "nuscenes", frame=3)


def test_docs_schema_is_what_the_code_writes():
    text = (ROOT / "docs" / "schema.md").read_text()
    assert text == tool("write_schema").document(), "run: python tools/write_schema.py"
    for kind, schema in SCHEMAS.items():
        section = text.split(f"## {kind}/<drive>.parquet")[1].split("\n## ")[0]
        assert re.findall(r"^\| `(\w+)` \|", section, re.M) == schema.names


def test_the_benchmarks_drive_is_the_same_for_the_same_seed_and_tracked_by_both():
    benchmark = tool("benchmark")
    frames, again = (benchmark.crowded_drive(30, 6, seed=1) for _ in range(2))
    assert [len(detections) for detections, _time in frames] == [30] * 6
    for (a, time), (b, same) in zip(frames, again, strict=True):
        assert time == same
        np.testing.assert_array_equal(a.boxes.center, b.boxes.center)
    for tracker in (GreedyTracker(load_tracker_config().tracker), ParityTracker(ParityConfig(parity=True))):
        for _ in range(2):  # each call is a new drive
            benchmark.run_tracker(tracker, frames)


def test_the_benchmark_alternates_between_its_candidates():
    calls = []
    first, second = tool("benchmark").alternate(2, lambda: calls.append("a"), lambda: calls.append("b"))
    assert calls == ["a", "b"] * 3  # a warm-up of both first
    assert (len(first), len(second)) == (2, 2)
    assert min(first + second) >= 0


def test_the_benchmark_of_a_submission_prints_a_table_of_both_candidates(tmp_path, capsys):
    benchmark = tool("benchmark")
    benchmark.submission(write_street(tmp_path, num_scenes=1).detections, repeats=1)
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row.split("|")[1].strip() for row in rows] == ["step", "read and validate", "Python's json alone"]
    assert all(re.fullmatch(r"\| [\w' ]+ \| \d+\.\d+ \| \d+ \|", row) for row in rows[1:])


def test_the_benchmark_of_the_tracker_tells_reading_and_writing_apart(tmp_path, capsys):
    benchmark = tool("benchmark")
    benchmark._files(1, write_street(tmp_path, num_scenes=1).detections, [])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row.split("|")[1].strip() for row in rows] == ["step", "read detections", "write tracks"]
    assert all(re.fullmatch(r"\| [\w ]+ \| \d+\.\d+ \| \d+\.\d+ \| \d+\.\d+ \| \S+ \|", row) for row in rows[1:])


def test_the_benchmark_of_sweeps_prints_a_row_beside_the_devkit(capsys, monkeypatch):
    pytest.importorskip("nuscenes.nuscenes")
    monkeypatch.syspath_prepend(ROOT / "tools")
    tool("benchmark").sweeps(repeats=1)
    text = capsys.readouterr().out
    assert "346880 points in 10 files" in text
    assert re.search(r"^\| accumulate_sweeps \| \d+\.\d \| \d+\.\d \| \d+\.\d \| \S+ \|$", text, re.M)


def test_the_benchmark_measures_processes():
    seconds, megabytes = tool("benchmark").measure_process("x = bytes(64 << 20)")
    assert 0 < seconds < 30
    assert megabytes > 64


README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    "line", sorted({line.split("#")[0].strip() for line in re.findall(r"perception [a-z]+ .*", README) if "--" in line or "doctor" in line})
)
def test_the_options_that_the_readme_shows_exist(line, capsys):
    words = line.split("`")[0].split()
    command = words[1:3] if words[1] == "checkpoint" else words[1:2]
    assert main([*command, "--help"]) == 0
    text = capsys.readouterr().out
    for option in re.findall(r"--[a-z-]+", " ".join(words)):
        assert re.search(rf"{option}\b", text), option


def test_the_readme_shows_each_command_once_at_least(capsys):
    assert main(["--help"]) == 0
    names = re.findall(r"^  ([a-z]+)  ", capsys.readouterr().out.split("Commands:")[1], re.M)
    assert names
    assert all(f"perception {name}" in README for name in names)


def test_the_python_of_the_readme_uses_names_that_exist():
    code = "\n".join(re.findall(r"```python\n(.*?)```", README, re.S))
    for name in re.findall(r"perception\.(\w+)\(", code):
        assert callable(getattr(perception, name)), name
    assert {"open_run", "build_tracker"} <= set(re.findall(r"perception\.(\w+)\(", code))
    assert "timestamp_us" in inspect.signature(perception.build_tracker().update).parameters


def test_files_that_the_readme_links_to_are_there():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_make_targets_that_the_readme_shows_exist():
    targets = set(re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)`", README, re.M))
    targets = {name for pair in targets for name in pair if name}
    makefile = (ROOT / "Makefile").read_text()
    assert {"demo", "test"} <= targets
    assert [target for target in targets if not re.search(rf"^{target}:", makefile, re.M)] == []


@pytest.mark.parametrize("kind", ["pillar", "voxel"])
def test_the_peer_of_the_detector_finds_the_same(kind):
    torch = pytest.importorskip("torch")
    pytest.importorskip("spconv.pytorch")
    from perception.detection import Detector, build_decoder, build_network
    from tests.detection.small import cloud, small_config

    module, settings = tool("benchmark_detector"), small_config(kind).detector
    torch.manual_seed(0)
    network, points, seconds = build_network(settings).eval(), cloud(), {}
    for parameter in network.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=(2 / parameter[0].numel()) ** 0.5)
    peer = module.peer_stages(network, build_decoder(settings), torch.from_numpy(points), seconds, lambda: 0.0)
    ours = Detector(network, settings).detect_rows(points)
    assert peer.labels.tolist() == ours.labels.tolist()
    torch.testing.assert_close(peer.rows[:, :3], ours.rows[:, :3], rtol=1e-3, atol=1e-3)
    assert set(seconds) == set(module.STAGES)


def test_the_network_that_ships_is_timed_by_stage():
    pytest.importorskip("torch")
    from tests.detection.small import cloud

    module = tool("benchmark_detector")
    seconds = module.measure_shipped(module.SHIPPED, cloud(), 2)
    assert {stage: len(times) for stage, times in seconds.items() if stage in module.STAGES} == dict.fromkeys(module.STAGES, 2)


def test_each_augmentation_changes_its_panel():
    pytest.importorskip("torch")
    from perception.core import NUSCENES_DETECTION
    from perception.training.augment import augment
    from perception.training.augment_settings import AugmentSettings
    from perception.training.object_bank import build_object_bank
    from tests.training.scenes import crowded

    module, sample, panels = tool("draw_augmentation"), crowded(), []
    bank = build_object_bank([crowded(1)], NUSCENES_DETECTION, "ego")
    for title, values in module.PANELS:
        found = augment(sample, AugmentSettings.model_validate(values), np.random.default_rng(7), bank)
        panels.append(module.draw_sample(found, "" if "grey" not in title else "grey: intensity", radius=35, size=300).tobytes())
    assert len(panels) % module.COLUMNS == 0
    assert len(set(panels)) == len(panels)


def test_the_peer_of_virtual_points_makes_the_same(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    from perception.fusion import virtual_points
    from perception.fusion.members import draw_ranks

    bench = tool("benchmark_fusion")
    views, masks = bench.rig(), bench.street_masks(seed=3)
    masks["CAM_2"][:2] = False  # one without pixels, one with fewer than are drawn
    masks["CAM_2"][1, 450, 800:812] = True
    pictures = bench.instances_of(masks)
    points = bench.ten_sweeps(264_000)[:34_688]
    area = np.concatenate([pictures[name].spans.area for name in views])
    ranks = draw_ranks(area, bench.NUM_DRAWN, np.random.default_rng(0))
    ours = virtual_points(points, pictures, views, ranks=ranks)
    for decoded in (None, masks):
        virtual, painted, rows = bench.plain_numpy(points, pictures, views, ranks=ranks, masks=decoded)
        np.testing.assert_array_equal(rows, ours.painted_row)
        np.testing.assert_array_equal(painted, ours.painted)
        np.testing.assert_array_equal(virtual[:, 3:], ours.virtual[:, 3:])
        np.testing.assert_allclose(virtual[:, :3], ours.virtual[:, :3], rtol=1e-5, atol=1e-5)
    assert len(ours.virtual) > 500
    assert len(ours.painted) > 500
    assert len(bench.plain_numpy(points, pictures, views)[0]) == len(ours.virtual)  # drawn by itself
