import csv
import dataclasses
import math

import pytest
import torch

from perception.core.errors import DataError
from perception.training.log import LossWindow, NonFiniteLoss, Status, TrainingLog
from perception.training.processes import Processes

STATUS = Status(20, 100, 0.2, 320, 1e-3, {"loss": 3.0, "box": 1.0}, 12.5, 9.0, 30.0, 0.05)


def at(step: int, **changes) -> Status:
    return dataclasses.replace(STATUS, step=step, **changes)


def steps(path) -> list[str]:
    return [row["step"] for row in csv.DictReader((path / "log.csv").open())]


def test_a_row_a_look(tmp_path):
    log = TrainingLog(tmp_path)
    log.add(at(20))
    log.add(at(40))
    log.close()
    first = next(csv.DictReader((tmp_path / "log.csv").open()))
    expected = {"step": 20, "progress": 0.2, "samples": 320, "rate": 1e-3, "loss": 3.0, "box": 1.0, "gradient_norm": 12.5}
    expected |= {"seconds": 9.0, "samples_per_second": 30.0, "waiting": 0.05}
    assert {name: float(text) for name, text in first.items()} == expected
    assert steps(tmp_path) == ["20", "40"]


def test_a_resumed_log_drops_what_was_lost_and_a_row_cut_short(tmp_path):
    log = TrainingLog(tmp_path)
    for step in (20, 40, 60):
        log.add(at(step))
    with (tmp_path / "log.csv").open("a") as file:
        file.write("80,0.")
    again = TrainingLog(tmp_path, after_step=40)
    again.add(at(60))
    assert steps(tmp_path) == ["20", "40", "60"]
    TrainingLog(tmp_path).add(at(20))  # a new training begins a new log
    assert steps(tmp_path) == ["20"]


def test_a_log_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "log.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="expected a log of a training"):
        TrainingLog(tmp_path, after_step=40)
    (tmp_path / "log.csv").write_text("step,loss\n20,1\n")
    with pytest.raises(DataError, match=r"expected the columns step, progress.*got step, loss"):
        TrainingLog(tmp_path, after_step=40).add(at(60))


def test_tensorboard_is_written_where_it_is_installed(tmp_path):
    pytest.importorskip("tensorboard", reason="an optional package")
    log = TrainingLog(tmp_path)
    log.add(STATUS)
    log.close()
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_window_gives_means_and_names_the_first_bad_step():
    window, processes = LossWindow(), Processes()
    for loss, norm in ((1.0, 10.0), (3.0, math.inf)):
        window.add(torch.tensor([loss, loss / 2, norm]), [f"a{loss:.0f}"])
    losses, norm = window.take(("loss", "box"), 8, processes, may_skip=True)
    assert (losses, norm, len(window)) == ({"loss": 2.0, "box": 1.0}, 10.0, 0)
    for number, loss in enumerate((1.0, math.nan, math.inf)):
        window.add(torch.tensor([loss, 1.0, 1.0]), [f"frame {number}"])
    with pytest.raises(NonFiniteLoss, match=r"step 10: expected finite losses, got loss nan; the samples were frame 1; look"):
        window.take(("loss", "box"), 11, processes, may_skip=False)


def test_many_samples_are_not_all_named():
    window = LossWindow()
    window.add(torch.tensor([math.nan, 1.0]), [f"t{i}" for i in range(100)])
    with pytest.raises(NonFiniteLoss, match="t63 and 36 more"):
        window.take(("loss",), 1, Processes(), may_skip=False)
