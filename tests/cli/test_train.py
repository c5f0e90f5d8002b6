import csv
import json

import numpy as np
import pytest
import torch
import yaml

from perception.cli.main import main
from perception.core.boxes import Boxes3D
from perception.core.classes import NUSCENES_DETECTION
from perception.core.detections import Detections
from perception.core.frame import Frame
from perception.core.pointcloud import PointCloud
from perception.core.transform import Transform
from perception.detection.config import load_detector_config
from perception.detection.detector import Detector
from perception.drives.simulated.clips import write_clip
from perception.training.loop import Loop
from tests.detection.small import LIDAR_TO_EGO, cloud, small_config


@pytest.fixture
def place(tmp_path):
    """A training of a small network, and a folder with four clips."""
    (tmp_path / "detector.yaml").write_text(yaml.safe_dump(small_config().model_dump(mode="json")))
    settings = {"steps": 4, "batch_size": 2, "log_every": 2}
    training = {"detector": str(tmp_path / "detector.yaml"), "loop": settings, "augment": {"flip_x": 0.5}}
    (tmp_path / "training.yaml").write_text(yaml.safe_dump(training))
    for number in range(4):
        boxes = Boxes3D(np.array([[4.0 + number, 2, 1]]), np.array([[4.0, 2, 1.5]]), np.zeros(1), np.zeros((1, 2)))
        truth = Detections(boxes, np.zeros(1, np.int64), np.ones(1), NUSCENES_DETECTION, num_points=np.array([9]))
        points = PointCloud(cloud(500, seed=number))
        frame = Frame(f"clip {number}", 0, LIDAR_TO_EGO, Transform.identity(), {}, truth, lambda points=points: points)
        write_clip(tmp_path / f"clips/clip-{number:06d}.npz", frame, num_sweeps=1)
    return tmp_path


def train(place, out: str, *more: str) -> int:
    return main(
        ["train", str(place / "training.yaml"), "--data", str(place / "clips"), "--out", str(place / out), "--set", "data.workers=0", *more]
    )


def test_a_training_from_its_file_to_a_detector(place, capfd):
    assert train(place, "out") == 0
    told = capfd.readouterr()
    assert told.out.startswith("4 steps, 8 samples in ")
    assert told.out.splitlines()[-1] == str(place / "out")
    assert "step 4/4" in told.err
    detector = Detector.from_config(load_detector_config(place / "detector.yaml"), weights=place / "out/weights.safetensors")
    assert len(detector.detect(cloud(500), LIDAR_TO_EGO)) > 0
    assert [row["step"] for row in csv.DictReader((place / "out/log.csv").open())] == ["2", "4"]
    assert json.loads((place / "out/training.json").read_text())["complete"] is True
    # The resolved configuration is itself one that can be trained, and gives the same weights.
    assert main(["train", str(place / "out/config.yaml"), "--out", str(place / "again")]) == 0
    first, second = (torch.load(place / name / "checkpoint.pt", weights_only=True)["state"]["ema"] for name in ("out", "again"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_resume_and_weights_to_begin_with(place, capfd):
    assert train(place, "out") == 0
    assert train(place, "out") == 2
    assert "holds a training already; give --resume" in capfd.readouterr().err
    assert train(place, "out", "--resume") == 0
    assert "nothing left to do" in capfd.readouterr().out
    assert train(place, "out", "--resume", "--set", "loop.steps=6") == 2
    assert "loop.steps: expected 4 as before, got 6" in capfd.readouterr().err
    assert train(place, "more", "--weights", str(place / "out/weights.safetensors"), "--set", "loop.steps=1") == 0
    first, second = (torch.load(place / name / "checkpoint.pt", weights_only=True)["state"] for name in ("out", "more"))
    # One step at a rate of 1e-3 moves no weight by more than about that.
    moved = [(second["network"][name] - tensor).abs().max() for name, tensor in first["ema"].items() if name.endswith("conv.weight")]
    assert 0 < max(moved) < 2e-3


@pytest.mark.parametrize(("minutes", "told"), [("5", "stopped before the first checkpoint"), ("1e-9", "--resume goes on from the last")])
def test_who_is_stopped_is_told_what_is_there(place, capfd, monkeypatch, minutes, told):
    def stopped(loop, progress):
        if loop.step == 4:
            raise KeyboardInterrupt
        return look(loop, progress)

    look = Loop.look
    monkeypatch.setattr(Loop, "look", stopped)
    assert train(place, "out", "--set", f"loop.checkpoint_minutes={minutes}") == 130
    assert told in capfd.readouterr().err


def test_a_budget_is_kept(place, capfd):
    assert train(place, "out", "--set", "loop.steps=null", "--minutes", "0.02") == 0
    record = json.loads((place / "out/training.json").read_text())
    assert record["last"]["progress"] == 1
    assert record["seconds"] >= 1.2


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--set", "loop.steps=x"], 2, "loop.steps: Input should be a valid integer"),
        (["--device", "cuda:9"], 2, "got 'cuda:9'; no such device here"),
        (["--weights", "nothing.safetensors"], 4, "nothing.safetensors: expected a weight file"),
        (["--resume"], 4, "checkpoint.pt: expected the checkpoint of a training, got No such file"),
        (["--data", "nowhere"], 3, "nowhere"),
    ],
)
def test_what_does_not_fit_is_one_line(place, capfd, more, code, message):
    assert train(place, "out", *more) == code
    error = capfd.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
