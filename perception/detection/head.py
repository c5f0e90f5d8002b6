"""CenterPoint's head: per task a heat map of centres, and at every cell the rest of the box. Source: CenterPoint, section 4."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from perception.detection.deformable import DeformableConv, bordered
from perception.detection.layers import ConvNormRelu

# Regression branches and their channels, in the order in which they are stacked. Boxes are det3d's: see `decode`.
BRANCHES = {"offset": 2, "height": 1, "log_size": 3, "heading": 2, "velocity": 2}
_NORM = {"eps": 1e-5, "momentum": 0.1}
_FIRST_LOGIT = -2.19  # of an untrained heat map, a score of 0.1: most cells are empty


class TaskMaps(NamedTuple):
    """What the head says for one task.

    heatmap  (B, classes of the task, H, W)  logits of the scores
    boxes    (B, 8 or 10, H, W)  the branches, stacked in the order of `BRANCHES`: offset of the centre in its cell x, y (cells); height of
             the centre (m); log of width, length, height; sine and cosine of det3d's yaw; velocity x, y (m/s) where the head has it
    iou      (B, 1, H, W)  2 * IoU - 1 of the box with the object, as far as the head can tell; None where it has no such branch
    """

    heatmap: Tensor
    boxes: Tensor
    iou: Tensor | None = None

    @property
    def stacked(self) -> Tensor:
        """(B, 8 to 11, H, W) boxes, and iou behind them where it is."""
        return self.boxes if self.iou is None else torch.cat([self.boxes, self.iou], dim=1)


class HeadMaps(NamedTuple):
    """shared (B, C, H, W), the features that all tasks read; tasks, one `TaskMaps` each."""

    shared: Tensor
    tasks: tuple[TaskMaps, ...]


class Branch(nn.Module):
    """Two convolutions: `hidden` with normalisation and ReLU, and `out`."""

    def __init__(self, in_channels: int, hidden_channels: int, out_channels: int) -> None:
        super().__init__()
        self.hidden = ConvNormRelu(nn.Conv2d(in_channels, hidden_channels, 3, padding=1), **_NORM)
        self.out = nn.Conv2d(hidden_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.hidden(x))


class CenterHead(nn.Module):
    """A shared convolution, then the branches of each task.

    num_classes  per task
    velocity     whether boxes have one
    iou          whether a branch says how well the box fits. Source: CIA-SSD and AFDetV2
    deformable   options of `DeformableConv`: in each task one in front of the heat map and one in front of the other branches
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: Sequence[int],
        *,
        shared_channels: int = 64,
        branch_channels: int = 64,
        velocity: bool = True,
        iou: bool = False,
        deformable: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.branches = {name: channels for name, channels in BRANCHES.items() if velocity or name != "velocity"}
        self.num_classes, self.has_iou = tuple(num_classes), iou
        others = self.branches | ({"iou": 1} if iou else {})
        self.shared_channels = shared_channels
        self.shared = ConvNormRelu(nn.Conv2d(in_channels, shared_channels, 3, padding=1), **_NORM)
        self.tasks = nn.ModuleList(
            nn.ModuleDict({name: Branch(shared_channels, branch_channels, c) for name, c in (others | {"heatmap": count}).items()})
            for count in self.num_classes
        )
        self.adapt = None
        if deformable is not None:
            self.adapt = nn.ModuleList(
                nn.ModuleDict({name: DeformableConv(shared_channels, **deformable) for name in ("heatmap", "boxes")}) for _ in num_classes
            )
        self._initialise()

    def forward(self, features: Tensor) -> HeadMaps:
        """(B, C, H, W) to maps of the same height and width."""
        shared = self.shared(features)  # (B, shared_channels, H, W)
        table, tasks = None if self.adapt is None else bordered(shared), []
        for number, task in enumerate(self.tasks):
            for_heatmap, for_boxes = self._adapted(shared, table, number)
            boxes = torch.cat([task[name](for_boxes) for name in self.branches], dim=1)  # type: ignore[index]
            iou = task["iou"](for_boxes) if self.has_iou else None  # type: ignore[index]
            tasks.append(TaskMaps(task["heatmap"](for_heatmap), boxes, iou))  # type: ignore[index]
        return HeadMaps(shared, tuple(tasks))

    def _adapted(self, shared: Tensor, table: Tensor | None, task: int) -> tuple[Tensor, Tensor]:
        """What the heat map of a task reads, and what its other branches read."""
        if self.adapt is None:
            return shared, shared
        adapt: Any = self.adapt[task]
        return adapt["heatmap"](shared, table), adapt["boxes"](shared, table)

    def _initialise(self) -> None:
        for task in self.tasks:
            for name, branch in task.items():  # type: ignore[operator]
                if name == "heatmap":
                    nn.init.constant_(branch.out.bias, _FIRST_LOGIT)
                    continue
                for conv in (branch.hidden.conv, branch.out):
                    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
                    nn.init.zeros_(conv.bias)
