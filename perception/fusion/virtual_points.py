"""Virtual points: pixels of an object's mask, as far away as the nearest return of the lidar from the same object.

Source: "Multimodal Virtual Point 3D Detection" (MVP), section 4, and its public code.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from cuda_ops import nearest_in_group
from perception.core.classes import ClassSet
from perception.core.errors import DataError, UsageError
from perception.core.pointcloud import PointCloud
from perception.fusion.calibration import CameraView
from perception.fusion.instances import Instances
from perception.fusion.members import MaskIndex, Members, draw_ranks

# The order of the class columns, as the published networks learned them.
MVP_CLASSES = ClassSet(
    ("car", "truck", "construction_vehicle", "bus", "trailer", "barrier", "motorcycle", "bicycle", "pedestrian", "traffic_cone")
)
NUM_CLASSES = len(MVP_CLASSES)


class Draw(NamedTuple):
    """The pixels that become virtual points, P of them, and what is needed to know of the I instances and C cameras.

    pixel     (P, 2) int64   column, row
    instance  (P,) int64     of each pixel
    column    (I,) int64     of `MVP_CLASSES`
    score     (I,) float32
    camera    (I,) int64
    rays      (C, 3, 3), origin (C, 3)  float64, see `_rays`
    """

    pixel: np.ndarray
    instance: np.ndarray
    column: np.ndarray
    score: np.ndarray
    camera: np.ndarray
    rays: np.ndarray
    origin: np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class VirtualPoints:
    """What the cameras add to a cloud, in its own lidar frame. Arrays of NumPy, or tensors where the cloud was one.

    virtual           (V, 14) float32  x, y, z; ten columns of `MVP_CLASSES`, one of them 1; score. By camera, instance, draw
    virtual_instance  (V,) int64       which instance each is of, counted over the cameras in their order
    painted           (F, 15) float32  x, y, z, intensity; classes; score: the points in masks. Seen in two cameras as two classes, a point
                                       has both, and the larger score
    painted_row       (F,) int64       their rows in the cloud, ascending
    """

    virtual: Any
    virtual_instance: Any
    painted: Any
    painted_row: Any

    def __repr__(self) -> str:
        return f"VirtualPoints({len(self.virtual)} virtual, {len(self.painted)} painted)"


def virtual_points(
    cloud: Any,
    instances: Mapping[str, Instances],
    calibration: Mapping[str, CameraView],
    num: int = 50,
    *,
    seed: int | Sequence[int] = 0,
    ranks: np.ndarray | None = None,
) -> VirtualPoints:
    """Draw `num` pixels of each instance that a point of the cloud lies in, and place each at the depth of the nearest such point.

    cloud        one turn of the lidar in its own frame: a `PointCloud`, or (N, 4 or more) float32 x, y, z, intensity, NumPy or torch on
                 any device
    instances    by camera. A camera without an entry adds nothing
    calibration  by camera, in the order in which the cameras count (`camera_views`)
    num          pixels drawn of each instance, without replacement; of a mask with fewer, the first one drawn is repeated
    seed         of the draw: the same seed, instances and number give the same pixels on every device, whatever the cloud
    ranks        (R, num) int: the pixels themselves in place of a draw, for each of the R instances that have any, counted by column, then
                 row

    Where masks of a camera overlap, a point belongs to the first instance; one whose points all belong to others, or that has none, gives
    no virtual points, and neither does an empty mask. Equally near points: the first of the cloud. Depth knows no limit within an
    instance. Points behind a camera are not seen by it. Raises DataError for masks of another size than the camera's picture, cameras
    without calibration and damaged masks; UsageError for a number below 1.
    """
    if not isinstance(num, (int, np.integer)) or isinstance(num, bool) or num < 1:
        raise UsageError(f"virtual_points: num: expected 1 or more, got {num!r}")
    torch: Any = sys.modules.get("torch")  # a tensor has loaded it
    is_tensor = torch is not None and isinstance(cloud, torch.Tensor)
    points: Any = cloud if is_tensor else cloud.points if isinstance(cloud, PointCloud) else np.asarray(cloud)
    if points.ndim != 2 or points.shape[1] < 4 or str(points.dtype).removeprefix("torch.") != "float32":
        raise DataError(f"cloud: expected shape (N, 4 or more) float32, got {tuple(points.shape)} {points.dtype}")
    names = _cameras(instances, calibration)
    views = [calibration[name] for name in names]
    index = MaskIndex([instances[name] for name in names])
    classes = instances[names[0]].classes if names else MVP_CLASSES
    column = MVP_CLASSES.labels_from(classes)[index.label]
    if ranks is None:
        ranks = draw_ranks(index.area, int(num), np.random.default_rng(seed))
    pixels, of_pixel = index.pixels(np.asarray(ranks, np.int64)), np.repeat(np.flatnonzero(index.area), np.shape(ranks)[1])
    rays, origin = _rays(views)
    draw = Draw(pixels.reshape(-1, 2), of_pixel, column, index.score.astype(np.float32), index.camera, rays, origin)
    if is_tensor and points.device.type != "cpu":
        from perception.fusion import on_gpu

        return VirtualPoints(*on_gpu.fused(points, index, views, draw))
    rows = points.detach().numpy() if is_tensor else points
    members = index.members(rows, views)
    parts = (*_virtual(members, draw), *_painted(rows, members, draw))
    return VirtualPoints(*(sys.modules["torch"].from_numpy(part) if is_tensor else part for part in parts))


def _cameras(instances: Mapping[str, Instances], calibration: Mapping[str, CameraView]) -> list[str]:
    """Names of the cameras that show anything, in the order of the calibration."""
    for name, shown in instances.items():
        if name not in calibration:
            raise DataError(f"instances of {name}: expected one of the calibrated cameras {', '.join(calibration) or '(none)'}")
        if shown.size != tuple(calibration[name].size):
            (width, height), (w, h) = calibration[name].size, shown.size
            raise DataError(f"instances of {name}: expected masks of {width} x {height} pixels, as its pictures have, got {w} x {h}")
    names = [name for name in calibration if name in instances and len(instances[name])]
    other = next((name for name in names if instances[name].classes != instances[names[0]].classes), None)
    if other is not None:
        raise DataError(f"instances of {other}: expected the classes of {names[0]}, got others")
    return names


def _rays(views: Sequence[CameraView]) -> tuple[np.ndarray, np.ndarray]:
    """(C, 3, 3), (C, 3): a pixel (u, v, 1) times its depth times the first, plus the second, is the point in the lidar frame.

    The integer corner of the pixel, as published, not its middle.
    """
    turn = [view.lidar_to_camera.rotation.T for view in views]
    rays = [r @ _inverse(view.intrinsics) for r, view in zip(turn, views, strict=True)]
    origin = [-r @ view.lidar_to_camera.translation for r, view in zip(turn, views, strict=True)]
    return np.array(rays).reshape(-1, 3, 3), np.array(origin).reshape(-1, 3)


def _inverse(matrix: np.ndarray) -> np.ndarray:
    """Of a matrix (3, 3), without LAPACK: OpenBLAS wakes all threads for it, and these then spin where ours want to work."""
    a, b, c = matrix
    columns = np.array([np.cross(b, c), np.cross(c, a), np.cross(a, b)])
    return columns.T / (a @ columns[0])


def _virtual(members: Members, draw: Draw) -> tuple[np.ndarray, np.ndarray]:
    """The virtual points (V, 14), and the instance of each."""
    nearest = nearest_in_group(draw.pixel.astype(np.float64), draw.instance, members.pixel.astype(np.float64), members.instance).index
    kept = nearest >= 0
    pixel, instance, nearest = draw.pixel[kept], draw.instance[kept], nearest[kept]
    camera = draw.camera[instance]
    ray, (u, v) = draw.rays[camera], pixel.astype(np.float64).T
    xyz = members.depth[nearest, None] * (ray[..., 0] * u[:, None] + ray[..., 1] * v[:, None] + ray[..., 2]) + draw.origin[camera]
    virtual = np.zeros((len(xyz), 4 + NUM_CLASSES), np.float32)
    virtual[:, :3] = xyz
    virtual[np.arange(len(xyz)), 3 + draw.column[instance]] = 1.0
    virtual[:, -1] = draw.score[instance]
    return virtual, instance


def _painted(points: np.ndarray, members: Members, draw: Draw) -> tuple[np.ndarray, np.ndarray]:
    """The points in masks (F, 15), and their rows."""
    is_first = np.ones(len(members.point), bool)  # of its point: members are ordered by point
    is_first[1:] = members.point[1:] != members.point[:-1]
    first = np.flatnonzero(is_first)
    row, place = members.point[first], np.cumsum(is_first) - 1
    painted = np.zeros((len(row), 5 + NUM_CLASSES), np.float32)
    painted[:, :4] = points[row, :4]
    painted[place, 4 + draw.column[members.instance]] = 1.0
    if len(row):
        painted[:, -1] = np.maximum.reduceat(draw.score[members.instance], first)
    return painted, row
