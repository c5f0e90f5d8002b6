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
    def changes_nothing(self) -> bool:
        return bool((self.matrix == np.eye(3)).all() and (self.shift == 0).all())

    def points(self, xyz: Tensor) -> Tensor:
        """(3, N) float32 of points (3, N).

        Not a product of matrices, which a GPU may be set to round to three digits (TF32).
        """
        columns = np.column_stack([self.matrix, self.shift]).astype(np.float32)
        x, y, z, shift = torch.from_numpy(columns).to(xyz.device, non_blocking=True).split(1, dim=1)  # (3, 1) each
        return torch.addcmul(shift, xyz[0], x).addcmul_(xyz[1], y).addcmul_(xyz[2], z)

    def boxes(self, rows: Tensor) -> Tensor:
        """det3d rows (M, 9) of det3d rows. Boxes stay upright: a tilt moves their middles only. NaN velocities stay NaN."""
        (a, b), (c, d) = self.plane.tolist()
        vx, vy = rows[:, 6], rows[:, 7]
        yaw = torch.remainder(rows[:, 8] * self.yaw_sign + (self.yaw_offset + np.pi), 2 * np.pi) - np.pi
        velocity_yaw = torch.stack([vx * a + vy * b, vx * c + vy * d, yaw], dim=1)
        return torch.cat([self.points(rows[:, :3].t()).t(), rows[:, 3:6] * self.scale, velocity_yaw], dim=1)


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
