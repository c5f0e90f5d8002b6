"""Point-cloud operators, each with a C++ body for the CPU and a CUDA body for the GPU.

NumPy arrays or torch tensors (CPU or CUDA) go in, the same kind comes out; results do not depend on the number of threads and are the
same in every run. `cuda_ops.reference` has the same functions in plain NumPy, slow and obvious.
"""

from cuda_ops.boxes import PointsInBoxes, iou_3d, iou_bev, points_in_boxes
from cuda_ops.gather import gather_bilinear
from cuda_ops.grid import Grid
from cuda_ops.nearest import NearestInGroup, nearest_in_group
from cuda_ops.nms import nms_bev, nms_circle
from cuda_ops.primitives import Kind, Primitives
from cuda_ops.rays import Hits, cast_rays, ray_tree
from cuda_ops.scatter import ScatterMax, ScatterMean, scatter_max, scatter_mean
from cuda_ops.sparse import SparseIndices, sparse_indices
from cuda_ops.sparse_conv import sparse_conv, sparse_conv_weight_gradient, transpose_table
from cuda_ops.voxelize import HardVoxels, MeanVoxels, voxelize_hard, voxelize_mean

__all__ = [
    "Grid",
    "HardVoxels",
    "Hits",
    "Kind",
    "MeanVoxels",
    "NearestInGroup",
    "PointsInBoxes",
    "Primitives",
    "ScatterMax",
    "ScatterMean",
    "SparseIndices",
    "cast_rays",
    "gather_bilinear",
    "iou_3d",
    "iou_bev",
    "nearest_in_group",
    "nms_bev",
    "nms_circle",
    "points_in_boxes",
    "ray_tree",
    "scatter_max",
    "scatter_mean",
    "sparse_conv",
    "sparse_conv_weight_gradient",
    "sparse_indices",
    "transpose_table",
    "voxelize_hard",
    "voxelize_mean",
]
