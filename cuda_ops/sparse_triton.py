"""Sparse convolutions on a GPU as Triton kernels: one launch for a layer, with bias, residual and ReLU inside.

A program owns a tile of output rows and channels: it gathers the rows of the neighbours offset by offset, multiplies and adds in float32,
and writes once. Nothing is added atomically and every sum has one order, so a result is the same in every run. Block sizes come from a
table, not from trials when the program runs.
"""

# Kernels are written in Triton's language, which only looks like Python to a type checker:
# pyright: reportCallIssue=false, reportIndexIssue=false, reportOperatorIssue=false

from typing import NamedTuple

import torch
import triton
import triton.language as tl


class Blocks(NamedTuple):
    """How a kernel is cut: output rows, input channels and output channels at a time, and warps for each program."""

    rows: int
    c_in: int
    c_out: int
    warps: int


_ROWS_OF_PARTIAL = 4096  # output rows whose part of the weights' gradient is summed at once
_MOST_PARTIALS = 32


def sparse_conv(
    features: torch.Tensor,
    weight: torch.Tensor,
    table: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    relu: bool,
) -> torch.Tensor:
    """As `cuda_ops.sparse_conv`, with checked arguments, weight (C_out, K, C_in) and float32, float16 or bfloat16."""
    rows, (channels, offsets, c_in) = len(table), weight.shape
    out = features.new_empty((rows, channels))
    if out.numel() == 0:
        return out
    blocks = blocks_for(c_in, channels, features.element_size())
    grid = (triton.cdiv(rows, blocks.rows), triton.cdiv(channels, blocks.c_out))
    # A tensor that is not there is replaced by one that is, because a kernel takes pointers; it is not read.
    _convolve[grid](
        features,
        weight,
        table,
        out if bias is None else bias,
        out if residual is None else residual,
        out,
        len(features),
        rows,
        offsets,
        c_in,
        channels,
        has_bias=bias is not None,
        has_residual=residual is not None,
        relu=relu,
        block_rows=blocks.rows,
        block_in=blocks.c_in,
        block_out=blocks.c_out,
        num_warps=blocks.warps,
        enable_fp_fusion=True,
    )
    return out


def sparse_conv_weight_gradient(features: torch.Tensor, gradient: torch.Tensor, table: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As `cuda_ops.sparse_conv_weight_gradient`, with checked arguments and float32, float16 or bfloat16."""
    (rows, offsets), c_in, channels = table.shape, features.shape[1], gradient.shape[1]
    per_partial = max(_ROWS_OF_PARTIAL, triton.cdiv(rows, _MOST_PARTIALS))
    partials = triton.cdiv(rows, per_partial)
    sums = torch.empty((partials, channels, offsets, c_in), dtype=torch.float32, device=features.device)
    if sums.numel() > 0:
        blocks = gradient_blocks_for(c_in, channels)
        tiles_in = triton.cdiv(c_in, blocks.c_in)
        _differentiate[(offsets, partials, tiles_in * triton.cdiv(channels, blocks.c_out))](
            features,
            gradient,
            table,
            sums,
            len(features),
            rows,
            per_partial,
            offsets,
            c_in,
            channels,
            tiles_in,
            block_rows=blocks.rows,
            block_in=blocks.c_in,
            block_out=blocks.c_out,
            num_warps=blocks.warps,
            enable_fp_fusion=True,
        )
    return sums.sum(0).to(features.dtype), gradient.sum(0, dtype=torch.float32).to(features.dtype)


def blocks_for(c_in: int, c_out: int, bytes_of_number: int) -> Blocks:
    """Blocks of the convolution. Rows and warps are the best of an H100 in float16 for 16, 32, 64 and 128 channels; float32 is multiplied
    without tensor cores, and smaller tiles leave it more registers."""
    width = _power_of_two(max(c_in, c_out), 16, 128)
    rows = 128 if width <= 32 else 64
    most = 128 if bytes_of_number == 2 else 32
    return Blocks(rows, _power_of_two(c_in, 16, most), _power_of_two(c_out, 16, max(most, 64)), 4)


def gradient_blocks_for(c_in: int, c_out: int) -> Blocks:
    """Blocks of the gradient of the weights: its sums are a tile of at most 64 x 64."""
    return Blocks(32, _power_of_two(c_in, 16, 64), _power_of_two(c_out, 16, 64), 4)


def _power_of_two(number: int, least: int, most: int) -> int:
    """The power of two from `number` on, between two others; tl.dot takes no side below 16."""
    return min(max(triton.next_power_of_2(max(number, 1)), least), most)


# Numbers of rows change with every cloud: a kernel made for numbers that 16 divides would be compiled twice.
@triton.jit(do_not_specialize=["num_inputs", "num_outputs"])
def _convolve(
    features,
    weight,
    table,
    bias,
    residual,
    out,
    num_inputs,
    num_outputs,
    offsets: tl.constexpr,
    c_in: tl.constexpr,
    c_out: tl.constexpr,
    has_bias: tl.constexpr,
    has_residual: tl.constexpr,
    relu: tl.constexpr,
    block_rows: tl.constexpr,
    block_in: tl.constexpr,
    block_out: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * block_rows + tl.arange(0, block_rows)
    channel = tl.program_id(1) * block_out + tl.arange(0, block_out)
    is_row, is_channel = row < num_outputs, channel < c_out
    sums = tl.zeros((block_rows, block_out), tl.float32)
    for k in range(offsets):
        other = tl.load(table + row * offsets + k, mask=is_row, other=-1)
        is_there = (other >= 0) & (other < num_inputs)
        if tl.max(is_there.to(tl.int32), 0) > 0:
            start = other.to(tl.int64) * c_in
            for first in range(0, c_in, block_in):
                c = first + tl.arange(0, block_in)
                is_c = c < c_in
                x = tl.load(features + start[:, None] + c[None, :], mask=is_there[:, None] & is_c[None, :], other=0.0)
                w = tl.load(
                    weight + channel[None, :] * (offsets * c_in) + k * c_in + c[:, None],
                    mask=is_c[:, None] & is_channel[None, :],
                    other=0.0,
                )
                sums = tl.dot(x, w, sums, input_precision="ieee")
    is_out = is_row[:, None] & is_channel[None, :]
    place = row[:, None] * c_out + channel[None, :]
    if has_bias:
        sums += tl.load(bias + channel, mask=is_channel, other=0.0).to(tl.float32)[None, :]
    if has_residual:
        sums += tl.load(residual + place, mask=is_out, other=0.0).to(tl.float32)
    if relu:
        sums = tl.where(sums < 0, 0.0, sums)  # NaN stays
    tl.store(out + place, sums.to(out.dtype.element_ty), mask=is_out)


@triton.jit(do_not_specialize=["num_inputs", "num_outputs", "rows_of_partial"])
def _differentiate(
    features,
    gradient,
    table,
    sums,
    num_inputs,
    num_outputs,
    rows_of_partial,
    offsets: tl.constexpr,
    c_in: tl.constexpr,
    c_out: tl.constexpr,
    tiles_in: tl.constexpr,
    block_rows: tl.constexpr,
    block_in: tl.constexpr,
    block_out: tl.constexpr,
):
    k, partial = tl.program_id(0), tl.program_id(1).to(tl.int64)
    c = tl.program_id(2) % tiles_in * block_in + tl.arange(0, block_in)
    channel = tl.program_id(2) // tiles_in * block_out + tl.arange(0, block_out)
    is_c, is_channel = c < c_in, channel < c_out
    end = tl.minimum((partial + 1) * rows_of_partial, num_outputs)
    total = tl.zeros((block_out, block_in), tl.float32)
    for first in range(partial * rows_of_partial, end, block_rows):
        row = first + tl.arange(0, block_rows)
        other = tl.load(table + row * offsets + k, mask=row < end, other=-1)
        is_there = (other >= 0) & (other < num_inputs)
        if tl.max(is_there.to(tl.int32), 0) > 0:
            x = tl.load(features + other.to(tl.int64)[:, None] * c_in + c[None, :], mask=is_there[:, None] & is_c[None, :], other=0.0)
            g = tl.load(gradient + row[None, :] * c_out + channel[:, None], mask=is_there[None, :] & is_channel[:, None], other=0.0)
            total = tl.dot(g, x, total, input_precision="ieee")
    place = ((partial * c_out + channel[:, None]) * offsets + k) * c_in + c[None, :]
    tl.store(sums + place, total, mask=is_channel[:, None] & is_c[None, :])
