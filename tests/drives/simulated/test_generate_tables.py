"""`tools/generate_tables.py` on three scenes: the text is what json.dump would write, all rows link up, the devkit reads it."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

TOOL = Path(__file__).resolve().parents[3] / "tools" / "generate_tables.py"


@pytest.fixture(scope="module")
def tool():
    import sys

    spec = importlib.util.spec_from_file_location("generate_tables", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def root(tool, tmp_path_factory):
    folder = tmp_path_factory.mktemp("generated")
    tool.generate(folder, scenes=3, seed=1, detections=folder / "detections.json")
    return folder


@pytest.fixture(scope="module")
def tables(root):
    return {path.stem: json.loads(path.read_bytes()) for path in (root / "v1.0-trainval").glob("*.json")}


def test_the_text_is_that_of_the_official_files(root):
    paths = list((root / "v1.0-trainval").glob("*.json"))
    assert len(paths) == 14  # 13 tables and the splits
    for path in paths:
        text = path.read_text()
        assert text == json.dumps(json.loads(text), indent=0)


def test_a_full_set_has_the_official_number_of_samples(tool):
    counts = [tool.num_samples(i, 850) for i in range(850)]
    assert sum(counts) == 34_149
    assert sum(counts[-150:]) == 6_019


def test_every_sample_data_has_its_pose_calibration_and_sample(tables):
    tokens = {name: {row["token"] for row in tables[name]} for name in ("ego_pose", "calibrated_sensor", "sample", "sensor")}
    assert len(tokens["ego_pose"]) == len(tables["sample_data"])
    for row in tables["sample_data"]:
        assert row["ego_pose_token"] == row["token"]
        assert row["token"] in tokens["ego_pose"]
        assert row["calibrated_sensor_token"] in tokens["calibrated_sensor"]
        assert row["sample_token"] in tokens["sample"]
    assert {row["sensor_token"] for row in tables["calibrated_sensor"]} == tokens["sensor"]
    assert len(tables["calibrated_sensor"]) == 12 * 3


@pytest.mark.parametrize("name", ["sample", "sample_data", "sample_annotation"])
def test_prev_and_next_agree_and_time_goes_on(tables, name):
    rows = {row["token"]: row for row in tables[name]}
    samples = {row["token"]: row["timestamp"] for row in tables["sample"]}
    time = {key: row.get("timestamp", samples.get(row.get("sample_token"))) for key, row in rows.items()}
    ends = 0
    for key, row in rows.items():
        if row["next"]:
            assert rows[row["next"]]["prev"] == key
            assert time[row["next"]] > time[key]
        else:
            ends += 1
    assert ends == {"sample": 3, "sample_data": 36, "sample_annotation": len(tables["instance"])}[name]


def test_instances_count_their_annotations(tables):
    counts = {}
    for row in tables["sample_annotation"]:
        counts[row["instance_token"]] = counts.get(row["instance_token"], 0) + 1
    assert counts == {row["token"]: row["nbr_annotations"] for row in tables["instance"]}


def test_sensors_turn_at_their_own_rates_with_a_key_frame_a_sample(tables):
    scene = tables["scene"][0]
    samples = {row["token"]: row for row in tables["sample"] if row["scene_token"] == scene["token"]}
    seconds = (scene["nbr_samples"] - 1) / 2
    for channel, rate in (("LIDAR_TOP", 20), ("CAM_BACK", 12), ("RADAR_FRONT", 13)):
        data = [row for row in tables["sample_data"] if f"/{channel}/" in row["filename"] and row["sample_token"] in samples]
        assert len(data) == pytest.approx(seconds * rate + 1, abs=1)
        keys = [row for row in data if row["is_key_frame"]]
        assert [row["sample_token"] for row in keys] == list(samples)
        assert all(abs(row["timestamp"] - samples[row["sample_token"]]["timestamp"]) < 60_000 for row in keys)
        assert all(row["filename"].startswith("samples/" if row["is_key_frame"] else "sweeps/") for row in data)


def test_the_same_seed_gives_the_same_bytes(tool, root, tmp_path):
    tool.generate(tmp_path, scenes=3, seed=1)
    for path in (root / "v1.0-trainval").glob("*.json"):
        assert (tmp_path / "v1.0-trainval" / path.name).read_bytes() == path.read_bytes()


def test_the_devkit_opens_it_and_scores_the_submission(tool, tmp_path):
    pytest.importorskip("nuscenes.eval.detection.evaluate")
    from nuscenes import NuScenes
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.detection.evaluate import DetectionEval

    tool.generate(tmp_path, scenes=1, seed=2, detections=tmp_path / "detections.json")
    nusc = NuScenes("v1.0-trainval", str(tmp_path), verbose=False)
    config = config_factory("detection_cvpr_2019")
    judge = DetectionEval(nusc, config, str(tmp_path / "detections.json"), "generated_val", str(tmp_path), verbose=False)
    metrics, _ = judge.evaluate()
    assert 0.5 < metrics.mean_dist_aps["car"] < 0.95
    sizes = [len(judge.pred_boxes[name]) for name in judge.pred_boxes.sample_tokens]
    assert np.mean(sizes) > 100
    assert len(json.loads((tmp_path / "detections.json").read_bytes())["results"]) == len(nusc.sample)


def test_the_command_prints_what_it_wrote(tool, tmp_path):
    from typer import Typer
    from typer.testing import CliRunner

    app = Typer()
    app.command()(tool.main)
    result = CliRunner().invoke(app, [str(tmp_path), "--scenes", "1"])
    assert result.exit_code == 0, result.output
    assert "sample_data" in result.output
    assert "MB" in result.output
    assert str(tmp_path / "v1.0-trainval") in result.output.replace("\n", "")
