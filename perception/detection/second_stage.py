"""The second stage: features at five points of each box give its score and its borders once more. Source: CenterPoint, section 5."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cuda_ops import gather_bilinear
from perception.detection.decode import Boxes
from perception.detection.grid import BevGrid

_DROPOUT = 0.3
_NUM_POINTS = 5


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
        in_channels = _NUM_POINTS * map_channels + (self.box_channels + 1 if with_box else 0)
        self.shared = nn.ModuleList([Dense(in_channels, shared[0]), Dense(shared[0], shared[1])])
        self.dropout = nn.Dropout(_DROPOUT)
        self.score = RefinementBranch(shared[1], score, 1)
        self.box = RefinementBranch(shared[1], box, self.box_channels)

    def forward(self, features: Tensor, rows: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """features (N, 5 * C) at the boxes' points, rows (N, 9), scores (N,) to logits of the IoU (N, 1) and residuals (N, 7 or 9).

        Residuals: x y z in the axes of the box (along its width, along its length), then w, l, h, r and velocity.
        """
        if self.with_box:
            box = torch.cat([rows[:, :6], rows[:, 8:], rows[:, 6:8]], dim=1)[:, : self.box_channels]
            features = torch.cat([features, box, scores[:, None]], dim=1)
        x = self.shared[1](self.dropout(self.shared[0](features)))  # (N, shared)
        return self.score(x), self.box(x)


def box_points(rows: Tensor) -> Tensor:
    """(N, 5, 2) metres x, y: the centre and the middles of the sides of boxes (N, 9), in the order of the published weights."""
    width, length = rows[:, 3] / 2, rows[:, 4] / 2
    zero = torch.zeros_like(width)
    along_width, along_length = torch.stack([zero, -width, width, zero, zero], 1), torch.stack([zero, zero, zero, -length, length], 1)
    offset = torch.stack([along_width, along_length], dim=2)  # (N, 5, 2)
    return rows[:, None, :2] + _turned(offset, rows[:, None, 8])


def point_features(feature_map: Tensor, boxes: Sequence[Boxes], grid: BevGrid) -> list[Tensor]:
    """feature_map (B, C, H, W): per sample the features (N, 5 * C) at the points of its boxes, point after point."""
    counts = [len(sample.rows) for sample in boxes]
    device = feature_map.device
    sample = torch.repeat_interleave(torch.arange(len(boxes), device=device), torch.tensor(counts, device=device))
    return list(_features_at(feature_map, torch.cat([sample.rows for sample in boxes]), sample, grid).split(counts))


def _features_at(feature_map: Tensor, rows: Tensor, sample: Tensor, grid: BevGrid) -> Tensor:
    """(N, 5 * C) of boxes (N, 9) of samples (N,)."""
    axes = zip(box_points(rows).flatten(0, 1).unbind(dim=1), grid.voxels.lower, grid.voxels.voxel_size, strict=False)
    xy = torch.stack([(place - low) / size / grid.stride for place, low, size in axes], dim=1)  # (N * 5, 2)
    features = gather_bilinear(feature_map, xy, sample[:, None].expand(-1, _NUM_POINTS).flatten()).to(feature_map.dtype)
    return features.reshape(-1, _NUM_POINTS * feature_map.shape[1])


def refined(stage: SecondStage, feature_map: Tensor, boxes: Sequence[Boxes], grid: BevGrid) -> list[Boxes]:
    """The boxes of each sample with the second stage's borders and scores, in their order. Sizes may come out negative, r beyond pi."""
    features = point_features(feature_map, boxes, grid)
    results = []
    for rows_of_sample, (rows, scores, labels) in zip(features, boxes, strict=True):
        results.append(Boxes(*_refined(stage, rows_of_sample, rows, scores), labels))
    return results


def refined_rows(
    stage: SecondStage, feature_map: Tensor, rows: Tensor, scores: Tensor, sample: Tensor, grid: BevGrid
) -> tuple[Tensor, Tensor]:
    """As `refined` for rows (N, 9) and scores (N,) of samples (N,): nothing waits for a count."""
    return _refined(stage, _features_at(feature_map, rows, sample, grid), rows, scores)


def _refined(stage: SecondStage, features: Tensor, rows: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    logit, residual = stage(features, rows.to(features.dtype), scores.to(features.dtype))
    logit, residual = logit.float(), residual.float()
    return moved(rows, residual), torch.sqrt(torch.sigmoid(logit[:, 0]) * scores)


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
