from dataclasses import replace

import numpy as np
import pytest
import torch

from perception.core.borders import boxes_from_det3d
from perception.detection.decode import CircleNms, Decoder, RotatedNms
from perception.detection.grid import build_grid
from perception.detection.head import HeadMaps, TaskMaps

GRID = build_grid((-4, -8, -5), (4, 8, 3), (0.5, 0.5, 8), stride=2, divisor=2)  # maps of 16 x 8 cells of 1 m


def maps(**cells: tuple[int, int, int, float, dict[str, float]]) -> HeadMaps:
    """One sample, two tasks of 1 and 2 classes; each entry: (class, row, column, score, changes) of a box 2 m wide and 4 m long."""
    heat = [torch.full((1, count, 16, 8), -9.0) for count in (1, 2)]
    boxes = [torch.zeros((1, 10, 16, 8)) for _ in range(2)]
    for label, row, column, score, changes in cells.values():
        task, own = (0, 0) if label == 0 else (1, label - 1)
        heat[task][0, own, row, column] = torch.logit(torch.tensor(score))
        values = {0: 0.25, 1: 0.75, 2: -1.0, 3: np.log(2), 4: np.log(4), 5: np.log(1.5), 6: 0.0, 7: 1.0} | changes
        for channel, value in values.items():
            boxes[task][0, channel, row, column] = value
    return HeadMaps(heat[0], tuple(TaskMaps(h, b) for h, b in zip(heat, boxes, strict=True)))


def decoder(nms: RotatedNms | CircleNms | None = None, lower: float = -10.0) -> Decoder:
    return Decoder(GRID, (1, 2), nms or RotatedNms(0.2, 100, 10), 0.1, (lower, -10, -10), (10, 10, 10))


def test_a_cell_becomes_a_box():
    found = decoder().from_maps(maps(a=(0, 3, 5, 0.9, {6: 1.0, 7: 0.0, 8: 3.0, 9: -1.0})))[0]
    # x: (5 + 0.25) * 1 m - 4 m, y: (3 + 0.75) - 8; r = atan2(1, 0), so that the heading is -r - pi/2 = -pi
    np.testing.assert_allclose(found.rows.numpy(), [[1.25, -4.25, -1, 2, 4, 1.5, 3, -1, np.pi / 2]], rtol=1e-6)
    assert found.scores.tolist() == pytest.approx([0.9])
    boxes = boxes_from_det3d(found.rows.numpy())
    np.testing.assert_allclose(boxes.size, [[4, 2, 1.5]], rtol=1e-6)
    np.testing.assert_allclose(np.abs(boxes.yaw), [np.pi], rtol=1e-6)


def test_tasks_come_in_order_and_labels_count_through():
    found = decoder().from_maps(maps(a=(2, 0, 0, 0.8, {}), b=(1, 8, 4, 0.9, {}), c=(0, 15, 7, 0.3, {})))[0]
    assert found.labels.tolist() == [0, 1, 2]  # in the second task the better one first
    assert found.scores.tolist() == pytest.approx([0.3, 0.9, 0.8])


def test_predicted_iou_corrects_the_score_before_suppression():
    """Of two boxes in one place the one that fits better stays, though its heat is less."""
    found = maps(a=(0, 5, 4, 0.9, {}), b=(0, 6, 4, 0.8, {}), c=(1, 5, 4, 0.5, {}), d=(2, 15, 4, 0.36, {}))
    says = [torch.full((1, 1, 16, 8), 5.0), torch.full((1, 1, 16, 8), 5.0)]  # 2 * IoU - 1; beyond 1 is 1
    says[0][0, 0, 5, 4], says[0][0, 0, 6, 4], says[1][0, 0, 5, 4] = 0.0, 0.62, -3.0
    with_iou = HeadMaps(found.shared, tuple(t._replace(iou=i) for t, i in zip(found.tasks, says, strict=True)))
    judging = replace(decoder(), iou_alpha=(0.5, 0.25, 0.0))
    boxes = judging.from_maps(with_iou)[0]
    assert boxes.labels.tolist() == [0, 2, 1]
    # sqrt(0.8 * 0.81); alpha 0 leaves the score alone; an IoU of 0 is the end of a score
    assert boxes.scores.tolist() == pytest.approx([np.sqrt(0.8 * 0.81), 0.36, 0.0], abs=1e-6)
    assert boxes.rows.shape == (3, 9)
    assert boxes.rows[0, 1] == pytest.approx(6 + 0.75 - 8)
    without = judging.from_maps(found)[0]
    assert without.scores.tolist() == pytest.approx([0.9, 0.5, 0.36])


def test_suppression_is_within_a_task():
    same = {"a": (0, 5, 4, 0.9, {}), "b": (0, 6, 4, 0.8, {}), "c": (1, 5, 4, 0.7, {}), "d": (2, 6, 4, 0.6, {})}
    found = decoder().from_maps(maps(**same))[0]
    assert found.labels.tolist() == [0, 1]  # d is of another class but of c's task


def test_groups_of_classes_have_boxes_of_their_own():
    """With a group for each class, one cell gives two boxes, and neighbours of the other class stay; within a group they do not."""
    same = {"a": (1, 5, 4, 0.5, {}), "b": (2, 5, 4, 0.7, {}), "c": (1, 6, 4, 0.6, {}), "d": (2, 12, 4, 0.4, {})}
    grouped = replace(decoder(), groups=(((0,),), ((1,), (0,))))  # labels 2, then 1
    found = grouped.from_maps(maps(**same))[0]
    assert found.labels.tolist() == [2, 1, 2]
    assert found.scores.tolist() == pytest.approx([0.7, 0.6, 0.4])
    np.testing.assert_allclose(found.rows[:, 1].numpy(), [5.75 - 8, 6.75 - 8, 12.75 - 8])
    few = replace(grouped, nms=RotatedNms(0.2, 100, 2))
    assert few.from_maps(maps(**same))[0].scores.tolist() == pytest.approx([0.7, 0.6])  # the limit is the task's
    one = replace(decoder(), groups=(((0,),), ((0, 1),)))
    assert one.from_maps(maps(**same))[0].scores.tolist() == decoder().from_maps(maps(**same))[0].scores.tolist()


def test_groups_and_predicted_iou():
    found = maps(a=(1, 5, 4, 0.81, {}), b=(2, 5, 4, 0.64, {}))
    with_iou = HeadMaps(found.shared, tuple(t._replace(iou=torch.full((1, 1, 16, 8), -0.5)) for t in found.tasks))  # an IoU of 0.25
    boxes = replace(decoder(), iou_alpha=(0.5, 0.5, 0.0), groups=(((0,),), ((0,), (1,)))).from_maps(with_iou)[0]
    assert boxes.labels.tolist() == [2, 1]
    assert boxes.scores.tolist() == pytest.approx([0.64, 0.45])


def test_threshold_is_strict_and_limits_are_inclusive():
    half = torch.sigmoid(torch.logit(torch.tensor(0.5))).item()
    edge = maps(a=(0, 3, 0, 0.5, {0: 0.0}), b=(0, 9, 0, 0.9, {0: -0.001}))  # x = -4 and a little less
    strict = Decoder(GRID, (1, 2), RotatedNms(0.2, 100, 10), half, (-10, -10, -10), (10, 10, 10))
    assert strict.from_maps(edge)[0].scores.tolist() == pytest.approx([0.9])
    assert decoder(lower=-4.0).from_maps(edge)[0].scores.tolist() == pytest.approx([0.5])


@pytest.mark.parametrize(
    ("nms", "kept"),
    [
        (RotatedNms(0.2, 100, 10), [0.9, 0.7]),  # the second overlaps the first
        (RotatedNms(0.2, 2, 10), [0.9]),  # only two take part
        (RotatedNms(0.2, 100, 1), [0.9]),
        (RotatedNms(1.0, 100, 10), [0.9, 0.8, 0.7]),
        (CircleNms((1.0, 1.0), 10), [0.9, 0.7]),  # 1 m apart: dropped at the border
        (CircleNms((0.99, 0.99), 10), [0.9, 0.8, 0.7]),
        (CircleNms((40.0, 40.0), 10), [0.9, 0.7]),  # square metres: the third is 7 m from the first
        (CircleNms((49.0, 49.0), 10), [0.9]),
    ],
)
def test_suppression(nms, kept):
    found = decoder(nms).from_maps(maps(a=(0, 5, 4, 0.9, {}), b=(0, 6, 4, 0.8, {}), c=(0, 12, 4, 0.7, {})))[0]
    assert found.scores.tolist() == pytest.approx(kept)


def test_boxes_outside_the_limits_take_no_place_among_the_best():
    """max_in counts boxes within the limits: the two best lie outside, the next two take part."""
    outside = {f"o{i}": (0, i, 4, 0.9 - i / 100, {2: 50.0}) for i in range(3)}
    inside = {f"i{i}": (0, 6 + 5 * i, 4, 0.5 - i / 10, {}) for i in range(2)}
    found = decoder(RotatedNms(0.2, 2, 10)).from_maps(maps(**outside, **inside))[0]
    assert found.scores.tolist() == pytest.approx([0.5, 0.4])


def test_of_a_second_look_only_as_many_take_part_as_are_missing():
    """max_in of 2: of the two best one lies outside; of the next two, both inside, the better one completes the number."""
    cells = {"a": (0, 0, 4, 0.9, {2: 50.0}), "b": (0, 3, 4, 0.8, {}), "c": (0, 8, 4, 0.7, {}), "d": (0, 13, 4, 0.6, {})}
    found = decoder(RotatedNms(0.2, 2, 10)).from_maps(maps(**cells))[0]
    assert found.scores.tolist() == pytest.approx([0.8, 0.7])


def test_labels_count_the_classes_of_all_tasks_before():
    heat = [torch.full((1, count, 16, 8), -9.0) for count in (2, 3, 1)]
    heat[2][0, 0, 3, 3] = 2.0
    boxes = torch.zeros((1, 10, 16, 8))
    three = Decoder(GRID, (2, 3, 1), RotatedNms(0.2, 100, 10), 0.1, (-10, -10, -10), (10, 10, 10))
    assert three.from_maps(HeadMaps(boxes, tuple(TaskMaps(h, boxes) for h in heat)))[0].labels.tolist() == [5]


def test_many_equal_scores_go_by_cell():
    """A small change of the network's rounding must not shuffle the order, nor may the sort."""
    heat, boxes = torch.full((1, 1, 16, 8), 1.0), torch.zeros((1, 10, 16, 8))
    boxes[:, 3:6] = -5.0  # small boxes: none overlaps another
    one = Decoder(GRID, (1,), RotatedNms(0.2, 100, 100), 0.1, (-10, -10, -10), (10, 10, 10))
    rows = one.from_maps(HeadMaps(boxes, (TaskMaps(heat, boxes),)))[0].rows
    cell = (rows[:, 1] + 8) * 8 + rows[:, 0] + 4
    assert cell.round().int().tolist() == list(range(100))


def test_equal_scores_go_by_cell():
    found = decoder().from_maps(maps(a=(0, 9, 1, 0.5, {}), b=(0, 1, 6, 0.5, {})))[0]
    assert found.rows[:, 1].tolist() == pytest.approx([-8 + 1.75, -8 + 9.75])


def test_nothing_above_the_threshold_and_nan():
    found = decoder().from_maps(maps(a=(0, 3, 5, 0.05, {})))[0]
    assert [tuple(column.shape) for column in found] == [(0, 9), (0,), (0,)]
    broken = maps(a=(0, 3, 5, 0.9, {}))
    broken.tasks[1].heatmap[:] = torch.nan
    assert decoder().from_maps(broken)[0].labels.tolist() == [0]
