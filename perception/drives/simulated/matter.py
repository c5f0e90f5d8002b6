"""What the simulated world is made of: the shapes that rays meet, and what their surfaces give back."""

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from cuda_ops import Kind, Primitives, ray_tree

SCENERY = -1  # owner of what belongs to no object


@dataclass(frozen=True, eq=False)
class Matter:
    """P shapes with their surfaces, in one frame (x forward, y left, z up for the parts of an object; metres).

    shapes        `cuda_ops.Primitives` of P rows, NumPy
    reflectivity  (P,) float32    what a lidar reads at normal incidence nearby, 0..255: cars 1 - 45, signs 200 - 255
    color         (P, 3) uint8    red, green, blue of the surface in daylight
    owner         (P,) int32      which object of the scene the shape belongs to, else SCENERY
    gloss         (P,) float32    0 rough .. 1 a mirror: the share of the answer that is seen only near normal incidence, as of car paint
    """

    shapes: Primitives
    reflectivity: np.ndarray
    color: np.ndarray
    owner: np.ndarray
    gloss: np.ndarray

    def __len__(self) -> int:
        return len(self.shapes)

    def on(self, device: str | None) -> tuple[Primitives, Any]:
        """The shapes where rays are cast, and their tree: NumPy arrays without a device, else torch tensors on it. Made once."""
        if device not in self._on:
            shapes = self.shapes if device is None else self.shapes.to(device)
            self._on[device] = shapes, ray_tree(shapes)
        return self._on[device]

    @cached_property
    def _on(self) -> dict[str | None, tuple[Primitives, Any]]:
        return {}

    @cached_property
    def is_volume(self) -> np.ndarray:
        """(P,) bool: leaves and the like, which have no surface."""
        return np.isin(self.shapes.kind, (Kind.BOX_VOLUME, Kind.ELLIPSOID_VOLUME))

    @staticmethod
    def of(
        shapes: Primitives,
        reflectivity: float | np.ndarray,
        color: tuple[int, int, int] | np.ndarray = (128, 128, 128),
        owner: int | np.ndarray = SCENERY,
        gloss: float | np.ndarray = 0.0,
    ) -> "Matter":
        """Shapes that share a surface, or have one each."""
        count = len(shapes)
        return Matter(
            shapes,
            np.array(np.broadcast_to(reflectivity, (count,)), np.float32),
            np.array(np.broadcast_to(color, (count, 3)), np.uint8),
            np.array(np.broadcast_to(owner, (count,)), np.int32),
            np.array(np.broadcast_to(gloss, (count,)), np.float32),
        )

    @staticmethod
    def concatenate(*parts: "Matter") -> "Matter":
        """All shapes of all parts, in their order."""
        if not parts:
            return Matter.of(Primitives.concatenate(), 0.0)
        columns = {f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Matter) if f.name != "shapes"}
        return Matter(Primitives.concatenate(*[part.shapes for part in parts]), **columns)

    def owned_by(self, owner: int) -> "Matter":
        return replace(self, owner=np.full(len(self), owner, np.int32))

    def moved(self, yaw: float | np.ndarray, offset: np.ndarray) -> "Matter":
        """Turned by `yaw` about z, then shifted by `offset` (3,); or each shape on its own: yaw (P,), offset (P, 3).

        Shapes stay upright: on a slope they stand on the ground but do not lean with it.
        """
        s, cos, sin = self.shapes, np.cos(yaw), np.sin(yaw)

        def turned(xyz: np.ndarray) -> np.ndarray:
            return np.stack([cos * xyz[:, 0] - sin * xyz[:, 1], sin * xyz[:, 0] + cos * xyz[:, 1], xyz[:, 2]], axis=1)

        is_plane = s.kind == Kind.PLANE
        center = (turned(s.center.astype(np.float64)) + offset).astype(np.float32)
        new_yaw = np.where(is_plane, s.yaw, s.yaw + yaw).astype(np.float32)
        normal = turned(s.normal.astype(np.float64)).astype(np.float32)
        return replace(self, shapes=s.posed(center, new_yaw, normal))

    def taken(self, rows: np.ndarray) -> "Matter":
        """The shapes at `rows`: a mask or row numbers."""
        own = {f.name: getattr(self, f.name)[rows] for f in fields(Matter) if f.name != "shapes"}
        return Matter(self.shapes[rows], **own)
