// First hits of rays on simple shapes: geometry, chances and the tie rule; once, for both compilers. Arithmetic is double throughout.
#pragma once

#include "boxes.hpp"
#include "common.hpp"

namespace ops {

// The numbers of `cuda_ops.Kind`.
enum PrimitiveKind : int32_t {
  kNothing = -1,
  kBox = 0,
  kCylinder = 1,
  kEllipsoid = 2,
  kEllipsoidVolume = 3,
  kBoxVolume = 4,
  kPlane = 5,
  kHeightField = 6
};

/// The columns of `cuda_ops.Primitives`.
struct PrimitiveTable {
  const int32_t* kind;
  const float *center, *size, *yaw, *taper, *normal, *pass_chance, *extinction;
  const int64_t* field;
  const float* heights;
  int64_t num_heights;
};

/// One primitive, ready for rays. Its own axes: about the centre (a height field: about the first height), x along the heading.
struct Primitive {
  int32_t kind;
  double x, y, z, cosine, sine;
  double half_x, half_y, half_z;   // a height field: the spacing of its heights along x and y, and the largest |height|
  double front, rear, side;        // metres that a face leans in per metre of height; a plane: its normal
  double pass_chance, extinction;
  const float* heights;
  int64_t rows, columns;
  double low_z, high_z;                    // of a height field, with some room, in its own axes
  double low_x, high_x, low_y, high_y;     // what it covers from above, in the world, with room for rounding
  double bottom, top;                      // the same upwards
};

constexpr double kFar = 1e8;  // metres; beyond, the room left for rounding is too small

OPS_HOST_DEVICE bool is_finite(double x) { return x - x == 0; }

/// Row i of the table; kNothing where it holds numbers that make no shape.
OPS_HOST_DEVICE Primitive make_primitive(const PrimitiveTable& table, int64_t i) {
  const float *center = table.center + 3 * i, *size = table.size + 3 * i, *taper = table.taper + 3 * i, *normal = table.normal + 3 * i;
  Primitive p{};
  p.kind = kNothing;
  p.x = center[0], p.y = center[1], p.z = center[2], p.cosine = 1, p.sine = 0;
  p.pass_chance = table.pass_chance[i], p.extinction = table.extinction[i];
  const int32_t kind = table.kind[i];
  if (!is_finite(p.x) || !is_finite(p.y) || !is_finite(p.z) || !(p.pass_chance >= 0)) return p;
  if (kind == kPlane) {
    const double nx = normal[0], ny = normal[1], nz = normal[2], length = sqrt(nx * nx + ny * ny + nz * nz);
    if (!(length > 0) || !is_finite(length)) return p;
    p.front = nx / length, p.rear = ny / length, p.side = nz / length;
    p.low_x = p.low_y = p.bottom = -HUGE_VAL, p.high_x = p.high_y = p.top = HUGE_VAL;
    p.kind = kind;
    return p;
  }
  double yaw = table.yaw[i];
  if (!is_finite(yaw)) return p;
  if (fabs(yaw) > 1e5) yaw = fmod(yaw, 6.283185307179586);  // beyond the range of sincos_same
  sincos_same(yaw, p.sine, p.cosine);
  double reach_x, reach_y, middle_x = p.x, middle_y = p.y;
  if (kind == kHeightField) {
    const int64_t first = table.field[3 * i], rows = table.field[3 * i + 1], columns = table.field[3 * i + 2];
    p.half_x = size[0], p.half_y = size[1];
    const bool is_inside = first >= 0 && first <= table.num_heights && rows >= 2 && columns >= 2 && rows < (int64_t{1} << 30) &&
                           columns < (int64_t{1} << 30) && rows * columns <= table.num_heights - first;
    if (!is_inside || !(p.half_x > 0) || !(p.half_y > 0) || !is_finite(p.half_x) || !is_finite(p.half_y)) return p;
    p.heights = table.heights + first, p.rows = rows, p.columns = columns;
    p.low_z = HUGE_VAL, p.high_z = -HUGE_VAL;
    for (int64_t k = 0; k < rows * columns; ++k) {
      if (!is_finite(p.heights[k])) return p;
      p.low_z = smaller(p.low_z, p.heights[k]), p.high_z = larger(p.high_z, p.heights[k]);
    }
    p.half_z = larger(fabs(p.low_z), fabs(p.high_z));
    // Room above and below, or level ground would leave a ray no stretch to change sides in.
    const double room = 0.01 + 1e-6 * (p.half_z + fabs(p.z));
    p.low_z -= room, p.high_z += room;
    const double u = (columns - 1) * p.half_x / 2, v = (rows - 1) * p.half_y / 2;
    middle_x += p.cosine * u - p.sine * v, middle_y += p.sine * u + p.cosine * v;
    reach_x = fabs(p.cosine) * u + fabs(p.sine) * v, reach_y = fabs(p.sine) * u + fabs(p.cosine) * v;
    p.bottom = p.z + p.low_z, p.top = p.z + p.high_z;
  } else {
    if (kind < kBox || kind > kBoxVolume) return p;
    p.half_x = size[0] / 2., p.half_y = size[1] / 2., p.half_z = size[2] / 2.;
    const double volume = p.half_x * p.half_y * p.half_z;
    if (!(p.half_x > 0) || !(p.half_y > 0) || !(p.half_z > 0) || !is_finite(volume)) return p;
    if (kind == kBox || kind == kBoxVolume) {
      p.front = taper[0], p.rear = taper[1], p.side = taper[2];
      if (!is_finite(p.front) || !is_finite(p.rear) || !is_finite(p.side)) return p;
      const double height = 2 * p.half_z;  // faces that lean out reach farther
      const double x = p.half_x + height * larger(0, larger(-p.front, -p.rear)), y = p.half_y + height * larger(0, -p.side);
      reach_x = fabs(p.cosine) * x + fabs(p.sine) * y, reach_y = fabs(p.sine) * x + fabs(p.cosine) * y;
    } else {
      reach_x = sqrt(p.cosine * p.cosine * p.half_x * p.half_x + p.sine * p.sine * p.half_y * p.half_y);
      reach_y = sqrt(p.sine * p.sine * p.half_x * p.half_x + p.cosine * p.cosine * p.half_y * p.half_y);
    }
    if ((kind == kBoxVolume || kind == kEllipsoidVolume) && !(p.extinction > 0)) return p;
    const double room = 1e-4 + 1e-9 * (fabs(p.z) + p.half_z);
    p.bottom = p.z - p.half_z - room, p.top = p.z + p.half_z + room;
  }
  const double room_x = 1e-4 + 1e-9 * (fabs(middle_x) + reach_x), room_y = 1e-4 + 1e-9 * (fabs(middle_y) + reach_y);
  p.low_x = middle_x - reach_x - room_x, p.high_x = middle_x + reach_x + room_x;
  p.low_y = middle_y - reach_y - room_y, p.high_y = middle_y + reach_y + room_y;
  p.kind = kind;
  return p;
}

struct Ray {
  double x, y, z, dx, dy, dz;  // the direction has unit length
  bool is_ray;                 // false: NaN, infinite or without a direction
};

OPS_HOST_DEVICE Ray make_ray(const float* origin, const float* direction) {
  Ray ray{origin[0], origin[1], origin[2], direction[0], direction[1], direction[2], false};
  const double length = sqrt(ray.dx * ray.dx + ray.dy * ray.dy + ray.dz * ray.dz);
  ray.is_ray = length > 0 && is_finite(length) && is_finite(ray.x) && is_finite(ray.y) && is_finite(ray.z);
  if (ray.is_ray) ray.dx /= length, ray.dy /= length, ray.dz /= length;
  return ray;
}

/// The ray in the own axes of a primitive.
OPS_HOST_DEVICE Ray seen_from(const Primitive& p, const Ray& ray) {
  const double x = ray.x - p.x, y = ray.y - p.y;
  const double dx = p.cosine * ray.dx + p.sine * ray.dy, dy = p.cosine * ray.dy - p.sine * ray.dx;
  return {p.cosine * x + p.sine * y, p.cosine * y - p.sine * x, ray.z - p.z, dx, dy, ray.dz, true};
}

/// The stretch of a ray inside of a convex shape; both ends belong to it.
struct Stretch {
  double enter = -HUGE_VAL, leave = HUGE_VAL;
  int64_t face = 0;  // the one it enters by
  bool is_empty = false;

  /// Keep what lies in the half space value + t * slope <= 0.
  OPS_HOST_DEVICE void cut(double value, double slope, int64_t number) {
    if (slope == 0) {
      is_empty |= value > 0;
      return;
    }
    const double t = -value / slope;
    if (slope < 0) {
      if (t > enter) enter = t, face = number;
    } else if (t < leave) {
      leave = t;
    }
  }

  /// Keep what lies in the unit circle or sphere, for a point e + t * w. By way of the nearest point, which keeps the digits of far rays.
  OPS_HOST_DEVICE void cut_round(double ex, double ey, double ez, double wx, double wy, double wz, int64_t number) {
    const double speed = wx * wx + wy * wy + wz * wz;
    const double nearest = speed > 1e-30 ? -(ex * wx + ey * wy + ez * wz) / speed : 0.0;  // else along a cylinder's axis
    const double px = ex + nearest * wx, py = ey + nearest * wy, pz = ez + nearest * wz;
    const double left = 1 - (px * px + py * py + pz * pz);
    is_empty |= !(left >= 0);
    if (is_empty || !(speed > 1e-30)) return;
    const double half = sqrt(left / speed);
    if (nearest - half > enter) enter = nearest - half, face = number;
    if (nearest + half < leave) leave = nearest + half;
  }
};

// Faces of boxes: front, rear, left, right, top, bottom; of cylinders the last two and the round one.
enum Face : int64_t { kFront, kRear, kLeft, kRight, kTop, kBottom, kRound };

OPS_HOST_DEVICE Stretch stretch_inside(const Primitive& p, const Ray& r) {
  Stretch s;
  if (p.kind == kEllipsoid || p.kind == kEllipsoidVolume) {
    s.cut_round(r.x / p.half_x, r.y / p.half_y, r.z / p.half_z, r.dx / p.half_x, r.dy / p.half_y, r.dz / p.half_z, kRound);
    return s;
  }
  s.cut(r.z - p.half_z, r.dz, kTop);
  s.cut(-r.z - p.half_z, -r.dz, kBottom);
  if (p.kind == kCylinder) {
    s.cut_round(r.x / p.half_x, r.y / p.half_y, 0, r.dx / p.half_x, r.dy / p.half_y, 0, kRound);
    return s;
  }
  const double height = r.z + p.half_z;  // above the bottom, where the faces have their full distance
  s.cut(r.x - p.half_x + p.front * height, r.dx + p.front * r.dz, kFront);
  s.cut(-r.x - p.half_x + p.rear * height, -r.dx + p.rear * r.dz, kRear);
  s.cut(r.y - p.half_y + p.side * height, r.dy + p.side * r.dz, kLeft);
  s.cut(-r.y - p.half_y + p.side * height, -r.dy + p.side * r.dz, kRight);
  return s;
}

// ---- height fields: u along the columns, v along the rows, in cells; each cell is cut from its first corner to the opposite one ----

/// Height and, per cell, its rise along u and v in the triangle that holds (u, v). Continuous, so it does not matter which side of a border
/// rounding puts a point on.
struct Slope {
  double height, along_u, along_v;
  int64_t triangle;
};

OPS_HOST_DEVICE Slope triangle_of(const Primitive& p, int64_t number, double u, double v) {
  const int64_t cell = number / 2, row = cell / (p.columns - 1), column = cell % (p.columns - 1);
  const float* h = p.heights + row * p.columns + column;
  const double h00 = h[0], h10 = h[1], h01 = h[p.columns], h11 = h[p.columns + 1];
  Slope s{0, number & 1 ? h11 - h01 : h10 - h00, number & 1 ? h01 - h00 : h11 - h10, number};
  s.height = h00 + (u - column) * s.along_u + (v - row) * s.along_v;
  return s;
}

OPS_HOST_DEVICE Slope surface_at(const Primitive& p, double u, double v) {
  u = smaller(larger(u, 0), static_cast<double>(p.columns - 1)), v = smaller(larger(v, 0), static_cast<double>(p.rows - 1));
  const int64_t column = static_cast<int64_t>(smaller(u, static_cast<double>(p.columns - 2)));
  const int64_t row = static_cast<int64_t>(smaller(v, static_cast<double>(p.rows - 2)));
  return triangle_of(p, 2 * (row * (p.columns - 1) + column) + (v - row > u - column), u, v);
}

/// Where a ray crosses the lines w = lowest, lowest + 1, ..., highest, one after the other.
struct Crossings {
  double start, speed, lowest, highest, next;
  OPS_HOST_DEVICE Crossings(double start_, double speed_, double t, double lowest_, double highest_)
      : start(start_), speed(speed_), lowest(lowest_), highest(highest_) {
    // Into the field: what rounding makes of rays from very far away must still come to an end.
    const double w = smaller(larger(start + t * speed, lowest), highest);
    next = speed > 0 ? floor(w) + 1 : ceil(w) - 1;
  }
  OPS_HOST_DEVICE double t() const { return speed == 0 || next < lowest || next > highest ? HUGE_VAL : (next - start) / speed; }
  OPS_HOST_DEVICE void step() { next += speed > 0 ? 1 : -1; }
};

/// First place in [from, to] where the ray meets the surface. Three families of edges cut the ray into stretches over one triangle each.
/// The height above the surface is worked out once at each end and handed on: where it changes sides some stretch must see it, whatever the
/// rounding, so there are no holes between triangles.
OPS_HOST_DEVICE double distance_to_field(const Primitive& p, const Ray& r, double from, double to, int64_t& triangle) {
  const double u0 = r.x / p.half_x, v0 = r.y / p.half_y, du = r.dx / p.half_x, dv = r.dy / p.half_y;
  Stretch s;
  s.cut(-u0, -du, 0), s.cut(u0 - static_cast<double>(p.columns - 1), du, 0);
  s.cut(-v0, -dv, 0), s.cut(v0 - static_cast<double>(p.rows - 1), dv, 0);
  s.cut(p.low_z - r.z, -r.dz, 0), s.cut(r.z - p.high_z, r.dz, 0);
  double t = larger(s.enter, from);
  const double end = smaller(s.leave, to);
  if (s.is_empty || !(t <= end) || !is_finite(end)) return HUGE_VAL;
  const double last_u = static_cast<double>(p.columns - 1), last_v = static_cast<double>(p.rows - 1);
  Crossings along_u(u0, du, t, 0, last_u), along_v(v0, dv, t, 0, last_v), across(u0 - v0, du - dv, t, -last_v, last_u);
  double above = r.z + t * r.dz - surface_at(p, u0 + t * du, v0 + t * dv).height;
  for (;;) {
    const double tu = along_u.t(), tv = along_v.t(), ta = across.t();
    const double first = smaller(tu, smaller(tv, ta)), next = larger(t, smaller(first, end)), middle = 0.5 * (t + next);
    const double above_next = r.z + next * r.dz - surface_at(p, u0 + next * du, v0 + next * dv).height;
    if (above == 0 || above_next == 0 || (above < 0) != (above_next < 0)) {
      triangle = surface_at(p, u0 + middle * du, v0 + middle * dv).triangle;
      return above == 0 ? t : above_next == 0 ? next : t + (next - t) * (above / (above - above_next));
    }
    if (!(first < end)) return HUGE_VAL;
    if (tu == first) along_u.step();
    if (tv == first) along_v.step();
    if (ta == first) across.step();
    t = next, above = above_next;
  }
}

// ---- chances ----

/// A number well mixed from another (the finalizer of splitmix64).
OPS_HOST_DEVICE uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

enum Stream : uint64_t { kPasses = 1, kFreePath = 2 };

/// Even in (0, 1), a function of its arguments alone.
OPS_HOST_DEVICE double chance(uint64_t seed, int64_t ray, int64_t primitive, Stream stream) {
  constexpr uint64_t kStep = 0x9e3779b97f4a7c15ull;
  const uint64_t of_ray = mix(mix(seed + kStep) + static_cast<uint64_t>(ray) * kStep);
  const uint64_t bits = mix(of_ray + (4 * static_cast<uint64_t>(primitive) + stream) * kStep);
  return (static_cast<double>(bits >> 12) + 0.5) * (1.0 / 4503599627370496.0);
}

/// Natural logarithm of a normal number above 0, the same bits on the CPU and the GPU. Error below 1e-15.
OPS_HOST_DEVICE double log_same(double x) {
  int exponent;
  double m = frexp(x, &exponent);
  if (m < 0.70710678118654752) m *= 2, --exponent;
  const double s = (m - 1) / (m + 1), s2 = s * s;  // |s| < 0.172: the first term left out is below 1e-19
  double sum = 1. / 23;
  for (int n = 21; n >= 1; n -= 2) sum = sum * s2 + 1. / n;
  return exponent * 0.69314718055994531 + 2 * s * sum;
}

// ---- first hits ----

struct RayLimits {
  uint64_t seed;
  float min_range, max_range;
};

/// The best hit so far: the smaller distance in float32, of equal ones the lower primitive.
struct FirstHit {
  float distance = HUGE_VALF;
  int32_t primitive = -1;
  int64_t face = 0;

  /// Nothing beyond this distance can still become the first hit, its rounding to float32 included.
  OPS_HOST_DEVICE double limit(const RayLimits& limits) const {
    return static_cast<double>(distance < limits.max_range ? distance : limits.max_range) * (1 + 1e-6);
  }

  OPS_HOST_DEVICE void offer(const Primitive& p, int64_t index, const Ray& ray, int64_t ray_index, const RayLimits& limits) {
    const double nearest = limits.min_range, farthest = limit(limits);
    double t = HUGE_VAL;
    int64_t where = 0;
    if (p.kind == kPlane) {
      const double toward = p.front * ray.dx + p.rear * ray.dy + p.side * ray.dz;
      const double apart = p.front * (p.x - ray.x) + p.rear * (p.y - ray.y) + p.side * (p.z - ray.z);
      if (toward != 0) t = apart / toward;
    } else if (p.kind == kHeightField) {
      t = distance_to_field(p, seen_from(p, ray), nearest, farthest, where);
    } else if (p.kind != kNothing) {
      const Stretch s = stretch_inside(p, seen_from(p, ray));
      if (s.is_empty || !(s.enter <= s.leave) || !(s.leave >= nearest) || !(s.enter <= farthest)) return;
      t = s.enter, where = s.face;
      if (p.kind == kBoxVolume || p.kind == kEllipsoidVolume) {
        const double path = -log_same(chance(limits.seed, ray_index, index, kFreePath));
        t = larger(s.enter, nearest) + path / p.extinction;
        if (!(t <= s.leave)) return;
      }
    }
    const float rounded = static_cast<float>(t) + 0.0f;  // never -0
    if (!(rounded >= limits.min_range && rounded <= limits.max_range && rounded < HUGE_VALF)) return;
    if (rounded > distance || (rounded == distance && index > primitive)) return;
    if (p.pass_chance > 0 && chance(limits.seed, ray_index, index, kPasses) < p.pass_chance) return;
    distance = rounded, primitive = static_cast<int32_t>(index), face = where;
  }
};

/// The unit normal of the surface at a hit, facing the ray; zeros in a volume.
OPS_HOST_DEVICE void normal_of(const Primitive& p, const Ray& ray, const FirstHit& hit, float* normal) {
  double x = 0, y = 0, z = 0;
  if (p.kind == kPlane) {
    x = p.front, y = p.rear, z = p.side;
  } else if (p.kind == kHeightField) {
    const Slope s = triangle_of(p, hit.face, 0, 0);
    x = -s.along_u / p.half_x, y = -s.along_v / p.half_y, z = 1;
  } else if (p.kind == kBox || p.kind == kCylinder || p.kind == kEllipsoid) {
    const Ray r = seen_from(p, ray);
    const double t = hit.face == kRound ? stretch_inside(p, r).enter : 0;  // with all digits: small shapes far away
    switch (hit.face) {
      case kFront: x = 1, z = p.front; break;
      case kRear: x = -1, z = p.rear; break;
      case kLeft: y = 1, z = p.side; break;
      case kRight: y = -1, z = p.side; break;
      case kTop: z = 1; break;
      case kBottom: z = -1; break;
      default:
        x = (r.x + t * r.dx) / p.half_x / p.half_x, y = (r.y + t * r.dy) / p.half_y / p.half_y;
        if (p.kind == kEllipsoid) z = (r.z + t * r.dz) / p.half_z / p.half_z;
    }
  }
  const double length = sqrt(x * x + y * y + z * z);
  if (!(length > 0)) {
    normal[0] = normal[1] = normal[2] = 0;
    return;
  }
  const double wx = p.cosine * x - p.sine * y, wy = p.sine * x + p.cosine * y;
  const double scale = (wx * ray.dx + wy * ray.dy + z * ray.dz > 0 ? -1 : 1) / length;
  normal[0] = static_cast<float>(wx * scale), normal[1] = static_cast<float>(wy * scale), normal[2] = static_cast<float>(z * scale);
}

}  // namespace ops
