"""Double flip: detect in four mirrored views of a cloud and average the maps before boxes are read. Source: CenterPoint, `test_aug.py`."""

from collections.abc import Sequence

import torch
from torch import Tensor

from perception.detection.decode import Boxes, Decoder, boxes_of, with_iou
from perception.detection.head import HeadMaps, TaskMaps

NUM_VIEWS = 4


def mirrored(clouds: Sequence[Tensor]) -> list[Tensor]:
    """Of each cloud four views, one after another: as it is, y -> -y, x -> -x, both."""
    return [cloud * _signs(cloud, view) for cloud in clouds for view in range(NUM_VIEWS)]


def merged_boxes(decoder: Decoder, maps: HeadMaps) -> list[Boxes]:
    """Boxes of the samples whose four views the maps hold, one after another."""
    merged = [merged_maps(task) for task in maps.tasks]
    width = maps.shared.shape[3]

    def rows(task: int, sample: int, cells: Tensor) -> Tensor:
        b = merged[task].boxes[sample].flatten(1)[:, cells].t()  # (N, 8 or 10)
        found = boxes_of(b[:, :3], b[:, 3:6], b[:, 6:8], b[:, 8:], cells, width, decoder.grid)
        iou = merged[task].iou
        return found if iou is None else with_iou(found, iou[sample].flatten(1)[:, cells].t())

    return decoder.from_scores([task.heatmap for task in merged], rows)


def merged_maps(maps: TaskMaps) -> TaskMaps:
    """Maps of 4 * B views to B: heatmap the mean SCORE; boxes the mean of offset, height, SIZE (metres), sine, cosine and velocity; iou
    the mean."""
    heatmap = _unflipped(maps.heatmap.float().sigmoid()).mean(dim=1)
    boxes = torch.cat([maps.boxes[:, :3], maps.boxes[:, 3:6].exp(), maps.boxes[:, 6:]], dim=1).float()
    boxes = _unflipped(boxes).clone()  # (B, 4, C, H, W)
    for views, offset, heading, velocity in (((1, 3), 1, 7, 9), ((2, 3), 0, 6, 8)):  # y -> -y: cosine changes sign; x -> -x: sine
        for view in views:
            boxes[:, view, offset] = 1 - boxes[:, view, offset]  # the mirrored cell begins at its other side
            boxes[:, view, heading] *= -1
            boxes[:, view, velocity : velocity + 1] *= -1  # nothing where boxes have no velocity
    return TaskMaps(heatmap, boxes.mean(dim=1), None if maps.iou is None else _unflipped(maps.iou.float()).mean(dim=1))


def _unflipped(maps: Tensor) -> Tensor:
    """(4 * B, C, H, W) to (B, 4, C, H, W) with rows and columns in the order of the first view."""
    views = maps.unflatten(0, (-1, NUM_VIEWS)).unbind(dim=1)
    return torch.stack([views[0], views[1].flip(-2), views[2].flip(-1), views[3].flip((-2, -1))], dim=1)


def _signs(cloud: Tensor, view: int) -> Tensor:
    signs = torch.ones(cloud.shape[1], dtype=cloud.dtype, device=cloud.device)
    signs[0], signs[1] = (-1.0 if view in (2, 3) else 1.0), (-1.0 if view in (1, 3) else 1.0)
    return signs
