"""The samples of a batch one behind the other, so that an operation serves them all."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from perception.detection.voxels import joined
from perception.training.sample import Sample
from perception.training.upload import placed


@dataclass(frozen=True, eq=False)
class SampleBatch:
    """B samples of one device: N points and M boxes, those of the first sample first. Fields are those of `Sample`.

    tokens        B
    points        (N, C) float32
    boxes         (M, 9) float32
    labels        (M,) int64
    num_points    (M,) int64, returns in each box
    origin        (B, 3) float32
    point_counts  B numbers with sum N
    box_counts    B numbers with sum M
    """

    tokens: list[str]
    points: Tensor
    boxes: Tensor
    labels: Tensor
    num_points: Tensor
    origin: Tensor
    point_counts: list[int]
    box_counts: list[int]

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> "SampleBatch":
        """At least one sample. Parts that lie one behind the other, as `samples` gives them, are not copied."""
        return cls(
            [sample.token for sample in samples],
            joined([sample.points for sample in samples]),
            joined([sample.boxes for sample in samples]),
            joined([sample.labels for sample in samples]),
            joined([sample.num_points for sample in samples]),
            joined([sample.origin for sample in samples]).view(len(samples), 3),
            [len(sample.points) for sample in samples],
            [len(sample.boxes) for sample in samples],
        )

    def placed(self, device: torch.device) -> "SampleBatch":
        """A batch of the CPU on a device, without waiting for what the device is at."""
        names = ("points", "boxes", "labels", "num_points", "origin")
        return replace(self, **{name: placed(getattr(self, name), device) for name in names})

    def samples(self) -> list[Sample]:
        """One by one; their tensors are parts of the batch's."""
        boxes = (torch.split(tensor, self.box_counts) for tensor in (self.boxes, self.labels, self.num_points))
        parts = zip(self.tokens, torch.split(self.points, self.point_counts), *boxes, self.origin.unbind(), strict=True)
        return [Sample(*part) for part in parts]
