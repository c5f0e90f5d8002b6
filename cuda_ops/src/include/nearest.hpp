// The nearest point of a group: distance and tie rule, once, for both compilers.
#pragma once

#include "common.hpp"

namespace ops {

/// A place in the plane. One that is not finite is NaN in x, so that no distance to it compares.
struct Place {
  double x, y;
};

OPS_HOST_DEVICE Place make_place(const double* xy) {
  const double nothing = (xy[0] - xy[0]) + (xy[1] - xy[1]);  // 0, or NaN where one is not finite
  return {xy[0] + nothing, xy[1]};
}

OPS_HOST_DEVICE double squared_distance(const Place& a, const Place& b) {
  const double dx = a.x - b.x, dy = a.y - b.y;
  return dx * dx + dy * dy;
}

/// The nearest of the points offered so far, of equally near ones the lowest row, in whatever order they come.
struct Nearest {
  double squared = HUGE_VAL;
  int32_t row = -1;

  /// A NaN loses; an overflow to infinity is still a point.
  OPS_HOST_DEVICE void offer(double other_squared, int32_t other_row) {
    if (other_squared < squared || (other_squared == squared && (row < 0 || other_row < row))) {
      squared = other_squared;
      row = other_row;
    }
  }
};

/// Groups as keys of a sort: only equal or not matters, so any one-to-one map will do.
OPS_HOST_DEVICE uint64_t key_of_group(int64_t group) { return static_cast<uint64_t>(group); }

/// The first of `count` ascending keys that is not below `key`.
OPS_HOST_DEVICE int64_t lower_bound_of(const uint64_t* keys, int64_t count, uint64_t key) {
  int64_t first = 0;
  while (count > 0) {
    const int64_t half = count / 2;
    if (keys[first + half] < key) {
      first += half + 1;
      count -= half + 1;
    } else {
      count = half;
    }
  }
  return first;
}

}  // namespace ops
