"""The operators as `torch.ops.cuda_ops.*`: schemas, fake kernels (shapes without data) and gradients.

Imported when the first tensor arrives, or by who wants the operators in `torch.compile` or `torch.export`. Each registered operator calls
the same body as the public function, on the CPU and on CUDA.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from cuda_ops import boxes, gather, gradients, nearest, nms, rays, scatter, sparse, voxelize
from cuda_ops.gradients import registered
from cuda_ops.sparse_conv import _sparse_conv, _sparse_conv_weight_gradient, _transpose_table

__all__ = ["OPERATORS", "Gradient", "Operator", "registered"]

_LIBRARY = torch.library.Library("cuda_ops", "DEF")  # lives as long as the process: its end would take the operators away


class Gradient(NamedTuple):
    """How an operator is differentiated: as the methods of torch.autograd.Function, see torch.library.register_autograd.

    setup_context(ctx, inputs, output)  keeps what the backward pass needs, with ctx.save_for_backward; None: it needs nothing
    backward(ctx, *grads)               a gradient in for each output, one out for each input, None for what has none
    """

    setup_context: Callable[..., None] | None
    backward: Callable[..., Any]


class Operator(NamedTuple):
    """What torch must know about one operator; `gradient` is None where its results do not depend smoothly on anything."""

    schema: str
    body: Callable[..., Any]
    fake: Callable[..., Any]
    gradient: Gradient | None = None


def _dynamic() -> Any:  # a length that only the data tell
    return torch.library.get_ctx().new_dynamic_size(min=0)


_GRID = "float[] lower, float[] voxel_size, int[] shape, int batch_size"


def _fake_hard(points, batch_index, lower, size, shape, batch_size, max_points, max_voxels, with_index, fixed_capacity):
    rows = max_voxels if fixed_capacity else _dynamic()
    return (points.new_empty((rows, max_points, points.shape[1])), *_fake_rest(points, batch_index, rows, with_index))


def _fake_mean(points, batch_index, lower, size, shape, batch_size, max_voxels, with_index, fixed_capacity):
    rows = max_voxels if fixed_capacity else _dynamic()
    return (points.new_empty((rows, points.shape[1])), *_fake_rest(points, batch_index, rows, with_index))


def _fake_rest(points, batch_index, rows, with_index):
    def integers(*sizes: Any) -> Any:
        return points.new_empty(sizes, dtype=torch.int32)

    index = integers(points.shape[0] if with_index else 0)
    return integers(rows, 3 if batch_index is None else 4), integers(rows), points.new_empty((5,), dtype=torch.int64), index


def _fake_iou(boxes_a, boxes_b):
    return boxes_a.new_empty((boxes_a.shape[0], boxes_b.shape[0]), dtype=torch.float64)


def _fake_nms(boxes, scores, iou_threshold, max_out, group, fixed_capacity):
    return scores.new_empty((scores.shape[0] if fixed_capacity else _dynamic(),), dtype=torch.int64)


def _fake_circle(centers, scores, squared_radius, max_out, group, fixed_capacity):
    return _fake_nms(centers, scores, squared_radius, max_out, group, fixed_capacity)


def _fake_points_in_boxes(points, boxes, point_group, box_group):
    return points.new_empty((points.shape[0],), dtype=torch.int32), points.new_empty((boxes.shape[0],), dtype=torch.int32)


def _fake_rays(
    origins,
    directions,
    kind,
    center,
    size,
    yaw,
    taper,
    normal,
    pass_chance,
    extinction,
    field,
    heights,
    tree,
    farthest,
    seed,
    min_range,
    max_range,
):
    count = origins.shape[0]
    return origins.new_empty((count,)), origins.new_empty((count, 3)), origins.new_empty((count,), dtype=torch.int32)


def _fake_tree(kind, center, size, yaw, taper, normal, pass_chance, extinction, field, heights):
    return kind.new_empty((rays.tree_words(kind.shape[0]),))


def _fake_sparse_indices(coords, batch_size, axes, submanifold, capacity):
    rows = coords.shape[0] if submanifold else _dynamic() if capacity is None else capacity
    table = coords.new_empty((rows, axes[3] * axes[4] * axes[5]), dtype=torch.int32)
    return coords.new_empty((rows, coords.shape[1]), dtype=torch.int32), table, coords.new_empty((4,), dtype=torch.int64)


def _fake_scatter_max(values, index, size):
    shape = (size, values.shape[1])
    return values.new_empty(shape), values.new_empty(shape, dtype=torch.int32)


def _fake_scatter_mean(values, index, size):
    return values.new_empty((size, values.shape[1])), values.new_empty((size,), dtype=torch.int32)


def _fake_scatter_grad(grad, index, kept):
    return grad.new_empty((index.shape[0], grad.shape[1]))


def _fake_nearest(queries, query_group, points, point_group):
    count = queries.shape[0]
    return queries.new_empty((count,), dtype=torch.int32), queries.new_empty((count,), dtype=torch.float64)


def _fake_gather(feature_map, xy, batch_index):
    return feature_map.new_empty((xy.shape[0], feature_map.shape[1]))


def _fake_gather_gradient(gradient, feature_map, xy, batch_index, for_map, for_xy):
    return torch.empty_like(feature_map) if for_map else feature_map.new_empty((0,)), xy.new_empty(xy.shape if for_xy else (0,))


def _fake_transpose(table, num_inputs):
    return table.new_empty((num_inputs, table.shape[1]))


def _fake_sparse_conv(features, weight, table, bias, residual, transposed, relu):
    return features.new_empty((table.shape[0], weight.shape[0]))


def _fake_weight_gradient(features, gradient, table):
    channels = gradient.shape[1]
    return gradient.new_empty((channels, table.shape[1], features.shape[1])), gradient.new_empty((channels,))


_NMS = "int? max_out, Tensor? group, bool fixed_capacity) -> Tensor"


OPERATORS = {
    "voxelize_hard": Operator(
        f"(Tensor points, Tensor? batch_index, {_GRID}, int max_points, int max_voxels, bool with_index, bool fixed_capacity)"
        " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
        voxelize._voxelize_hard,
        _fake_hard,
    ),
    "voxelize_mean": Operator(
        f"(Tensor points, Tensor? batch_index, {_GRID}, int? max_voxels, bool with_index, bool fixed_capacity)"
        " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
        voxelize._voxelize_mean,
        _fake_mean,
    ),
    "iou_bev": Operator("(Tensor boxes_a, Tensor boxes_b) -> Tensor", boxes._iou_bev, _fake_iou),
    "iou_3d": Operator("(Tensor boxes_a, Tensor boxes_b) -> Tensor", boxes._iou_3d, _fake_iou),
    "nms_bev": Operator(f"(Tensor boxes, Tensor scores, float iou_threshold, {_NMS}", nms._nms_bev, _fake_nms),
    "nms_circle": Operator(f"(Tensor centers, Tensor scores, float squared_radius, {_NMS}", nms._nms_circle, _fake_circle),
    "points_in_boxes": Operator(
        "(Tensor points, Tensor boxes, Tensor? point_group, Tensor? box_group) -> (Tensor, Tensor)",
        boxes._points_in_boxes,
        _fake_points_in_boxes,
    ),
    "cast_rays": Operator(
        "(Tensor origins, Tensor directions, Tensor kind, Tensor center, Tensor size, Tensor yaw, Tensor taper, Tensor normal,"
        " Tensor pass_chance, Tensor extinction, Tensor field, Tensor heights, Tensor? tree, Tensor? farthest, int seed, float min_range,"
        " float max_range) -> (Tensor, Tensor, Tensor)",
        rays._cast_rays,
        _fake_rays,
    ),
    "ray_tree": Operator(
        "(Tensor kind, Tensor center, Tensor size, Tensor yaw, Tensor taper, Tensor normal, Tensor pass_chance, Tensor extinction,"
        " Tensor field, Tensor heights) -> Tensor",
        rays._ray_tree,
        _fake_tree,
    ),
    "sparse_indices": Operator(
        "(Tensor coords, int batch_size, int[] axes, bool submanifold, int? capacity) -> (Tensor, Tensor, Tensor)",
        sparse._sparse_indices,
        _fake_sparse_indices,
    ),
    "scatter_max": Operator(
        "(Tensor values, Tensor index, SymInt size) -> (Tensor, Tensor)",
        scatter._scatter_max,
        _fake_scatter_max,
        Gradient(gradients.scatter_setup, gradients.scatter_max_backward),
    ),
    "scatter_mean": Operator(
        "(Tensor values, Tensor index, SymInt size) -> (Tensor, Tensor)",
        scatter._scatter_mean,
        _fake_scatter_mean,
        Gradient(gradients.scatter_setup, gradients.scatter_mean_backward),
    ),
    "scatter_max_grad": Operator(
        "(Tensor grad, Tensor index, Tensor argmax) -> Tensor",
        scatter._scatter_max_grad,
        _fake_scatter_grad,
        Gradient(gradients.scatter_grad_setup, gradients.scatter_max_grad_backward),
    ),
    "scatter_mean_grad": Operator(
        "(Tensor grad, Tensor index, Tensor count) -> Tensor",
        scatter._scatter_mean_grad,
        _fake_scatter_grad,
        Gradient(gradients.scatter_grad_setup, gradients.scatter_mean_grad_backward),
    ),
    "nearest_in_group": Operator(
        "(Tensor queries, Tensor query_group, Tensor points, Tensor point_group) -> (Tensor, Tensor)",
        nearest._nearest_in_group,
        _fake_nearest,
    ),
    "gather_bilinear": Operator(
        "(Tensor feature_map, Tensor xy, Tensor? batch_index) -> Tensor",
        gather._gather_bilinear,
        _fake_gather,
        Gradient(gradients.save_inputs, gradients.gather_backward),
    ),
    "gather_bilinear_gradient": Operator(
        "(Tensor gradient, Tensor feature_map, Tensor xy, Tensor? batch_index, bool for_map, bool for_xy) -> (Tensor, Tensor)",
        gather._gather_bilinear_gradient,
        _fake_gather_gradient,
        Gradient(None, gradients.no_second_derivative),
    ),
    "transpose_table": Operator("(Tensor table, SymInt num_inputs) -> Tensor", _transpose_table, _fake_transpose),
    "sparse_conv": Operator(
        "(Tensor features, Tensor weight, Tensor table, Tensor? bias, Tensor? residual, Tensor? transposed, bool relu) -> Tensor",
        _sparse_conv,
        _fake_sparse_conv,
        Gradient(gradients.sparse_conv_setup, gradients.sparse_conv_backward),
    ),
    "sparse_conv_weight_gradient": Operator(
        "(Tensor features, Tensor gradient, Tensor table) -> (Tensor, Tensor)",
        _sparse_conv_weight_gradient,
        _fake_weight_gradient,
        Gradient(gradients.save_inputs, gradients.weight_gradient_backward),
    ),
}

for _name, _operator in OPERATORS.items():
    _LIBRARY.define(_name + _operator.schema)
    for _device in ("CPU", "CUDA"):
        _LIBRARY.impl(_name, _operator.body, _device)
    torch.library.register_fake(f"cuda_ops::{_name}", _operator.fake, lib=_LIBRARY)
    if _operator.gradient is not None:
        _setup, _backward = _operator.gradient
        torch.library.register_autograd(f"cuda_ops::{_name}", _backward, setup_context=_setup, lib=_LIBRARY)
