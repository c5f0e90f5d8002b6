"""Both kinds of suppression on the oracle's boxes, through the decoder: score order, limits before and after, the same lists."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from perception.detection.decode import CircleNms, Decoder, RotatedNms
from perception.detection.grid import build_grid
from tests.conftest import SHARED

pytestmark = pytest.mark.shared
FOLDER = SHARED / "fixtures" / "nms"
CASES = json.loads((FOLDER / "meta.json").read_text())["cases"] if FOLDER.is_dir() else {}
ROTATED = [name for name in CASES if "iou_threshold" in CASES[name] and name != "ties"]
CIRCLE = [name for name in CASES if name.startswith("circle/") and name != "circle/ties"]


def kept(nms: RotatedNms | CircleNms, rows: np.ndarray, scores: np.ndarray) -> list[int]:
    """Numbers of the boxes that a decoder with one task of one class keeps: cell i holds box i."""
    grid = build_grid((0, 0, 0), (1, 1, 1), (1, 1, 1), stride=1, divisor=1)
    decoder = Decoder(grid, (1,), nms, -1.0, (-1e9,) * 3, (1e9,) * 3)
    table = torch.from_numpy(np.nan_to_num(rows))
    numbered = torch.cat([table, torch.arange(len(rows))[:, None]], dim=1)
    at: Callable[[int, int, torch.Tensor], torch.Tensor] = lambda _task, _sample, cells: numbered[cells]  # noqa: E731
    found = decoder.from_scores([torch.from_numpy(scores).reshape(1, 1, 1, -1)], at)[0]
    return found.rows[:, 9].int().tolist()


def rows_of(boxes: np.ndarray) -> np.ndarray:
    """(N, 7) x y z w l h r as rows (N, 9) with no velocity."""
    return np.concatenate([boxes[:, :6], np.zeros((len(boxes), 2), np.float32), boxes[:, 6:]], axis=1)


@pytest.mark.parametrize("name", ROTATED)
def test_rotated(name):
    case, arrays = CASES[name], np.load(FOLDER / "rotated.npz")
    nms = RotatedNms(case["iou_threshold"], case["pre_max"], case["post_max"])
    assert kept(nms, rows_of(arrays[f"{name}/boxes"]), arrays[f"{name}/scores"]) == arrays[f"{name}/keep_exact"].tolist()


def test_rotated_ties_keep_one_of_each_group():
    case, arrays = CASES["ties"], np.load(FOLDER / "rotated.npz")
    nms = RotatedNms(case["iou_threshold"], case["pre_max"], case["post_max"])
    ours = kept(nms, rows_of(arrays["ties/boxes"]), arrays["ties/scores"])
    group = arrays["ties/group"]
    assert sorted(group[ours]) == sorted(group[arrays["ties/keep_reference"]])


@pytest.mark.parametrize("name", [*CIRCLE, "circle/ties"])
def test_circle(name):
    arrays: Any = np.load(FOLDER / "circle.npz")
    case, xy_score = CASES.get(name, {}), arrays[f"{name}/xy_score"]
    rows = np.zeros((len(xy_score), 9), np.float32)
    rows[:, :2] = xy_score[:, :2]
    nms = CircleNms((float(case["min_radius"]),), case["post_max"])
    assert kept(nms, rows, xy_score[:, 2]) == arrays[f"{name}/keep_stable"].tolist()
