// Which input site meets which output site of a sparse convolution: the arithmetic of one axis, once, for both compilers.
#pragma once

#include "common.hpp"

namespace ops {

/// One axis of a convolution: output o, at tap k, looks at input o * stride - padding + k.
struct ConvAxis {
  int32_t in, kernel, stride, padding;  // in: cells of the input

  OPS_HOST_DEVICE int64_t out() const { return (static_cast<int64_t>(in) + 2 * int64_t{padding} - kernel) / stride + 1; }

  /// The output that looks at input `i` through tap `k`, or -1.
  OPS_HOST_DEVICE int64_t output(int64_t i, int64_t k) const {
    const int64_t shifted = i + padding - k;
    if (shifted < 0) return -1;
    const int64_t o = shifted / stride;
    return o * stride == shifted && o < out() ? o : -1;
  }

  /// The input that output `o` looks at through tap `k`, or -1.
  OPS_HOST_DEVICE int64_t input(int64_t o, int64_t k) const {
    const int64_t i = o * stride - padding + k;
    return i >= 0 && i < in ? i : -1;
  }
};

/// A place as its numbers. batch is -1 outside of the grid, -2 where the row is empty.
struct Site {
  int64_t batch, z, y, x;
};
constexpr int64_t kNoSite = -1, kEmptyRow = -2;

/// A convolution over a batch of grids. Lines are the rows of cells along x, numbered (batch * depth + z) * height + y; cells line * width + x.
struct ConvGrid {
  ConvAxis z, y, x;
  int64_t num_batches;

  OPS_HOST_DEVICE int64_t in_line(int64_t batch, int64_t cz, int64_t cy) const { return (batch * z.in + cz) * y.in + cy; }
  OPS_HOST_DEVICE int64_t out_line(int64_t batch, int64_t cz, int64_t cy) const { return (batch * z.out() + cz) * y.out() + cy; }
  OPS_HOST_DEVICE int64_t in_lines() const { return num_batches * z.in * y.in; }
  OPS_HOST_DEVICE int64_t out_lines() const { return num_batches * z.out() * y.out(); }
  OPS_HOST_DEVICE int64_t taps() const { return static_cast<int64_t>(z.kernel) * y.kernel * x.kernel; }

  /// A row of coordinates: z, y, x with the batch in front where columns is 4. All -1 is a row without a site.
  OPS_HOST_DEVICE Site site(const int32_t* row, int64_t columns) const {
    const int32_t* zyx = row + (columns - 3);
    const Site s{columns == 4 ? row[0] : 0, zyx[0], zyx[1], zyx[2]};
    if (s.z >= 0 && s.z < z.in && s.y >= 0 && s.y < y.in && s.x >= 0 && s.x < x.in && s.batch >= 0 && s.batch < num_batches) return s;
    const bool is_empty = s.z == -1 && s.y == -1 && s.x == -1 && (columns == 3 || s.batch == -1);
    return {is_empty ? kEmptyRow : kNoSite, -1, -1, -1};
  }

  /// An output's cell as a row of coordinates; below 0 gives a row of -1.
  OPS_HOST_DEVICE void write_coords(int64_t cell, int64_t columns, int32_t* row) const {
    int32_t* zyx = row + (columns - 3);
    if (cell < 0) {
      zyx[0] = zyx[1] = zyx[2] = row[0] = -1;
      return;
    }
    const int64_t line = cell / x.out(), plane = line / y.out(), batch = plane / z.out();
    zyx[2] = static_cast<int32_t>(cell - line * x.out());
    zyx[1] = static_cast<int32_t>(line - plane * y.out());
    zyx[0] = static_cast<int32_t>(plane - batch * z.out());
    if (columns == 4) row[0] = static_cast<int32_t>(batch);
  }
};

// A convolution as its numbers, the way it comes from Python.
#define CONV_GRID_ARGUMENTS                                                                                                          \
  int64_t num_batches, int32_t in_z, int32_t in_y, int32_t in_x, int32_t kernel_z, int32_t kernel_y, int32_t kernel_x,              \
      int32_t stride_z, int32_t stride_y, int32_t stride_x, int32_t padding_z, int32_t padding_y, int32_t padding_x
#define CONV_GRID \
  ConvGrid { {in_z, kernel_z, stride_z, padding_z}, {in_y, kernel_y, stride_y, padding_y}, {in_x, kernel_x, stride_x, padding_x}, num_batches }

/// Places of the counters that sparse_indices returns, all int64.
enum SparseCounter { kNumOutputs, kNumSitesOutside, kNumDuplicates, kNumOutputsOver, kNumSparseCounters };

}  // namespace ops
