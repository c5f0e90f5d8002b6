"""Gradients of the registered operators, as the methods of torch.autograd.Function; see `Gradient` in `cuda_ops.torch_ops`.

The backward passes call registered operators only, so that they can be traced, compiled and, most of them, differentiated again.
"""

from collections.abc import Callable
from typing import Any

import torch


def registered(name: str) -> Callable[..., Any]:
    """torch.ops.cuda_ops.<name>, without the look-up of overloads."""
    return getattr(torch.ops.cuda_ops, name).default


def scatter_setup(ctx, inputs, output):
    ctx.save_for_backward(inputs[1], output[1])  # index, and argmax or count


def scatter_max_backward(ctx, grad, _):
    return registered("scatter_max_grad")(grad, *ctx.saved_tensors), None, None


def scatter_mean_backward(ctx, grad, _):
    return registered("scatter_mean_grad")(grad, *ctx.saved_tensors), None, None


def scatter_grad_setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs[1:])
    ctx.size = inputs[0].shape[0]


def scatter_max_grad_backward(ctx, grad):
    _, argmax = ctx.saved_tensors
    if grad.shape[0] == 0:
        return grad.new_zeros(argmax.shape), None, None
    return torch.where(argmax >= 0, grad.gather(0, argmax.clamp(min=0).long()), 0), None, None


def scatter_mean_grad_backward(ctx, grad):
    index, _ = ctx.saved_tensors
    return registered("scatter_mean")(grad, index, ctx.size)[0], None, None


def save_inputs(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def gather_backward(ctx, gradient):
    for_map, for_xy, _ = ctx.needs_input_grad
    to_map, to_xy = registered("gather_bilinear_gradient")(gradient, *ctx.saved_tensors, for_map, for_xy)
    return to_map if for_map else None, to_xy if for_xy else None, None


def sparse_conv_setup(ctx, inputs, output):
    features, weight, table, _, _, transposed, ctx.relu = inputs
    ctx.save_for_backward(features, weight, table, transposed, output if ctx.relu else None)


def sparse_conv_backward(ctx, gradient):
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


def weight_gradient_backward(ctx, of_weight, of_bias):
    features, gradient, table = ctx.saved_tensors
    for_features, for_gradient, _ = ctx.needs_input_grad
    weight = of_weight[:, None, None]  # (C_out, 1, 1, K, C_in)
    to_features = to_gradient = None
    if for_features:
        transposed = registered("transpose_table")(table, features.shape[0])
        turned = weight.permute(4, 1, 2, 3, 0).contiguous()
        to_features = registered("sparse_conv")(gradient, turned, transposed, None, None, table, False)
    if for_gradient:
        to_gradient = registered("sparse_conv")(features, weight, table, of_bias, None, None, False)
    return to_features, to_gradient, None


def no_second_derivative(ctx, *gradients):
    """Raises NotImplementedError: without it torch would go on with zeros."""
    raise NotImplementedError("cuda_ops.gather_bilinear: its gradient has none itself; expected no create_graph=True")
