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
  double rim;                              // metres that a height field goes on, level, beyond its border (see distance_to_field)
  double low_x, high_x, low_y, high_y;     // what it covers from above, in the world, with room for rounding
  double bottom, top;                      // the same upwards
};

OPS_HOST_DEVICE bool is_finite(double x) { return x - x == 0; }

/// The lowest and the highest of some heights, and whether all are numbers. The order in which they are looked at does not matter.
struct HeightExtent {
  float low, high;
  int32_t is_finite;
  OPS_HOST_DEVICE static HeightExtent none() { return {HUGE_VALF, -HUGE_VALF, 1}; }
  OPS_HOST_DEVICE void add(float height) {
    if (height < low) low = height;
    if (height > high) high = height;
    is_finite &= height - height == 0;
  }
  OPS_HOST_DEVICE void add(const HeightExtent& other) {
    if (other.low < low) low = other.low;
    if (other.high > high) high = other.high;
    is_finite &= other.is_finite;
  }
};

/// Whether row i is a height field whose heights lie within the table's.
OPS_HOST_DEVICE bool has_heights(const PrimitiveTable& table, int64_t i) {
  const int64_t first = table.field[3 * i], rows = table.field[3 * i + 1], columns = table.field[3 * i + 2];
  return table.kind[i] == kHeightField && first >= 0 && first <= table.num_heights && rows >= 2 && columns >= 2 &&
         rows < (int64_t{1} << 30) && columns < (int64_t{1} << 30) && rows * columns <= table.num_heights - first;
}

/// Row i of the table; kNothing where it holds numbers that make no shape. extent: of its heights, where it has some.
OPS_HOST_DEVICE Primitive make_primitive(const PrimitiveTable& table, int64_t i, const HeightExtent& extent) {
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
    if (!has_heights(table, i) || !extent.is_finite) return p;
    if (!(p.half_x > 0) || !(p.half_y > 0) || !is_finite(p.half_x) || !is_finite(p.half_y)) return p;
    p.heights = table.heights + first, p.rows = rows, p.columns = columns;
    p.low_z = extent.low, p.high_z = extent.high;
    p.half_z = larger(fabs(p.low_z), fabs(p.high_z));
    // Room above and below, or level ground would leave a ray no stretch to change sides in.
    const double room = 0.01 + 1e-6 * (p.half_z + fabs(p.z));
    p.low_z -= room, p.high_z += room;
    const double u = (columns - 1) * p.half_x / 2, v = (rows - 1) * p.half_y / 2;
    middle_x += p.cosine * u - p.sine * v, middle_y += p.sine * u + p.cosine * v;
    // What rounding the centre, the spacing and the yaw to float32 may take away between neighbours that share a border.
    p.rim = 2.5e-7 * (fabs(p.x) + fabs(p.y) + 2 * u + 2 * v);
    reach_x = fabs(p.cosine) * u + fabs(p.sine) * v + 2 * p.rim, reach_y = fabs(p.sine) * u + fabs(p.cosine) * v + 2 * p.rim;
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

/// One triangle of a cell: the height of the cell's first corner, and the rise along u and v.
struct Slope {
  double corner, along_u, along_v;
};

/// is_upper: the triangle on the side of larger v.
OPS_HOST_DEVICE Slope slope_of(const Primitive& p, int64_t row, int64_t column, bool is_upper) {
  const float* h = p.heights + row * p.columns + column;
  const double h00 = h[0], h10 = h[1], h01 = h[p.columns], h11 = h[p.columns + 1];
  return {h00, is_upper ? h11 - h01 : h10 - h00, is_upper ? h01 - h00 : h11 - h10};
}

/// A place of the surface. Its height is continuous, so it does not matter which side of a border rounding puts a point on; beyond the
/// border of the field it goes on level.
struct Place {
  double u, v;
  int64_t row, column;
  bool is_upper;
  OPS_HOST_DEVICE Place(const Primitive& p, double u_, double v_)
      : u(smaller(larger(u_, 0), static_cast<double>(p.columns - 1))), v(smaller(larger(v_, 0), static_cast<double>(p.rows - 1))) {
    column = static_cast<int64_t>(smaller(u, static_cast<double>(p.columns - 2)));
    row = static_cast<int64_t>(smaller(v, static_cast<double>(p.rows - 2)));
    u -= static_cast<double>(column), v -= static_cast<double>(row), is_upper = v > u;
  }
  OPS_HOST_DEVICE double height(const Primitive& p) const {
    const Slope s = slope_of(p, row, column, is_upper);
    return s.corner + u * s.along_u + v * s.along_v;
  }
  OPS_HOST_DEVICE int64_t triangle(const Primitive& p) const { return 2 * (row * (p.columns - 1) + column) + is_upper; }
};

/// Where a ray crosses the lines w = lowest, lowest + 1, ..., highest, one after the other.
struct Crossings {
  double start, per_speed, step_by, lowest, highest, next, t;
  OPS_HOST_DEVICE Crossings(double start_, double speed, double from, double lowest_, double highest_)
      : start(start_), per_speed(speed != 0 ? 1 / speed : 0), step_by(speed > 0 ? 1 : -1), lowest(lowest_), highest(highest_) {
    // Into the field, half a cell of its surroundings included: what rounding makes of rays from very far away must still come to an end.
    const double w = smaller(larger(start + from * speed, lowest - 0.5), highest + 0.5);
    next = speed > 0 ? floor(w) + 1 : ceil(w) - 1;
    find();
  }
  OPS_HOST_DEVICE void find() { t = per_speed == 0 || next < lowest || next > highest ? HUGE_VAL : (next - start) * per_speed; }
  OPS_HOST_DEVICE void step() { next += step_by, find(); }
};

/// First place from `from` on where the ray meets the surface; what lies beyond `to` need not be found, and never changes what is.
/// Three families of edges cut the ray into stretches over one triangle each. The height above the surface is worked out once at each end
/// and handed on: where it changes sides some stretch must see it, whatever the rounding, so there are no holes between triangles.
/// Nor between fields that share a border, though rounding may move each by itself: both go on over it by a rim.
OPS_HOST_DEVICE double distance_to_field(const Primitive& p, const Ray& r, double from, double to, int64_t& triangle) {
  const double u0 = r.x / p.half_x, v0 = r.y / p.half_y, du = r.dx / p.half_x, dv = r.dy / p.half_y;
  const double last_u = static_cast<double>(p.columns - 1), last_v = static_cast<double>(p.rows - 1);
  const double rim_u = p.rim / p.half_x, rim_v = p.rim / p.half_y;
  Stretch s;
  s.cut(-u0 - rim_u, -du, 0), s.cut(u0 - (last_u + rim_u), du, 0);
  s.cut(-v0 - rim_v, -dv, 0), s.cut(v0 - (last_v + rim_v), dv, 0);
  s.cut(p.low_z - r.z, -r.dz, 0), s.cut(r.z - p.high_z, r.dz, 0);
  double t = larger(s.enter, from);
  const double end = s.leave;
  if (s.is_empty || !(t <= end) || !is_finite(end)) return HUGE_VAL;
  Crossings along_u(u0, du, t, 0, last_u), along_v(v0, dv, t, 0, last_v), across(u0 - v0, du - dv, t, -last_v, last_u);
  double above = r.z + t * r.dz - Place(p, u0 + t * du, v0 + t * dv).height(p);
  while (t <= to) {
    const double first = smaller(along_u.t, smaller(along_v.t, across.t)), next = larger(t, smaller(first, end));
    const double above_next = r.z + next * r.dz - Place(p, u0 + next * du, v0 + next * dv).height(p);
    if (above == 0 || above_next == 0 || (above < 0) != (above_next < 0)) {
      const double middle = 0.5 * (t + next);
      triangle = Place(p, u0 + middle * du, v0 + middle * dv).triangle(p);
      return above == 0 ? t : above_next == 0 ? next : t + (next - t) * (above / (above - above_next));
    }
    if (!(first < end)) return HUGE_VAL;
    if (along_u.t == first) along_u.step();
    if (along_v.t == first) along_v.step();
    if (across.t == first) across.step();
    t = next, above = above_next;
  }
  return HUGE_VAL;
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

  /// Those of one ray. farthest: each ray's own largest range, or null; NaN lets it hit nothing.
  OPS_HOST_DEVICE RayLimits of_ray(const float* farthest, int64_t ray) const {
    return {seed, min_range, farthest && !(farthest[ray] >= max_range) ? farthest[ray] : max_range};
  }
};

/// The box along the world's axes that holds a primitive, rounded outwards; infinite for a plane.
struct alignas(16) Bounds {  // two loads of 16 bytes on a GPU
  float low_x, low_y, low_z, unused_low, high_x, high_y, high_z, unused_high;
};

OPS_HOST_DEVICE float rounded_down(double x) { return static_cast<float>(x - 1.2e-7 * fabs(x)); }
OPS_HOST_DEVICE float rounded_up(double x) { return static_cast<float>(x + 1.2e-7 * fabs(x)); }

OPS_HOST_DEVICE Bounds bounds_of(const Primitive& p) {
  return {rounded_down(p.low_x), rounded_down(p.low_y), rounded_down(p.bottom), 0,
          rounded_up(p.high_x),  rounded_up(p.high_y),  rounded_up(p.top),      0};
}

/// A ray as it passes boxes along the world's axes: a quick look, in float, that says no only where the primitive in the box is missed.
struct Sight {
  float x, y, z, per_x, per_y, per_z;  // metres of the ray to a metre along each axis

  OPS_HOST_DEVICE explicit Sight(const Ray& ray)
      : x(static_cast<float>(ray.x)), y(static_cast<float>(ray.y)), z(static_cast<float>(ray.z)),  // they were float32
        per_x(per_metre(ray.dx)), per_y(per_metre(ray.dy)), per_z(per_metre(ray.dz)) {}

  /// Whether the ray may meet what is in the box between the distances `nearest` and `farthest`.
  OPS_HOST_DEVICE bool may_meet(const Bounds& b, float nearest, float farthest) const {
    const float x0 = (b.low_x - x) * per_x, x1 = (b.high_x - x) * per_x, y0 = (b.low_y - y) * per_y, y1 = (b.high_y - y) * per_y;
    const float z0 = (b.low_z - z) * per_z, z1 = (b.high_z - z) * per_z;
    const float enter = most(most(least(x0, x1), least(y0, y1)), most(least(z0, z1), nearest));
    const float leave = least(least(most(x0, x1), most(y0, y1)), least(most(z0, z1), farthest));
    return overlaps(enter, leave);
  }

  /// Whether a ray that is in a box from `enter` to `leave` may meet what is in it. Each of these is off by 2e-7 of itself at most: a
  /// difference, a reciprocal and a product, rounded. The exact test, in double, is off by far less than what is allowed for here, from
  /// however far away.
  OPS_HOST_DEVICE static bool overlaps(float enter, float leave) { return enter - kRoom * enter <= leave + kRoom * fabsf(leave); }
  static constexpr float kRoom = 1e-6f;

#ifdef __CUDA_ARCH__  // one instruction each, and no NaN in sight
  OPS_HOST_DEVICE static float least(float a, float b) { return fminf(a, b); }
  OPS_HOST_DEVICE static float most(float a, float b) { return fmaxf(a, b); }
#else
  OPS_HOST_DEVICE static float least(float a, float b) { return a < b ? a : b; }
  OPS_HOST_DEVICE static float most(float a, float b) { return a > b ? a : b; }
#endif

 private:
  /// Along an axis: so large that no primitive beside the ray, and so small that every one around it, comes into reach. Never infinite, which
  /// times 0 would be no number.
  OPS_HOST_DEVICE static float per_metre(double slope) {
    return static_cast<float>(fabs(slope) > 1e-30 ? 1 / slope : slope < 0 ? -1e30 : 1e30);
  }
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
    const int64_t cell = hit.face / 2;
    const Slope s = slope_of(p, cell / (p.columns - 1), cell % (p.columns - 1), hit.face & 1);
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

/// Row i of the results.
OPS_HOST_DEVICE void write_hit(const Primitive* primitives, const Ray& ray, const FirstHit& hit, int64_t i, float* distance, float* normals,
                               int32_t* primitive) {
  distance[i] = hit.distance, primitive[i] = hit.primitive;
  normals[3 * i] = normals[3 * i + 1] = normals[3 * i + 2] = 0;
  if (hit.primitive >= 0) normal_of(primitives[hit.primitive], ray, hit, normals + 3 * i);
}

}  // namespace ops
