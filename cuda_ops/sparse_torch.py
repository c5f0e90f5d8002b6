"""Sparse convolutions in plain torch, offset by offset: for GPUs where Triton is not installed, and for float64 there.

Every row takes part at every offset, those without a neighbour with a row of zeros: nothing waits for a count, and sums have one order.
"""

import torch


def sparse_conv(
    features: torch.Tensor,
    weight: torch.Tensor,
    table: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    relu: bool,
) -> torch.Tensor:
    """As `cuda_ops.sparse_conv`, with checked arguments and weight (C_out, K, C_in)."""
    kind = _sums_of(features.dtype)
    padded, rows = _with_zeros(features.to(kind), table)  # half floats would overflow where their sum does not
    out = torch.zeros((len(table), len(weight)), dtype=kind, device=features.device)
    for k in range(weight.shape[1]):
        out += padded[rows[:, k]] @ weight[:, k].T.to(kind)
    for term in (bias, residual):
        if term is not None:
            out += term
    return (out.relu_() if relu else out).to(features.dtype)


def sparse_conv_weight_gradient(features: torch.Tensor, gradient: torch.Tensor, table: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As `cuda_ops.sparse_conv_weight_gradient`, with checked arguments."""
    kind = _sums_of(features.dtype)
    padded, rows = _with_zeros(features.to(kind), table)
    to_weight = gradient.new_empty((gradient.shape[1], table.shape[1], features.shape[1]))
    for k in range(table.shape[1]):
        to_weight[:, k] = gradient.to(kind).T @ padded[rows[:, k]]
    return to_weight, gradient.sum(0, dtype=kind).to(gradient.dtype)


def _sums_of(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _with_zeros(features: torch.Tensor, table: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The features with a row of zeros behind them, and the table with that row in the place of what is none."""
    count = len(features)
    is_there = (table >= 0) & (table < count)
    return torch.cat([features, features.new_zeros((1, features.shape[1]))]), torch.where(is_there, table, count)
