"""What a network is trained on: one cloud and the boxes in it, as tensors on one device."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from perception.core.borders import boxes_to_det3d
from perception.core.classes import ClassSet
from perception.core.detections import Detections


@dataclass(frozen=True, eq=False)
class Sample:
    """One cloud and its truth, in the frame that the network is trained in.

    token       of the frame, to name it in errors
    points      (N, C) float32: x, y, z (m), intensity 0..255, age (s, 0 for the key sweep), and what more the network reads:
                16 columns with virtual points, see `virtual_points`
    boxes       (M, 9) float32, rows of det3d's: x, y, z of the middle, width, length, height (m), velocity x, y (m/s, NaN where unknown),
                yaw r, clockwise and zero where the front points to -y (`perception.core.borders`)
    labels      (M,) int64, in the order of the network's classes through all of its tasks
    num_points  (M,) int64, returns of the key sweep in each box
    origin      (3,) float32: where the lidar of the key sweep is
    """

    token: str
    points: Tensor
    boxes: Tensor
    labels: Tensor
    num_points: Tensor
    origin: Tensor

    def to(self, device: torch.device | str) -> "Sample":
        """The same on another device."""
        parts = (self.points, self.boxes, self.labels, self.num_points, self.origin)
        return Sample(self.token, *(part.to(device, non_blocking=True) for part in parts))


def sample_of(token: str, points: np.ndarray, truth: Detections, classes: ClassSet, origin: np.ndarray) -> Sample:
    """From points (N, C), objects and the lidar's place (3,) in one frame.

    Objects of classes that are not among `classes` are left out, and so are those without a return.
    """
    label = classes.labels_from(truth.classes)[truth.label]
    num_points = np.ones(len(truth), np.int64) if truth.num_points is None else truth.num_points
    keep = (label >= 0) & (num_points > 0)
    return Sample(
        token,
        torch.from_numpy(np.ascontiguousarray(points, dtype=np.float32)),
        torch.from_numpy(boxes_to_det3d(truth.boxes)[keep].astype(np.float32)),
        torch.from_numpy(label[keep].astype(np.int64)),
        torch.from_numpy(num_points[keep].astype(np.int64)),
        torch.from_numpy(np.asarray(origin, dtype=np.float32)),
    )
