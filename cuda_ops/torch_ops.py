"""The operators as `torch.ops.cuda_ops.*`: schemas, fake kernels (shapes without data) and gradients.

Imported when the first tensor arrives, or by who wants the operators in `torch.compile` or `torch.export`. Each registered operator calls
the same body as the public function, on the CPU and on CUDA.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from cuda_ops import boxes, nms, rays, voxelize
from cuda_ops.sparse_conv import _sparse_conv, _sparse_conv_weight_gradient, _transpose_table

_LIBRARY = torch.library.Library("cuda_ops", "DEF")  # lives as long as the process: its end would take the operators away


class Operator(NamedTuple):
    """What torch must know about one operator."""

    schema: str
    body: Callable[..., Any]
    fake: Callable[..., Any]
    autograd: Callable[[str], None] | None = None  # registers the gradient of the operator of that name; None: it has none


def _dynamic(limit: int | None = None) -> Any:  # a length that only the data tell
    context = torch.library.get_ctx()
    return context.new_dynamic_size(min=0) if limit is None else context.new_dynamic_size(min=0, max=limit)


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


def _fake_nms(boxes, scores, iou_threshold, max_out, group):
    return scores.new_empty((_dynamic(),), dtype=torch.int64)


def _fake_circle(centers, scores, squared_radius, max_out, group):
    return scores.new_empty((_dynamic(),), dtype=torch.int64)


def _fake_points_in_boxes(points, boxes):
    return points.new_empty((points.shape[0],), dtype=torch.int32), points.new_empty((boxes.shape[0],), dtype=torch.int32)


def _fake_rays(
    origins, directions, kind, center, size, yaw, taper, normal, pass_chance, extinction, field, heights, seed, min_range, max_range
):
    count = origins.shape[0]
    return origins.new_empty((count,)), origins.new_empty((count, 3)), origins.new_empty((count,), dtype=torch.int32)


def _fake_transpose(table, num_inputs):
    return table.new_empty((num_inputs, table.shape[1]))


def _fake_sparse_conv(features, weight, table, bias, residual, transposed, relu):
    return features.new_empty((table.shape[0], weight.shape[0]))


def _fake_weight_gradient(features, gradient, table):
    channels = gradient.shape[1]
    return gradient.new_empty((channels, table.shape[1], features.shape[1])), gradient.new_empty((channels,))


def _differentiate_sparse_conv(name: str) -> None:
    def save(ctx, inputs, output):
        features, weight, table, _, _, transposed, ctx.relu = inputs
        ctx.save_for_backward(features, weight, table, transposed, output if ctx.relu else None)

    def gradients(ctx, gradient):
        features, weight, table, transposed, output = ctx.saved_tensors
        for_features, for_weight, _, for_bias, for_residual, _, _ = ctx.needs_input_grad
        to_features = to_weight = to_bias = None
        if ctx.relu:
            gradient = torch.ops.aten.threshold_backward(gradient, output, 0)  # as torch's own ReLU: a NaN lets the gradient through
        if for_features:
            if transposed is None:
                transposed = registered("transpose_table")(table, features.shape[0])
            turned = weight.permute(4, 1, 2, 3, 0).contiguous()
            to_features = registered("sparse_conv")(gradient, turned, transposed, None, None, table, False)
        if for_weight or for_bias:
            to_weight, to_bias = registered("sparse_conv_weight_gradient")(features, gradient, table)
            to_weight = to_weight.reshape(weight.shape)
        to_residual = gradient if for_residual else None
        return to_features, to_weight if for_weight else None, None, to_bias if for_bias else None, to_residual, None, None

    torch.library.register_autograd(name, gradients, setup_context=save, lib=_LIBRARY)


def _differentiate_weight_gradient(name: str) -> None:
    def save(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    def gradients(ctx, of_weight, of_bias):
        features, gradient, table = ctx.saved_tensors
        for_features, for_gradient, _ = ctx.needs_input_grad
        weight = of_weight[:, None, None]  # (C_out, 1, 1, K, C_in)
        to_features = to_gradient = None
        if for_features:
            transposed = registered("transpose_table")(table, features.shape[0])
            to_features = registered("sparse_conv")(
                gradient, weight.permute(4, 1, 2, 3, 0).contiguous(), transposed, None, None, table, False
            )
        if for_gradient:
            to_gradient = registered("sparse_conv")(features, weight, table, of_bias, None, None, False)
        return to_features, to_gradient, None

    torch.library.register_autograd(name, gradients, setup_context=save, lib=_LIBRARY)


_NMS = "int? max_out, Tensor? group) -> Tensor"


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
    "points_in_boxes": Operator("(Tensor points, Tensor boxes) -> (Tensor, Tensor)", boxes._points_in_boxes, _fake_points_in_boxes),
    "cast_rays": Operator(
        "(Tensor origins, Tensor directions, Tensor kind, Tensor center, Tensor size, Tensor yaw, Tensor taper, Tensor normal,"
        " Tensor pass_chance, Tensor extinction, Tensor field, Tensor heights, int seed, float min_range, float max_range)"
        " -> (Tensor, Tensor, Tensor)",
        rays._cast_rays,
        _fake_rays,
    ),
    "transpose_table": Operator("(Tensor table, SymInt num_inputs) -> Tensor", _transpose_table, _fake_transpose),
    "sparse_conv": Operator(
        "(Tensor features, Tensor weight, Tensor table, Tensor? bias, Tensor? residual, Tensor? transposed, bool relu) -> Tensor",
        _sparse_conv,
        _fake_sparse_conv,
        _differentiate_sparse_conv,
    ),
    "sparse_conv_weight_gradient": Operator(
        "(Tensor features, Tensor gradient, Tensor table) -> (Tensor, Tensor)",
        _sparse_conv_weight_gradient,
        _fake_weight_gradient,
        _differentiate_weight_gradient,
    ),
}

for _name, _operator in OPERATORS.items():
    _LIBRARY.define(_name + _operator.schema)
    for _device in ("CPU", "CUDA"):
        _LIBRARY.impl(_name, _operator.body, _device)
    torch.library.register_fake(f"cuda_ops::{_name}", _operator.fake, lib=_LIBRARY)
    if _operator.autograd is not None:
        _operator.autograd(f"cuda_ops::{_name}")


def registered(name: str) -> Callable[..., Any]:
    """torch.ops.cuda_ops.<name>, without the look-up of overloads."""
    return getattr(torch.ops.cuda_ops, name).default
