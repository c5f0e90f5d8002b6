"""A scene moved as a whole: mirrored, turned, scaled, shifted, tilted, all in one matrix that points and boxes go through once.

Source: CenterPoint's augmentation (det3d `pipelines/preprocess.py`, `core/sampler/preprocess.py`), in its order.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from perception.training.augment_settings import AugmentSettings


@dataclass(frozen=True, eq=False)
class Placement:
    """Where a scene goes. Numbers of the host, drawn once a sample.

    matrix       (3, 3) float64, what points and middles of boxes are multiplied with
    shift        (3,) float64 metres, added to them then
    plane        (2, 2) float64, what velocities are multiplied with: `matrix` without the tilt
    scale        of sizes
    yaw_sign     -1 for a mirrored scene: det3d's angle r becomes yaw_sign * r + yaw_offset
    yaw_offset   radians
    """

    matrix: np.ndarray
    shift: np.ndarray
    plane: np.ndarray
    scale: float
    yaw_sign: float
    yaw_offset: float

    @property
    def numbers(self) -> np.ndarray:
        """(19,) float32, the rows of `placed_points` and `placed_boxes`."""
        columns = np.column_stack([self.matrix, self.shift]).T.ravel()  # what a step along x, y and z becomes, and the shift
        return np.array([*columns, *self.plane.T.ravel(), self.scale, self.yaw_sign, self.yaw_offset + np.pi], np.float32)


def placed_points(xyz: Tensor, numbers: Tensor) -> Tensor:
    """(3, N) float32 of points (3, N), each with the first rows (12 or more, N) or (12 or more, 1) of its sample's `Placement.numbers`.

    Not a product of matrices, which a GPU may be set to round to three digits (TF32).
    """
    along_x, along_y, along_z, shift = numbers[:12].view(4, 3, -1).unbind()
    x, y, z = xyz.unbind()
    return torch.addcmul(shift, x, along_x).addcmul_(y, along_y).addcmul_(z, along_z)


def placed_boxes(rows: Tensor, numbers: Tensor) -> Tensor:
    """det3d rows (M, 9) of det3d rows, each with its sample's numbers (19, M) or (19, 1). A tilt moves middles only. NaN stays NaN."""
    along_x, along_y = numbers[12:16].view(2, 2, -1).unbind()
    scale, yaw_sign, yaw_offset = numbers[16:].unbind()
    velocity = (rows[:, 6] * along_x).addcmul_(rows[:, 7], along_y)  # (2, M)
    yaw = torch.addcmul(yaw_offset, rows[:, 8], yaw_sign).remainder_(2 * np.pi).sub_(np.pi)
    moved = torch.cat([placed_points(rows[:, :3].t(), numbers), rows[:, 3:6].t() * scale, velocity, yaw[None]])
    return moved.t().contiguous()


def may_place(settings: AugmentSettings) -> bool:
    """Whether any sample's placement can be another one than its own."""
    chances = (settings.flip_x, settings.flip_y, settings.rotation, *settings.translation, settings.height, settings.tilt)
    return any(chances) or settings.scale != (1.0, 1.0)


def draw_placement(settings: AugmentSettings, rng: np.random.Generator) -> Placement:
    """Flips of y, then x, rotation, scale, translation as published; the tilt is that of the road under the moved scene."""
    flip_y, flip_x = rng.random() < settings.flip_y, rng.random() < settings.flip_x
    angle = rng.uniform(-1, 1) * settings.rotation
    scale = rng.uniform(*settings.scale)
    shift = rng.normal(size=3) * settings.translation
    shift[2] += rng.uniform(-1, 1) * settings.height
    pitch, roll = rng.uniform(-1, 1, 2) * settings.tilt
    cosine, sine = np.cos(angle), np.sin(angle)
    flip = np.array([-1.0 if flip_x else 1.0, -1.0 if flip_y else 1.0])
    plane = scale * np.array([[cosine, -sine], [sine, cosine]]) * flip
    matrix = np.diag([0.0, 0.0, scale])
    matrix[:2, :2] = plane
    # r is clockwise: y -> -y makes pi - r of it, x -> -x makes -r, and a turn by `angle` (counter-clockwise) r - angle.
    yaw_sign = float(flip.prod())
    yaw_offset = (np.pi if flip_y else 0.0) - angle
    return Placement(_tilt(pitch, roll) @ matrix, shift, plane, scale, yaw_sign, yaw_offset)


def _tilt(pitch: float, roll: float) -> np.ndarray:
    """(3, 3): about y, then about x. Exactly the unit matrix for no tilt."""
    about_y = np.array([[np.cos(pitch), 0, np.sin(pitch)], [0, 1, 0], [-np.sin(pitch), 0, np.cos(pitch)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(roll), -np.sin(roll)], [0, np.sin(roll), np.cos(roll)]])
    return about_x @ about_y
