"""A small network and clouds to train it on, in code; stand-ins for targets and loss that can be worked out by hand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from perception.detection.build import build_network
from perception.detection.center_point import CenterPoint
from perception.detection.config import CenterPointSettings
from perception.detection.head import HeadMaps
from perception.training.loop import Loop, Parts
from perception.training.loop_settings import LoopSettings
from perception.training.objective import Objective
from perception.training.processes import Processes
from perception.training.sample import Sample
from tests.detection.small import cloud, small_config


def sample(number: int, *, points: int = 400) -> Sample:
    """A cloud around the lidar with one car and, in even ones, a pedestrian."""
    rng = np.random.default_rng(number)
    boxes = np.zeros((2, 9), np.float32)
    boxes[:, :2] = rng.uniform(-5, 5, (2, 2))
    boxes[:, 3:6] = [[2, 4.5, 1.6], [0.7, 0.7, 1.8]]
    count = 2 - number % 2
    return Sample(
        f"sample {number}",
        torch.from_numpy(cloud(points + 10 * number, seed=number)),
        torch.from_numpy(boxes[:count]),
        torch.tensor([0, 3])[:count],
        torch.full((count,), 10),
        torch.zeros(3),
    )


@dataclass
class FixedFeed:
    """The samples 0, 1, 2, ... over and over; the processes take turns."""

    batch_size: int
    rank: int = 0
    world_size: int = 1
    count: int = 6
    steps_per_epoch: int | None = 3
    wait_seconds: float = 0.0
    asked: list[int] = field(default_factory=list)

    def batch(self, step: int) -> list[Sample]:
        self.asked.append(step)
        first = step * self.batch_size
        return [sample((first + i) % self.count) for i in range(self.rank, self.batch_size, self.world_size)]


def shaken(samples: Sequence[Sample], rngs: Sequence[np.random.Generator], progress: float) -> list[Sample]:
    """The points moved by a centimetre or so: an augmentation."""
    noise = [rng.normal(0, 0.01, tuple(sample.points.shape)).astype(np.float32) for sample, rng in zip(samples, rngs, strict=True)]
    return [replace(sample, points=sample.points + torch.from_numpy(shift)) for sample, shift in zip(samples, noise, strict=True)]


def unchanged(samples: Sequence[Sample], _rngs: Sequence[np.random.Generator], _progress: float) -> list[Sample]:
    """No augmentation."""
    return list(samples)


@dataclass
class SquareLoss:
    total: Tensor
    parts: dict[str, Tensor]


def object_counts(samples: Sequence[Sample]) -> Tensor:
    return torch.tensor([sum(len(sample.boxes) for sample in samples)], dtype=torch.float64)


def square_loss(maps: HeadMaps, targets: Tensor, total_of: Callable[[Tensor], Tensor]) -> SquareLoss:
    """Squares of all maps over the number of objects in the batch of all processes."""
    count = total_of(targets)[0]
    heat = sum((task.heatmap**2).sum() for task in maps.tasks) / count / 1000
    box = sum(((task.boxes - 1) ** 2).sum() for task in maps.tasks) / count / 1000
    return SquareLoss(heat + box, {"heatmap": heat.detach(), "box": box.detach()})  # type: ignore[union-attr, arg-type]


def small_detector(**changes: Any) -> CenterPointSettings:
    return small_config().detector.model_copy(update=changes)


def small_network(seed: int = 0, *, double: bool = False) -> CenterPoint:
    torch.manual_seed(seed)
    network = build_network(small_detector())
    if double:
        voxelize: Any = network.reader.voxelize
        network = network.double()
        network.reader.voxelize = lambda clouds: (found := voxelize(clouds))._replace(points=found.points.double())
    return network


def small_loop(
    processes: Processes | None = None,
    *,
    feed: Any = None,
    parts: dict[str, Any] | None = None,
    published: bool = False,
    scaled: bool = False,
    double: bool = False,
    **settings: Any,
) -> Loop:
    """A loop of 6 steps with batches of 2.

    published  with the real targets and losses; double: all in float64; scaled: with float16's scaler, whose arithmetic takes minutes here
    """
    processes = processes or Processes()
    values: dict[str, Any] = {"steps": 6, "batch_size": 2, "log_every": 2, "precision": "float32", **settings}
    loop_settings = LoopSettings.model_validate(values)
    feed = feed or FixedFeed(loop_settings.batch_size, processes.rank, processes.count)
    network, chosen = small_network(double=double), {"targets": object_counts, "loss": square_loss} | (parts or {})
    if published:
        objective = Objective(network, small_detector())
        chosen |= {"targets": objective.targets, "loss": objective.loss}
    loop = Loop(network, Parts(**{"feed": feed, "augment": shaken} | chosen), loop_settings, processes)
    if scaled:
        loop._scaler = torch.amp.GradScaler("cpu")
    return loop
