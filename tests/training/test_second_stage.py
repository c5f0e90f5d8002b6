"""The loss of the second stage, on boxes that can be checked by hand."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from pydantic import ValidationError
from torch import Tensor

from perception.detection.build import grid_of
from perception.detection.decode import Boxes
from perception.detection.second_stage import SecondStage, moved, refined
from perception.training.loss_settings import LossSettings, SecondStageLossSettings
from perception.training.sample import Sample
from perception.training.second_stage import choose, residual_to, second_stage_loss
from tests.training.makers import CAR, TRUCK, box, sample, small_settings

GRID = grid_of(small_settings())
MAP = torch.zeros(1, 4, 32, 32)
FEW = SecondStageLossSettings(boxes=10)


def boxes_of(*objects: tuple[int, list[float]]) -> Boxes:
    rows = torch.tensor([row for _, row in objects]).reshape(-1, 9)
    return Boxes(rows, torch.full((len(rows),), 0.5), torch.tensor([label for label, _ in objects], dtype=torch.int64))


def silent_stage(**options: bool) -> SecondStage:
    """It says 0 of everything."""
    stage = SecondStage(4, shared=(8, 8), score=(8, 8), box=(8, 8), **options)
    for branch in (stage.score, stage.box):
        torch.nn.init.zeros_(branch.out.weight)
        torch.nn.init.zeros_(branch.out.bias)
    return stage


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31))
def test_the_residual_moves_a_box_to_the_truth(seed):
    generator = torch.Generator().manual_seed(seed)
    rows, truth = torch.randn(2, 20, 9, generator=generator, dtype=torch.float64) * 5
    residual = residual_to(rows, truth)
    found = moved(rows, residual)
    torch.testing.assert_close(found[:, :8], truth[:, :8])
    torch.testing.assert_close((2 * (found - truth)[:, 8]).cos(), torch.ones(20, dtype=torch.float64))  # but for half turns
    assert (residual[:, 6].abs() <= math.pi / 2).all()


def test_a_box_belongs_to_the_object_of_its_class_that_it_overlaps_most():
    truth = sample((TRUCK, box(0, 0)), (CAR, box(3, 0)), (CAR, box(0, 0, z=0.5)))
    found = choose(boxes_of((CAR, box(0, 0))), truth, FEW)
    assert found.truth.tolist() == [box(0, 0, z=0.5)] * 10
    assert found.iou.tolist() == pytest.approx([0.5] * 10)  # 1 m of the height of 1.5 m is shared, of 2 m in all


def test_a_box_of_another_class_has_no_truth():
    found = choose(boxes_of((TRUCK, box(0, 0))), sample((CAR, box(0, 0))), FEW)
    assert not found.iou.any()


def test_length_lies_along_the_heading():
    # 2 m along the length of 4 m, r = 0: the length is along y
    found = choose(boxes_of((CAR, box(0, 2))), sample((CAR, box(0, 0))), FEW)
    assert found.iou.tolist() == pytest.approx([1 / 3] * 10)


@pytest.mark.parametrize(
    ("near", "hard", "easy", "expected"),
    [
        pytest.param(20, 20, 20, (5, 4, 1), id="of all kinds: half near, of the rest four in five hard"),
        pytest.param(2, 20, 20, (2, 6, 2), id="few near"),
        pytest.param(2, 1, 20, (2, 1, 7), id="few hard"),
        pytest.param(20, 0, 1, (5, 0, 5), id="no hard"),
        pytest.param(20, 1, 0, (5, 5, 0), id="no easy"),
        pytest.param(1, 0, 0, (10, 0, 0), id="near only"),
        pytest.param(0, 1, 0, (0, 10, 0), id="hard only"),
        pytest.param(0, 0, 0, (0, 0, 10), id="no boxes: zeros"),
    ],
)
def test_shares_of_the_choice(near, hard, easy, expected):
    # of a width of 2 m: 0.01 m beside it, 1 m beside it (IoU 1 / 3), far away
    kinds = [box(0.01 + i / 1000, 0) for i in range(near)] + [box(1.0, 0)] * hard + [box(10, 10)] * easy
    found = choose(boxes_of(*[(CAR, row) for row in kinds]), sample((CAR, box(0, 0))), FEW)
    is_near, is_hard = found.iou >= 0.55, (found.iou >= 0.1) & (found.iou < 0.55)
    assert (int(is_near.sum()), int(is_hard.sum()), int((found.iou < 0.1).sum())) == expected
    if hard + easy:
        assert len(found.rows[is_near].unique(dim=0)) == expected[0]  # drawn once each


def test_the_choice_follows_its_generator():
    many = boxes_of(*[(CAR, box(i, 0)) for i in range(40)])
    picks = [choose(many, sample((CAR, box(0, 0))), FEW, torch.Generator().manual_seed(seed)).rows for seed in (1, 1, 2)]
    assert torch.equal(picks[0], picks[1])
    assert not torch.equal(picks[0], picks[2])


@pytest.mark.parametrize(
    ("shift", "target"),
    # IoU (2 - shift) / (2 + shift) of boxes side by side; the score should be 2 IoU - 0.5 within 0..1
    [(0.0, 1.0), (0.2, 1.0), (2 / 3, 0.5), (1.0, 1 / 6), (1.5, 0.0)],
)
def test_score(shift, target):
    stage = silent_stage()
    with torch.no_grad():
        stage.score.out.bias.fill_(math.log(3))  # a score of 3 / 4
    losses = second_stage_loss(stage, MAP, [boxes_of((CAR, box(shift, 0)))], [sample((CAR, box(0, 0)))], GRID)
    assert losses.parts["second_score"].item() == pytest.approx(-target * math.log(0.75) - (1 - target) * math.log(0.25), rel=1e-4)


def loss_of_borders(row: list[float], truth: list[float], *, velocity: bool = True, says: float = 0.0, **options: str) -> float:
    stage = silent_stage(velocity=velocity)
    with torch.no_grad():
        stage.box.out.bias[7:] = says
    losses = second_stage_loss(stage, MAP, [boxes_of((CAR, row))], [sample((CAR, truth))], GRID, LossSettings.model_validate(options))
    assert losses.total.item() == pytest.approx(sum(part.item() for part in losses.parts.values()))
    return losses.parts["second_box"].item()


@pytest.mark.parametrize(
    ("row", "truth", "expected"),
    [
        pytest.param(box(0.25, -0.5), box(0, 0), 0.75, id="shift"),
        pytest.param(box(0, 0, size=(2, 4, 2)), box(0, 0, z=0.1, size=(1.8, 4.3, 2.1)), 0.1 + 0.2 + 0.3 + 0.1, id="height and size"),
        pytest.param(box(0, 0, r=math.pi + 0.1), box(0, 0), 0.1, id="turned, the wrong way round"),
        pytest.param(box(0, 0, velocity=(1, 2)), box(0, 0, velocity=(3, -1)), 0.2 * 5, id="velocity"),
        pytest.param(box(1.0, 0), box(0, 0), 0, id="too far away to learn from"),
    ],
)
def test_borders(row, truth, expected):
    assert loss_of_borders(row, truth) == pytest.approx(expected, abs=1e-5)


def test_unknown_velocity():
    row, truth = box(0, 0, velocity=(1, 2)), box(0, 0, velocity=(math.nan, math.nan))
    assert loss_of_borders(row, truth, says=1.0) == 0
    assert loss_of_borders(row, truth, says=1.0, unknown_velocity="zero") == pytest.approx(0.2 * (2 + 3))
    assert loss_of_borders(row, truth, velocity=False, unknown_velocity="zero") == 0


def test_only_the_stage_learns():
    feature_map = torch.randn(1, 4, 32, 32, requires_grad=True)
    stage = SecondStage(4, shared=(8, 8), score=(8, 8), box=(8, 8))
    second_stage_loss(stage, feature_map, [boxes_of((CAR, box(0.1, 0)))], [sample((CAR, box(0, 0)))], GRID).total.backward()
    assert feature_map.grad is None
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in stage.parameters())


@pytest.mark.parametrize("size", [(math.inf, 4, 1), (1e20, 4, 1), (math.nan, 4, 1)])
def test_boxes_that_are_none_are_left_out(size):
    stage = SecondStage(4, shared=(8, 8), score=(8, 8), box=(8, 8))
    boxes = boxes_of((CAR, box(0, 0, size=size)), (CAR, box(0, 0)))
    assert choose(boxes, sample(), FEW).rows.tolist() == [box(0, 0)] * 10
    assert second_stage_loss(stage, MAP, [boxes], [sample()], GRID).total.isfinite()


def test_samples_without_boxes_or_truth():
    maps = torch.zeros(3, 4, 32, 32)
    boxes = [boxes_of(), boxes_of((CAR, box(0, 0))), boxes_of()]
    losses = second_stage_loss(silent_stage(), maps, boxes, [sample(), sample(), sample((CAR, box(0, 0)))], GRID)
    assert losses.parts["second_score"].item() == pytest.approx(math.log(2))
    assert losses.parts["second_box"] == 0


def test_shares_of_several_processes_add_up():
    stage, maps = silent_stage(), torch.zeros(2, 4, 32, 32)
    boxes = [boxes_of((CAR, box(0.25, 0))), boxes_of((CAR, box(0.75, 0)), (CAR, box(0.5, 0)))]  # IoU 7/9; 5/11, 3/5
    samples = [sample((CAR, box(0, 0)))] * 2
    stage.eval()

    def loss(part: slice, counts: Tensor | None = None) -> tuple[float, Tensor]:
        seen: list[Tensor] = []

        def total_of(count: Tensor) -> Tensor:
            seen.append(count)
            return count if counts is None else counts

        generator = torch.Generator().manual_seed(0)
        found = second_stage_loss(stage, maps[part], boxes[part], samples[part], GRID, generator=generator, total_of=total_of)
        return found.total.item(), seen[0]

    one, other = loss(slice(0, 1))[1], loss(slice(1, 2))[1]
    shares = [loss(part, one + other)[0] for part in (slice(0, 1), slice(1, 2))]
    assert (one + other)[0] == 256
    borders = (0.25 * one[1] + 0.5 * other[1]).item() / (one + other)[1].item()
    assert sum(shares) == pytest.approx(math.log(2) + borders, rel=1e-4)


def test_a_trained_stage_moves_boxes_to_the_truth():
    """All boxes of the first stage are half a metre behind the objects: after some steps the second puts them right."""
    torch.manual_seed(0)
    generator, stage = torch.Generator().manual_seed(0), SecondStage(4, shared=(16, 16), score=(16, 16), box=(16, 16))
    optimizer = torch.optim.Adam(stage.parameters(), 0.01)

    def scene() -> tuple[Boxes, Sample]:
        rows = torch.tensor([box(3.0 * i - 9, 0) for i in range(7)])
        rows[:, 1] += torch.rand(7, generator=generator) * 10 - 5
        rows[:, 8] = torch.rand(7, generator=generator) * 6 - 3
        truth = sample(*[(CAR, row) for row in rows.tolist()])
        back = torch.zeros(7, 9)
        back[:, 1] = 0.5
        return Boxes(moved(rows, back), torch.full((7,), 0.5), torch.zeros(7, dtype=torch.int64)), truth

    for _ in range(150):
        boxes, truth = scene()
        second_stage_loss(stage, MAP, [boxes], [truth], GRID).total.backward()
        optimizer.step()
        optimizer.zero_grad()
    boxes, truth = scene()
    with torch.no_grad():
        better = refined(stage.eval(), MAP, [boxes], GRID)[0]

    def error(found: Boxes) -> float:
        return (found.rows[:, :2] - truth.boxes[:, :2]).norm(dim=1).mean().item()

    assert error(boxes) == pytest.approx(0.5, abs=1e-5)
    assert error(better) < 0.15


def test_settings_that_do_not_fit():
    with pytest.raises(ValidationError, match=r"score_iou: expected two rising numbers, got 0.5 and 0.25"):
        SecondStageLossSettings(score_iou=(0.5, 0.25))
