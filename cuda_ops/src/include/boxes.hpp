// Upright boxes seen from above: overlap, the rules of non-maximum suppression, containment; once, for both compilers.
#pragma once

#include "common.hpp"

namespace ops {

// Not fmin and fmax: these are one instruction each, and the second argument where one is NaN.
OPS_HOST_DEVICE double smaller(double a, double b) { return a < b ? a : b; }
OPS_HOST_DEVICE double larger(double a, double b) { return a > b ? a : b; }

/// A rectangle in the ground plane. area is 0 where the row is no box (NaN, infinite, or a size that is not above 0): it overlaps nothing.
struct BevBox {
  double x, y, half_length, half_width, cosine, sine;
  double radius;  // of the circle round it
  double area;

  /// Half the size of the rectangle along the axes that holds the box.
  OPS_HOST_DEVICE double extent_x() const { return fabs(cosine) * half_length + fabs(sine) * half_width; }
  OPS_HOST_DEVICE double extent_y() const { return fabs(sine) * half_length + fabs(cosine) * half_width; }
};

/// A box of 5 columns (x, y, length, width, yaw) or 7 (x, y, z, length, width, height, yaw) from above.
OPS_HOST_DEVICE BevBox make_bev_box(const double* row, int64_t columns) {
  const int64_t size = columns == 7 ? 3 : 2;
  const double length = row[size], width = row[size + 1];
  double yaw = row[columns - 1];
  BevBox box{row[0], row[1], length / 2, width / 2, 1, 0, 0, 0};
  const double nothing = (box.x - box.x) + (box.y - box.y) + (length - length) + (width - width) + (yaw - yaw);
  if (!(nothing == 0) || !(length > 0) || !(width > 0)) return box;
  if (fabs(yaw) > 1e5) yaw = fmod(yaw, 6.283185307179586);  // beyond the range of sincos_same; such a yaw has lost its digits anyhow
  sincos_same(yaw, box.sine, box.cosine);
  const double area = length * width;
  box.radius = sqrt(box.half_length * box.half_length + box.half_width * box.half_width);
  if (area - area == 0 && box.radius - box.radius == 0) box.area = area;  // else too large for arithmetic
  return box;
}

/// Where a box begins and ends upwards. height is 0 where the row is no box.
struct Span {
  double z, height;
};

OPS_HOST_DEVICE Span make_span(const double* row) {
  const double z = row[2], height = row[5];
  return {z, (z - z) + (height - height) == 0 && height > 0 ? height : 0.0};
}

/// Which of two different boxes gives the frame to work in: any rule will do that does not depend on the order of the arguments.
OPS_HOST_DEVICE bool gives_frame(const BevBox& a, const BevBox& b) {
  if (a.area != b.area) return a.area > b.area;
  if (a.x != b.x) return a.x < b.x;
  if (a.y != b.y) return a.y < b.y;
  if (a.half_length != b.half_length) return a.half_length < b.half_length;
  if (a.cosine != b.cosine) return a.cosine < b.cosine;
  return a.sine < b.sine;
}

OPS_HOST_DEVICE double clamp_to(double value, double half) { return smaller(larger(value, -half), half); }

/// The integral of y dx along the edge from (x0, y0) to (x1, y1), with x cut to +-half_x and y pressed into +-half_y.
OPS_HOST_DEVICE double area_under_edge(double x0, double y0, double x1, double y1, double half_x, double half_y) {
  const double first = clamp_to(x0, half_x), last = clamp_to(x1, half_x);
  if (first == last) return 0;
  const double rise = (y1 - y0) / (x1 - x0);
  const double ya = first == x0 ? y0 : y0 + (first - x0) * rise, yb = last == x1 ? y1 : y0 + (last - x0) * rise;
  const double low = smaller(ya, yb), high = larger(ya, yb);
  const double low_in = clamp_to(low, half_y), high_in = clamp_to(high, half_y);
  // The mean of the pressed y: the slanted middle part, and what lies beyond the limits, each by its share of the edge.
  double mean = 0.5 * (low_in + high_in);
  if (low_in != low || high_in != high) {
    const double beyond = larger(high - larger(low, half_y), 0) - larger(smaller(high, -half_y) - low, 0);
    mean = high > low ? ((high_in - low_in) * mean + half_y * beyond) / (high - low) : low_in;
  }
  return (last - first) * mean;
}

/// Area that two boxes share, or 0 where it is certain to lie below `needed`.
///
/// Worked out in the frame and about the middle of one of the boxes, so that it is as exact 50 km from the origin. For each x the shared
/// stretch runs from the lower to the upper border of the other box, both pressed into the first one's width: a sum over four edges,
/// without a polygon to store, and with an error of some 1e-16 of the larger box. The same bits with the arguments exchanged.
OPS_HOST_DEVICE double intersection_area(const BevBox& one, const BevBox& other, double needed = 0) {
  // Overlaps no deeper than this part of the boxes' size are rounding: boxes that touch share nothing.
  constexpr double kTouching = 4e-15;
  const double reach = one.radius + other.radius;
  const double far_x = other.x - one.x, far_y = other.y - one.y;
  if (!(far_x * far_x + far_y * far_y < reach * reach) || one.area == 0 || other.area == 0) return 0;
  if (one.x == other.x && one.y == other.y && one.half_length == other.half_length && one.half_width == other.half_width &&
      one.cosine == other.cosine && one.sine == other.sine) {
    return one.area;
  }
  const bool in_order = gives_frame(one, other);
  const BevBox& a = in_order ? one : other;
  const BevBox& b = in_order ? other : one;
  const double dx = b.x - a.x, dy = b.y - a.y;
  const double u = a.cosine * dx + a.sine * dy, v = a.cosine * dy - a.sine * dx;  // the middle of b seen from a
  const double c = a.cosine * b.cosine + a.sine * b.sine, s = a.cosine * b.sine - a.sine * b.cosine;
  const double ac = fabs(c), as = fabs(s);
  const double extent_u = ac * b.half_length + as * b.half_width, extent_v = as * b.half_length + ac * b.half_width;
  const double shared_u = smaller(a.half_length, u + extent_u) - larger(-a.half_length, u - extent_u);
  const double shared_v = smaller(a.half_width, v + extent_v) - larger(-a.half_width, v - extent_v);
  const double touching = kTouching * reach;
  if (shared_u <= touching || shared_v <= touching || shared_u * shared_v < needed) return 0;
  // The same along b's axes; after that the boxes are known to overlap (separating axes).
  const double p = fabs(b.cosine * dx + b.sine * dy), q = fabs(b.cosine * dy - b.sine * dx);
  if (ac * a.half_length + as * a.half_width + b.half_length - p <= touching) return 0;
  if (as * a.half_length + ac * a.half_width + b.half_width - q <= touching) return 0;
  const double lx = c * b.half_length, ly = s * b.half_length, wx = -s * b.half_width, wy = c * b.half_width;
  const double x0 = u + lx - wx, y0 = v + ly - wy, x1 = u + lx + wx, y1 = v + ly + wy;  // front right, front left,
  const double x2 = u - lx + wx, y2 = v - ly + wy, x3 = u - lx - wx, y3 = v - ly - wy;  // rear left, rear right
  const double area = -(area_under_edge(x0, y0, x1, y1, a.half_length, a.half_width) + area_under_edge(x1, y1, x2, y2, a.half_length, a.half_width) +
                        area_under_edge(x2, y2, x3, y3, a.half_length, a.half_width) + area_under_edge(x3, y3, x0, y0, a.half_length, a.half_width));
  return smaller(larger(area, 0.0), b.area);  // b is the smaller one
}

/// Never above 1: the union is the larger one and what the smaller one adds.
OPS_HOST_DEVICE double iou_of(double shared, double size_a, double size_b) {
  if (!(shared > 0)) return 0;
  return shared / (larger(size_a, size_b) + (smaller(size_a, size_b) - shared));
}

OPS_HOST_DEVICE double iou_bev(const BevBox& a, const BevBox& b) { return iou_of(intersection_area(a, b), a.area, b.area); }

OPS_HOST_DEVICE double iou_3d(const BevBox& a, const Span& a_span, const BevBox& b, const Span& b_span) {
  const double dz = fabs(b_span.z - a_span.z), half_a = a_span.height / 2, half_b = b_span.height / 2;
  if (!(dz < half_a + half_b) || a_span.height == 0 || b_span.height == 0) return 0;
  // Whole heights where one span holds the other, so that identical boxes come to exactly 1.
  const double shared_z = smaller(smaller(a_span.height, b_span.height), half_a + half_b - dz);
  const double volume_a = a.area * a_span.height, volume_b = b.area * b_span.height;
  const double shared = smaller(intersection_area(a, b) * shared_z, smaller(volume_a, volume_b));
  return volume_a - volume_a == 0 && volume_b - volume_b == 0 ? iou_of(shared, volume_a, volume_b) : 0;
}

/// The rule of non-maximum suppression for boxes: a kept box drops a later one when their IoU is ABOVE the threshold.
struct SuppressByIou {
  double threshold;
  OPS_HOST_DEVICE bool operator()(const BevBox& kept, const BevBox& later) const {
    // IoU > t needs a shared area above t / (1 + t) of the sum of both; the margin leaves what is close to the rule itself.
    const double needed = threshold / (1 + threshold) * (kept.area + later.area) * (1 - 1e-12);
    if (smaller(kept.area, later.area) < needed) return false;
    return iou_of(intersection_area(kept, later, needed), kept.area, later.area) > threshold;
  }
};

/// The rule for centres: a kept one drops a later one when the squared distance is AT MOST the square of the radius. In double, where the
/// squared distance of float32 centres a few radii apart is exact or nearly so.
struct SuppressByDistance {
  double squared_radius;
  OPS_HOST_DEVICE bool operator()(double kept_x, double kept_y, double later_x, double later_y) const {
    const double dx = kept_x - later_x, dy = kept_y - later_y;
    return dx * dx + dy * dy <= squared_radius;  // NaN fails
  }
};

/// Whether a point lies in an upright box, borders included; NaN lies in none.
OPS_HOST_DEVICE bool contains_point(const BevBox& box, const Span& span, double x, double y, double z) {
  const double dx = x - box.x, dy = y - box.y;
  const double along = box.cosine * dx + box.sine * dy, across = box.cosine * dy - box.sine * dx;
  return (fabs(along) <= box.half_length) & (fabs(across) <= box.half_width) & (fabs(z - span.z) <= span.height / 2) & (box.area > 0) &
         (span.height > 0);
}

/// Cells of a bird's-eye grid that only speeds up a search: monotone in x, so that a coordinate between two others gets a cell between
/// theirs, whatever the rounding. Everything beyond the border belongs to the cell at the border.
struct SearchAxis {
  double low, cells_per_metre, last;  // last: number of the last cell, below 2^31
  OPS_HOST_DEVICE int32_t operator()(double x) const { return static_cast<int32_t>(smaller(larger((x - low) * cells_per_metre, 0.0), last)); }
};

/// Room left round a box for the rounding of its corners: far more than that, far less than matters.
OPS_HOST_DEVICE double search_reach(double center, double extent) { return extent * (1 + 1e-12) + fabs(center) * 1e-14; }

}  // namespace ops
