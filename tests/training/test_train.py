import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import perception.training.train as train_module
from perception.core.errors import CheckpointError, UsageError
from perception.core.transform import Transform
from perception.detection.config import DetectorConfig
from perception.detection.detector import Detector
from perception.training.loop import Loop
from perception.training.processes import Processes
from perception.training.train import Folder, run
from tests.training.small import small_detector, small_loop, square_loss

LIDAR_TO_EGO = Transform.from_yaw(-np.pi / 2, (0.94, 0.0, 1.84))


def folder(path: Path, **config) -> Folder:
    return Folder(path, {"loop": {"steps": 6, "minutes": None}, **config}, small_detector(), "small")


def carry_out(loop: Loop, out: Folder, *, resume: bool = False, stop_after: int | None = None):
    """Train; with `stop_after` the power goes off after this step."""

    def look(status):
        if status.step == stop_after:
            raise KeyboardInterrupt

    return run(loop, out, Processes(), state=out.begin(resume=resume), after_look=look)


def weights(loop: Loop) -> dict[str, torch.Tensor]:
    return {
        name: tensor.clone() for name, tensor in (loop.network.state_dict() | {f"ema.{k}": v for k, v in loop.ema.state().items()}).items()
    }


def rows(path: Path) -> list[dict[str, str]]:
    """The log without what the clock says."""
    found = list(csv.DictReader((path / "log.csv").open()))
    return [{k: v for k, v in row.items() if k not in ("seconds", "samples_per_second", "waiting")} for row in found]


@pytest.mark.parametrize(
    "kind", [{}, {"precision": "bfloat16"}, {"scaled": True}, {"accumulate": 2}], ids=["plain", "bfloat16", "scaled", "accumulated"]
)
def test_a_resumed_training_gives_the_same_bits(tmp_path, kind):
    whole = small_loop(**kind)
    carry_out(whole, folder(tmp_path / "whole"))
    broken = small_loop(**kind, checkpoint_minutes=1e-9)
    with pytest.raises(KeyboardInterrupt):  # at step 4; the last checkpoint is of step 2
        carry_out(broken, folder(tmp_path / "cut"), stop_after=4)
    torch.rand(7)  # what else happened does not matter
    again = small_loop(**kind)
    status = carry_out(again, folder(tmp_path / "cut"), resume=True)
    assert status.step == again.step == 6
    expected, found = weights(whole), weights(again)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")  # rows behind the checkpoint were dropped and written anew


def test_random_numbers_go_on_after_a_resumption(tmp_path):
    def noisy(maps, targets, total_of):
        values = square_loss(maps, targets, total_of)
        values.total = values.total * torch.rand(())
        return values

    whole = small_loop(parts={"loss": noisy})
    carry_out(whole, folder(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        carry_out(small_loop(parts={"loss": noisy}, checkpoint_minutes=1e-9), folder(tmp_path / "cut"), stop_after=4)
    again = small_loop(parts={"loss": noisy})
    carry_out(again, folder(tmp_path / "cut"), resume=True)
    assert all(torch.equal(a, b) for a, b in zip(weights(again).values(), weights(whole).values(), strict=True))


def test_the_weights_are_those_of_the_mean_and_a_detector_loads_them(tmp_path):
    loop = small_loop()
    carry_out(loop, folder(tmp_path))
    config = DetectorConfig(detector=small_detector())
    detector = Detector.from_config(config, weights=tmp_path / "weights.safetensors")
    same = Detector.from_config(config, weights=loop.ema.state())
    cloud = np.random.default_rng(0).uniform(-5, 5, (500, 5)).astype(np.float32)
    first, second = (d.detect(cloud, LIDAR_TO_EGO) for d in (detector, same))
    assert len(first) > 0
    assert np.array_equal(first.score, second.score)
    other = config.detector.model_copy(update={"frame": "ego"})
    with pytest.raises(CheckpointError, match="frame ego, got ones for nuscenes_lidar; the file was made for the settings small"):
        Detector.from_config(DetectorConfig(detector=other), weights=tmp_path / "weights.safetensors")


def test_the_folder_says_how_it_went(tmp_path):
    status = carry_out(small_loop(), folder(tmp_path))
    record = json.loads((tmp_path / "training.json").read_text())
    assert (record["complete"], record["steps"], record["samples"], record["processes"]) == (True, 6, 12, 1)
    assert record["last"]["losses"] == pytest.approx(status.losses)
    assert set(record) >= {"seconds", "waiting", "device", "precision", "versions"}
    assert (tmp_path / "config.yaml").read_text().startswith("loop:\n  steps: 6")
    log = rows(tmp_path)
    assert [row["step"] for row in log] == ["2", "4", "6"]
    assert list(log[0]) == ["step", "progress", "samples", "rate", "loss", "heatmap", "box", "gradient_norm"]
    assert float(log[0]["loss"]) == pytest.approx(float(log[0]["heatmap"]) + float(log[0]["box"]), rel=1e-4)


def test_a_finished_training_resumed_does_nothing(tmp_path):
    carry_out(small_loop(), folder(tmp_path))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert carry_out(small_loop(), folder(tmp_path), resume=True) is None
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("last", ["weights.safetensors", "training.json"])
def test_a_last_save_that_was_cut_short_is_finished(tmp_path, monkeypatch, last):
    """A full disk behind the checkpoint: nothing is left to train, but everything to write."""
    carry_out(small_loop(), folder(tmp_path / "whole"))
    written = train_module.write_weights, train_module.write_bytes

    def full(path, *content):
        if path.name == last and path.parent.name == "cut":
            raise OSError(28, "No space left on device")
        return written[path.name != "weights.safetensors"](path, *content)

    with monkeypatch.context() as patch:
        patch.setattr(train_module, "write_weights", full)
        patch.setattr(train_module, "write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            carry_out(small_loop(), folder(tmp_path / "cut"))
    assert carry_out(small_loop(), folder(tmp_path / "cut"), resume=True) is None
    assert json.loads((tmp_path / "cut/training.json").read_text())["complete"] is True
    whole, found = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], found[name]) for name in whole)


def test_the_record_is_json_for_everyone(tmp_path):
    """float16 whose scaler skipped the steps has an infinite gradient."""
    out, loop = folder(tmp_path), small_loop()
    status = carry_out(loop, out)
    out.save(loop.state(), loop, replace(status, gradient_norm=float("inf")), is_complete=True)
    text = (tmp_path / "training.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["last"]["gradient_norm"] is None


def test_a_training_is_not_overwritten_unasked(tmp_path):
    carry_out(small_loop(), folder(tmp_path))
    with pytest.raises(UsageError, match="holds a training already; give --resume"):
        carry_out(small_loop(), folder(tmp_path))


def test_resuming_needs_the_same_configuration(tmp_path):
    carry_out(small_loop(), folder(tmp_path, data={"lidars": ["a", "b"]}))
    with pytest.raises(UsageError, match=r"data\.lidars: expected \['a', 'b'\] as before, got \['a'\]"):
        carry_out(small_loop(), folder(tmp_path, data={"lidars": ["a"]}), resume=True)
    carry_out(small_loop(), folder(tmp_path, data={"lidars": ["a", "b"]}, loop={"steps": 6, "minutes": 3}), resume=True)  # a free one


def _without(key):
    def change(content):
        del content["state"][key]
        return content

    return change


class Trap:
    """Something that only an unpickler which trusts its file would make."""

    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda _: [1, 2], "expected a checkpoint of format 1, got list", id="another object"),
        pytest.param(lambda c: c | {"format": 99}, "expected a checkpoint of format 1, got 99", id="a later format"),
        pytest.param(lambda c: c | {"config": "{"}, "its configuration is broken", id="broken configuration"),
        pytest.param(_without("optimizer"), "its state does not fit this training .KeyError", id="a part is missing"),
        pytest.param(lambda c: c | {"state": c["state"] | {"network": {}}}, "missing reader", id="no weights"),
        pytest.param(lambda c: c | {"trap": Trap()}, "expected a complete checkpoint of a training, got something else", id="code"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path, monkeypatch, change, message):
    monkeypatch.chdir(tmp_path)
    carry_out(small_loop(), folder(tmp_path))
    path = tmp_path / "checkpoint.pt"
    torch.save(change(torch.load(path, weights_only=True)), path)
    with pytest.raises(CheckpointError, match=message):
        carry_out(small_loop(), folder(tmp_path), resume=True)
    assert not Path("executed").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"\x80\x02 no pickle"])
def test_a_cut_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match="expected a complete checkpoint of a training"):
        carry_out(small_loop(), folder(tmp_path), resume=True)


def test_a_missing_checkpoint_is_told(tmp_path):
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: expected the checkpoint of a training, got No such file"):
        carry_out(small_loop(), folder(tmp_path), resume=True)


def test_a_budget_ends_a_training(tmp_path):
    status = carry_out(small_loop(steps=None, minutes=0.02, log_every=1), folder(tmp_path))
    assert status.progress == 1
    assert status.total_steps is None
    assert 1.2 <= status.seconds < 60  # a step that has begun is ended, however long it takes on a busy machine
    assert float(rows(tmp_path)[-1]["rate"]) < 1e-3
