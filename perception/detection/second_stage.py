"""The second stage: features at five points of each box give its score and its borders once more. Source: CenterPoint, section 5."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cuda_ops import gather_bilinear
from perception.detection.decode import Boxes
from perception.detection.grid import BevGrid

_DROPOUT = 0.3
# Five points in units of width and length: the centre and the middles of the four sides, in the order of the published weights.
_POINTS = ((0.0, 0.0), (-0.5, 0.0), (0.5, 0.0), (0.0, -0.5), (0.0, 0.5))


class Dense(nn.Module):
    """A linear layer on each row, normalisation, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, out_channels, bias=False)
        self.norm: nn.Module = nn.BatchNorm1d(out_channels, eps=1e-5, momentum=0.1)

    def forward(self, rows: Tensor) -> Tensor:
        return torch.relu(self.norm(self.linear(rows)))


class RefinementBranch(nn.Module):
    """Two layers, with dropout after the first, and a linear one."""

    def __init__(self, in_channels: int, channels: Sequence[int], out_channels: int) -> None:
        super().__init__()
        self.hidden = nn.ModuleList([Dense(in_channels, channels[0]), Dense(channels[0], channels[1])])
        self.out = nn.Linear(channels[1], out_channels)
        self.dropout = nn.Dropout(_DROPOUT)

    def forward(self, rows: Tensor) -> Tensor:
        return self.out(self.hidden[1](self.dropout(self.hidden[0](rows))))


class SecondStage(nn.Module):
    """Refines the boxes of the first stage; no box is dropped and none changes its label.

    map_channels  of the map that is read
    shared, score, box  channels of the two hidden layers of each part
    velocity      whether boxes have one
    with_box      the box and its first score are features too
    """

    def __init__(
        self,
        map_channels: int,
        *,
        shared: Sequence[int] = (256, 256),
        score: Sequence[int] = (256, 256),
        box: Sequence[int] = (256, 256),
        velocity: bool = True,
        with_box: bool = True,
    ) -> None:
        super().__init__()
        self.box_channels, self.with_box = 9 if velocity else 7, with_box
        in_channels = len(_POINTS) * map_channels + (self.box_channels + 1 if with_box else 0)
        self.shared = nn.ModuleList([Dense(in_channels, shared[0]), Dense(shared[0], shared[1])])
        self.dropout = nn.Dropout(_DROPOUT)
        self.score = RefinementBranch(shared[1], score, 1)
        self.box = RefinementBranch(shared[1], box, self.box_channels)

    def forward(self, features: Tensor, rows: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """features (N, 5 * C) at the boxes' points, rows (N, 9), scores (N,) to logits of the IoU (N, 1) and residuals (N, 7 or 9).

        Residuals: x y z in the axes of the box (along its width, along its length), then w, l, h, r and velocity.
        """
        if self.with_box:
            box = rows[:, [0, 1, 2, 3, 4, 5, 8, 6, 7]][:, : self.box_channels]
            features = torch.cat([features, box, scores[:, None]], dim=1)
        x = self.shared[1](self.dropout(self.shared[0](features)))  # (N, shared)
        return self.score(x), self.box(x)


def box_points(rows: Tensor) -> Tensor:
    """(N, 5, 2) metres x, y: the centre and the middles of the sides of boxes (N, 9)."""
    offset = rows.new_tensor(_POINTS) * rows[:, None, 3:5]  # (N, 5, 2) along width, along length
    return rows[:, None, :2] + _turned(offset, rows[:, None, 8])


def point_features(feature_map: Tensor, boxes: Sequence[Boxes], grid: BevGrid) -> list[Tensor]:
    """feature_map (B, C, H, W): per sample the features (N, 5 * C) at the points of its boxes, point after point."""
    places = [box_points(sample.rows) for sample in boxes]
    xy = torch.cat(places).flatten(0, 1)  # (all N * 5, 2)
    size_x, size_y, _ = grid.voxels.voxel_size
    xy = (xy - xy.new_tensor(grid.voxels.lower[:2])) / xy.new_tensor([size_x, size_y]) / grid.stride
    counts = torch.tensor([len(place) for place in places], device=xy.device)
    sample = torch.repeat_interleave(torch.arange(len(boxes), device=xy.device), counts * len(_POINTS))
    features = gather_bilinear(feature_map, xy, sample).to(feature_map.dtype)
    return list(features.reshape(-1, len(_POINTS) * feature_map.shape[1]).split(counts.tolist()))


def refined(stage: SecondStage, feature_map: Tensor, boxes: Sequence[Boxes], grid: BevGrid) -> list[Boxes]:
    """The boxes of each sample with the second stage's borders and scores, in their order. Sizes may come out negative, r beyond pi."""
    features = point_features(feature_map, boxes, grid)
    results = []
    for rows_of_sample, (rows, scores, labels) in zip(features, boxes, strict=True):
        logit, residual = stage(rows_of_sample, rows.to(rows_of_sample.dtype), scores.to(rows_of_sample.dtype))
        logit, residual = logit.float(), residual.float()
        score = torch.sqrt(torch.sigmoid(logit[:, 0]) * scores)
        results.append(Boxes(moved(rows, residual), score, labels))
    return results


def moved(rows: Tensor, residual: Tensor) -> Tensor:
    """Boxes (N, 9) and residuals (N, 7 or 9) to boxes (N, 9): the shift is in the axes of the box, all else is added."""
    xy = rows[:, :2] + _turned(residual[:, :2], rows[:, 8])
    velocity = rows[:, 6:8] + residual[:, 7:9] if residual.shape[1] == 9 else rows[:, 6:8]
    return torch.cat([xy, rows[:, 2:6] + residual[:, 2:6], velocity, rows[:, 8:] + residual[:, 6:7]], dim=1)


def _turned(offset: Tensor, r: Tensor) -> Tensor:
    """offset (..., 2) along width and length of boxes with det3d's yaw r (...), as x, y."""
    c, s = torch.cos(r), torch.sin(r)
    along_width, along_length = offset[..., 0], offset[..., 1]
    return torch.stack([along_width * c + along_length * s, -along_width * s + along_length * c], dim=-1)
