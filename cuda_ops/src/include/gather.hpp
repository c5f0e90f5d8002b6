// Bilinear samples of a map: which cells, which weights, in which order they are added; once, for both compilers.
#pragma once

#include "common.hpp"
#include "half.hpp"

namespace ops {

/// Maps of a batch in any memory layout; strides count elements.
struct MapLayout {
  int64_t samples, channels, rows, columns;
  int64_t sample_stride, channel_stride, row_stride, column_stride;

  OPS_HOST_DEVICE int64_t cells() const { return samples * rows * columns; }
};

// A layout as its numbers, the way it comes from Python.
#define MAP_LAYOUT_ARGUMENTS                                                                                                   \
  int64_t samples, int64_t channels, int64_t rows, int64_t columns, int64_t sample_stride, int64_t channel_stride,             \
      int64_t row_stride, int64_t column_stride
#define MAP_LAYOUT \
  MapLayout { samples, channels, rows, columns, sample_stride, channel_stride, row_stride, column_stride }

// The gradient of a map has its shape, not always its layout.
#define GRADIENT_STRIDES_ARGUMENTS \
  int64_t to_sample_stride, int64_t to_channel_stride, int64_t to_row_stride, int64_t to_column_stride
#define GRADIENT_LAYOUT \
  MapLayout { samples, channels, rows, columns, to_sample_stride, to_channel_stride, to_row_stride, to_column_stride }

/// The four cells round a point and their weights, in the order of `bilinear_interpolate_torch`: (row, column) = (y0, x0), (y1, x0),
/// (y0, x1), (y1, x1).
template <class Real>
struct Corners {
  int64_t sample = -1;  // below 0 where the point reads nothing
  int64_t row = 0, column = 0;
  Real weight[4] = {0, 0, 0, 0};
  Real along_x = 0, along_y = 0;  // 0..1, past the first column and row

  OPS_HOST_DEVICE bool is_inside() const { return sample >= 0; }
  OPS_HOST_DEVICE int64_t offset(const MapLayout& map, int corner) const {
    return sample * map.sample_stride + (row + (corner & 1)) * map.row_stride + (column + (corner >> 1)) * map.column_stride;
  }
  /// A number for each cell of the batch; cells() where the point reads nothing.
  OPS_HOST_DEVICE int64_t cell(const MapLayout& map, int corner) const {
    return is_inside() ? (sample * map.rows + row + (corner & 1)) * map.columns + column + (corner >> 1) : map.cells();
  }
};

/// A point reads nothing where one of its two rows or columns is not on the map (so from the last row and column on): there the published
/// code clamps both to the same cell, whose two weights add up to 0. NaN lies nowhere.
template <class Real>
OPS_HOST_DEVICE Corners<Real> corners_of(const MapLayout& map, Real x, Real y, int64_t sample) {
  Corners<Real> corners;
  // 2^31: so far the conversion is defined, and no map is larger. NaN fails.
  if (!(x >= 0 && x < Real(2147483648.) && y >= 0 && y < Real(2147483648.)) || sample < 0 || sample >= map.samples) return corners;
  const int64_t column = static_cast<int64_t>(x), row = static_cast<int64_t>(y);
  if (column + 1 >= map.columns || row + 1 >= map.rows) return corners;
  const Real after_x = x - static_cast<Real>(column), before_x = static_cast<Real>(column + 1) - x;
  const Real after_y = y - static_cast<Real>(row), before_y = static_cast<Real>(row + 1) - y;
  corners.sample = sample, corners.row = row, corners.column = column;
  corners.weight[0] = before_x * before_y, corners.weight[1] = before_x * after_y;
  corners.weight[2] = after_x * before_y, corners.weight[3] = after_x * after_y;
  corners.along_x = after_x, corners.along_y = after_y;
  return corners;
}

/// The published order of products and sums.
template <class Real>
OPS_HOST_DEVICE Real blend(Real a, Real b, Real c, Real d, const Real* weight) {
  return a * weight[0] + b * weight[1] + c * weight[2] + d * weight[3];
}

/// What one channel adds to the gradient of a point: the change of its value along x and y, times the gradient of the value. Double, as the
/// sum over the channels is.
struct Slopes {
  double x, y;
};

template <class Real>
OPS_HOST_DEVICE Slopes slopes(Real a, Real b, Real c, Real d, const Corners<Real>& corners, Real gradient) {
  const double u = corners.along_x, v = corners.along_y, g = gradient;
  return {g * ((1 - v) * (double(c) - a) + v * (double(d) - b)), g * ((1 - u) * (double(b) - a) + u * (double(d) - c))};
}

/// The channels of one point are added in this many strands (channel modulo kStrands), then strand i + 16 to i, i + 8 to i, and so on: the
/// way a warp does it.
constexpr int kStrands = 32;

}  // namespace ops
