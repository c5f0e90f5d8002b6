// Rows reduced by voxel: what becomes the maximum and what the mean, and where their gradients go, once, for both compilers.
#pragma once

#include "common.hpp"

namespace ops {

/// Whether a row belongs to a voxel; every other number leaves the row out.
OPS_HOST_DEVICE bool is_voxel(int32_t index, int64_t size) { return index >= 0 && index < size; }

/// Whether `value` takes the place of `best`, which came earlier: it is larger, or the first NaN.
template <class T>
OPS_HOST_DEVICE bool replaces(T value, T best) {
  return !(value <= best) & (best == best);  // without a branch, so that compilers can work on many columns at once
}

template <class T>
OPS_HOST_DEVICE T mean_of(T sum, int64_t count) {
  return sum / static_cast<T>(count);
}

/// What of a maximum's gradient belongs to `row`.
template <class T>
OPS_HOST_DEVICE T grad_of_max(T grad, int32_t argmax, int32_t row) {
  return argmax == row ? grad : T{0};
}

}  // namespace ops
