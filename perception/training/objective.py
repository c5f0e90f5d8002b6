"""What a network is trained for: the targets of its samples and the loss of its maps, with all that its settings ask for."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from perception.core.errors import UsageError, nearest_hint
from perception.detection.build import build_decoder
from perception.detection.center_point import CenterPoint
from perception.detection.config import CenterPointSettings
from perception.detection.head import HeadMaps
from perception.training.loss_settings import LossSettings
from perception.training.losses import Losses, center_loss, object_counts
from perception.training.sample import Sample
from perception.training.second_stage import second_stage_loss
from perception.training.targets import TaskTargets, make_targets


class Targets(NamedTuple):
    """Of some samples: what the head should say, one entry a task, and the samples themselves."""

    tasks: list[TaskTargets]
    samples: Sequence[Sample]


class Objective:
    """Head, IoU branch and second stage, as far as the network has them. The second stage learns from the boxes that the maps give."""

    def __init__(self, network: CenterPoint, detector: CenterPointSettings, loss: LossSettings | None = None) -> None:
        """network: built for the settings `detector`.

        Raises UsageError for a second stage that reads the neck's output and for loss.class_weights of a class that the network lacks.
        """
        if detector.second_stage is not None and detector.second_stage.features != "head":
            raise UsageError("second_stage.features: expected head, got neck: a stage that reads the neck's output cannot be trained here")
        loss, names = loss or LossSettings(), [name for task in detector.head.tasks for name in task]
        for name in loss.class_weights:
            if name not in names:
                raise UsageError(f"loss.class_weights: {name}: expected one of {', '.join(names)}{nearest_hint(name, names)}")
        self._network, self._detector, self._loss = network, detector, loss
        self._decoder = build_decoder(detector)

    def targets(self, samples: Sequence[Sample]) -> Targets:
        """See `make_targets`."""
        return Targets(make_targets(samples, self._detector, self._loss), samples)

    def loss(self, maps: HeadMaps, targets: Targets, total_of: Callable[[Tensor], Tensor] = lambda count: count) -> Losses:
        """The loss of the maps of the targets' samples; total_of: a sum over processes, see `second_stage_loss`."""
        first = center_loss(maps, targets.tasks, self._loss, counts=total_of(object_counts(targets.tasks)))
        stage = self._network.second_stage
        if stage is None:
            return first
        with torch.no_grad():
            boxes = self._decoder.from_maps(maps)
        second = second_stage_loss(stage, maps.shared, boxes, targets.samples, self._decoder.grid, self._loss, total_of=total_of)
        return Losses(first.total + second.total, first.parts | second.parts)
