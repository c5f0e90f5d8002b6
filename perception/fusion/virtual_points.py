"""Virtual points: pixels of an object's mask, as far away as the nearest return of the lidar from the same object.

Source: "Multimodal Virtual Point 3D Detection" (MVP), section 4, and its public code.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cuda_ops import nearest_in_group
from perception.core.classes import ClassSet
from perception.core.errors import DataError, UsageError, require_package
from perception.core.pointcloud import PointCloud
from perception.fusion.calibration import CameraView
from perception.fusion.instances import Instances
from perception.fusion.members import MaskIndex, Members, draw_ranks

if TYPE_CHECKING:
    from torch import Tensor

# The order of the class columns, as the published networks learned them.
MVP_CLASSES = ClassSet(
    ("car", "truck", "construction_vehicle", "bus", "trailer", "barrier", "motorcycle", "bicycle", "pedestrian", "traffic_cone")
)
_NUM_CLASSES = len(MVP_CLASSES)


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
    torch = require_package("torch", extra="fusion", why="fusion")
    if not isinstance(num, (int, np.integer)) or isinstance(num, bool) or num < 1:
        raise UsageError(f"virtual_points: num: expected 1 or more, got {num!r}")
    is_tensor = isinstance(cloud, torch.Tensor)
    points = cloud if is_tensor else torch.from_numpy(_rows_of(cloud))
    if points.ndim != 2 or points.shape[1] < 4 or points.dtype != torch.float32:
        raise DataError(f"cloud: expected shape (N, 4 or more) float32, got {tuple(points.shape)} {points.dtype}")
    names = _cameras(instances, calibration)
    views = [calibration[name] for name in names]
    index = MaskIndex([instances[name] for name in names])
    members = index.members(points, views)
    classes = instances[names[0]].classes if names else MVP_CLASSES
    column = torch.from_numpy(MVP_CLASSES.labels_from(classes)[index.label])
    score = torch.from_numpy(index.score.astype(np.float32))
    column, score = column.to(points.device), score.to(points.device)
    if ranks is None:
        ranks = draw_ranks(index.area, int(num), np.random.default_rng(seed))
    virtual, of_instance = _virtual(members, index, views, np.asarray(ranks, np.int64), column, score)
    painted, row = _painted(points, members, column, score)
    parts = (virtual, of_instance, painted, row)
    return VirtualPoints(*(parts if is_tensor else (part.numpy() for part in parts)))


def _rows_of(cloud: Any) -> np.ndarray:
    points = cloud.points if isinstance(cloud, PointCloud) else np.asarray(cloud)
    if points.dtype != np.float32:
        raise DataError(f"cloud: expected dtype float32, got {points.dtype}")
    # torch can neither take what runs backwards nor what must not be written to
    return points if points.flags.writeable and min(points.strides, default=0) >= 0 else points.copy()


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


def _virtual(
    members: Members, index: MaskIndex, views: Sequence[CameraView], ranks: np.ndarray, column: "Tensor", score: "Tensor"
) -> tuple["Tensor", "Tensor"]:
    """The virtual points (V, 14), and the instance of each."""
    import torch

    device = members.depth.device
    rows = np.flatnonzero(index.area)
    pixels = torch.from_numpy(index.pixels(ranks).reshape(-1, 2)).to(device)
    instance = torch.from_numpy(np.repeat(rows, ranks.shape[1])).to(device)
    nearest = nearest_in_group(pixels.double(), instance, members.pixel.double(), members.instance).index.long()
    kept = nearest >= 0
    pixels, instance, nearest = pixels[kept], instance[kept], nearest[kept]
    # depth * inverse intrinsics * (u, v, 1) is the point in the camera frame; the integer corner of the pixel, as published
    turn = [view.lidar_to_camera.rotation.T for view in views]
    rays = np.array([r @ np.linalg.inv(view.intrinsics) for r, view in zip(turn, views, strict=True)]).reshape(-1, 3, 3)
    origin = np.array([-r @ view.lidar_to_camera.translation for r, view in zip(turn, views, strict=True)]).reshape(-1, 3)
    camera = torch.from_numpy(index.camera).to(device)[instance]
    ray, place = torch.from_numpy(rays).to(device)[camera], torch.from_numpy(origin).to(device)[camera]
    u, v = pixels.double().unbind(dim=1)
    xyz = members.depth[nearest, None] * (ray[..., 0] * u[:, None] + ray[..., 1] * v[:, None] + ray[..., 2]) + place
    virtual = torch.zeros((len(xyz), 4 + _NUM_CLASSES), device=device)
    virtual[:, :3] = xyz
    virtual.scatter_(1, 3 + column[instance, None], 1.0)
    virtual[:, -1] = score[instance]
    return virtual, instance


def _painted(points: "Tensor", members: Members, column: "Tensor", score: "Tensor") -> tuple["Tensor", "Tensor"]:
    """The points in masks (F, 15), and their rows."""
    import torch

    row, place = torch.unique_consecutive(members.point, return_inverse=True)
    painted = torch.zeros((len(row), 5 + _NUM_CLASSES), device=points.device)
    painted[:, :4] = points[row, :4]
    painted[place, 4 + column[members.instance]] = 1.0
    painted[:, -1].scatter_reduce_(0, place, score[members.instance], "amax")
    return painted, row
