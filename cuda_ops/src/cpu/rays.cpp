// First hits of rays on the CPU: rays walk a bird's-eye grid from front to back and stop where nothing nearer can follow.
#include "rays.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "ops.hpp"
#include "parallel.hpp"

namespace ops::cpu {
namespace {

constexpr double kFar = 1e8;  // metres; beyond, a grid's cells would be lost in rounding

std::size_t at(int64_t i) { return static_cast<std::size_t>(i); }

/// For each cell the primitives that reach into it. Those that lie beyond the grid or cover much of it are left to every ray.
class PrimitivesByCell {
 public:
  PrimitivesByCell(const Primitive* primitives, int64_t count, bool culled) : primitives_(primitives), bounds_(count), culled_(culled) {
    std::vector<int32_t> inside;
    for (int64_t i = 0; i < count; ++i) {
      const Primitive& p = primitives[i];
      bounds_[i] = bounds_of(p);
      if (p.kind == kNothing) continue;
      const bool is_far = !(p.low_x > -kFar && p.high_x < kFar && p.low_y > -kFar && p.high_y < kFar);
      (culled && !is_far ? inside : for_every_ray_).push_back(static_cast<int32_t>(i));
    }
    if (inside.empty()) return;
    set_axis(x_, inside, &Primitive::low_x, &Primitive::high_x);
    set_axis(y_, inside, &Primitive::low_y, &Primitive::high_y);
    // A primitive in very many cells costs more there than it saves.
    const int64_t most = std::max<int64_t>(16, x_.cells * y_.cells / 8);
    std::vector<int32_t> sorted;
    for (int32_t i : inside) {
      const Primitive& p = primitives[i];
      const bool fits = x_.holds(p.low_x, p.high_x) && y_.holds(p.low_y, p.high_y) &&
                        (x_(p.high_x) - x_(p.low_x) + 1) * (y_(p.high_y) - y_(p.low_y) + 1) <= most;
      (fits ? sorted : for_every_ray_).push_back(i);
    }
    cells_.assign(at(x_.cells * y_.cells), {0, 0, HUGE_VAL, -HUGE_VAL});
    for_cells(sorted, [&](Cell& cell, int32_t i) {
      ++cell.end;
      cell.bottom = std::min(cell.bottom, primitives_[i].bottom), cell.top = std::max(cell.top, primitives_[i].top);
    });
    int32_t entries = 0;
    for (Cell& cell : cells_) {
      const int32_t size = cell.end;
      cell.begin = cell.end = entries, entries += size;
    }
    entries_.resize(at(entries));
    for_cells(sorted, [&](Cell& cell, int32_t i) { entries_[at(cell.end++)] = i; });
  }

  /// Offer `hit` every primitive that may be the first one. last_ray: for each primitive the ray it was offered last.
  void cast(const Ray& ray, int64_t ray_index, const RayLimits& limits, int32_t* last_ray, FirstHit& hit) const {
    const Sight sight(ray);
    const auto look_at = [&](int32_t i) {
      if (!sight.may_meet(bounds_[i], limits.min_range, static_cast<float>(hit.limit(limits)))) return;
      hit.offer(primitives_[i], i, ray, ray_index, limits);
    };
    for (int32_t i : for_every_ray_) {
      if (culled_) {
        look_at(i);
      } else {
        hit.offer(primitives_[i], i, ray, ray_index, limits);
      }
    }
    if (cells_.empty()) return;
    if (!(fabs(ray.x) < kFar && fabs(ray.y) < kFar && fabs(ray.z) < kFar)) {
      for (int32_t i : entries_) look_at(i);  // several times: changes nothing
      return;
    }
    Stretch s;
    s.cut(x_.low - ray.x, -ray.dx, 0), s.cut(ray.x - x_.high, ray.dx, 0);
    s.cut(y_.low - ray.y, -ray.dy, 0), s.cut(ray.y - y_.high, ray.dy, 0);
    double t = larger(s.enter, 0);
    if (s.is_empty || !(t <= s.leave)) return;
    int64_t cx = x_(ray.x + t * ray.dx), cy = y_(ray.y + t * ray.dy);
    const int64_t step_x = ray.dx > 0 ? 1 : -1, step_y = ray.dy > 0 ? 1 : -1;
    // Divisions once per ray: what rounding moves is far below the room left round the primitives.
    const double per_x = ray.dx != 0 ? 1 / ray.dx : 0, per_y = ray.dy != 0 ? 1 / ray.dy : 0;
    while (cx >= 0 && cx < x_.cells && cy >= 0 && cy < y_.cells) {
      if (hit.limit(limits) < t) return;
      const double tx = ray.dx != 0 ? (x_.border(cx + (step_x > 0)) - ray.x) * per_x : HUGE_VAL;
      const double ty = ray.dy != 0 ? (y_.border(cy + (step_y > 0)) - ray.y) * per_y : HUGE_VAL;
      const double next = smaller(smaller(tx, ty), s.leave);
      const Cell& cell = cells_[at(cy * x_.cells + cx)];
      if (cell.begin < cell.end) {
        const double z0 = ray.z + t * ray.dz, z1 = ray.z + smaller(next, hit.limit(limits)) * ray.dz;
        const double low = smaller(z0, z1) - kRoom, high = larger(z0, z1) + kRoom;
        if (!(high < cell.bottom || low > cell.top)) {
          for (int32_t k = cell.begin; k < cell.end; ++k) {
            const int32_t i = entries_[at(k)];
            if (last_ray[i] == static_cast<int32_t>(ray_index)) continue;
            last_ray[i] = static_cast<int32_t>(ray_index);
            look_at(i);
          }
        }
      }
      if (!(next < s.leave)) return;
      (tx <= ty ? cx : cy) += tx <= ty ? step_x : step_y;
      t = larger(t, next);
    }
  }

 private:
  static constexpr double kRoom = 1e-5;  // metres; covers the rounding of a height up to kFar

  struct Axis {
    double low = 0, high = 0, size = 1;
    int64_t cells = 1;
    int64_t operator()(double x) const {
      return static_cast<int64_t>(smaller(larger((x - low) / size, 0.0), static_cast<double>(cells - 1)));
    }
    double border(int64_t cell) const { return low + static_cast<double>(cell) * size; }
    bool holds(double from, double to) const { return from >= low && to <= high; }
  };
  struct Cell {
    int32_t begin, end;
    double bottom, top;
  };

  /// Cells where most primitives are: one far away must not make them coarse.
  void set_axis(Axis& axis, const std::vector<int32_t>& inside, double Primitive::*low_of, double Primitive::*high_of) const {
    std::vector<double> lows, highs;
    for (int32_t i : inside) lows.push_back(primitives_[i].*low_of), highs.push_back(primitives_[i].*high_of);
    std::sort(lows.begin(), lows.end());
    std::sort(highs.begin(), highs.end());
    const std::size_t tenth = lows.size() / 10, last = lows.size() - 1;
    const double most = highs[last - tenth] - lows[tenth];
    axis.low = std::max(lows[0], lows[tenth] - most / 2), axis.high = std::min(highs[last], highs[last - tenth] + most / 2);
    axis.cells = std::clamp<int64_t>(static_cast<int64_t>(kCellsPerRoot * std::sqrt(static_cast<double>(inside.size()))), 1, 512);
    axis.size = (axis.high - axis.low) / static_cast<double>(axis.cells);
  }
  static constexpr double kCellsPerRoot = 2;

  template <class Body>
  void for_cells(const std::vector<int32_t>& sorted, Body&& body) {
    for (int32_t i : sorted) {
      const Primitive& p = primitives_[i];
      for (int64_t cy = y_(p.low_y), last = y_(p.high_y); cy <= last; ++cy) {
        for (int64_t cx = x_(p.low_x), end = x_(p.high_x); cx <= end; ++cx) body(cells_[at(cy * x_.cells + cx)], i);
      }
    }
  }

  const Primitive* primitives_;
  Buffer<Bounds> bounds_;
  bool culled_;
  std::vector<int32_t> for_every_ray_, entries_;
  Axis x_, y_;
  std::vector<Cell> cells_;
};

HeightExtent extent_of_heights(const PrimitiveTable& table, int64_t i) {
  HeightExtent extent = HeightExtent::none();
  if (!has_heights(table, i)) return extent;
  const float* heights = table.heights + table.field[3 * i];
  for (int64_t k = 0, count = table.field[3 * i + 1] * table.field[3 * i + 2]; k < count; ++k) extent.add(heights[k]);
  return extent;
}

}  // namespace

void cast_rays(const float* origins, const float* directions, int64_t num_rays, const int32_t* kind, const float* center, const float* size,
               const float* yaw, const float* taper, const float* normal, const float* pass_chance, const float* extinction,
               const int64_t* field, int64_t num_primitives, const float* heights, int64_t num_heights, int64_t seed, double min_range,
               double max_range, bool culled, float* distance, float* normals, int32_t* primitive, int num_threads) {
  constexpr int64_t kRaysPerPiece = 512;
  const PrimitiveTable table{kind, center, size, yaw, taper, normal, pass_chance, extinction, field, heights, num_heights};
  Buffer<Primitive> primitives(num_primitives);
  for (int64_t i = 0; i < num_primitives; ++i) primitives[i] = make_primitive(table, i, extent_of_heights(table, i));
  const PrimitivesByCell cells(primitives.get(), num_primitives, culled);
  const RayLimits limits{static_cast<uint64_t>(seed), static_cast<float>(min_range), static_cast<float>(max_range)};
  const int64_t pieces = (num_rays + kRaysPerPiece - 1) / kRaysPerPiece;
  parallel_dynamic(pieces, threads_for(pieces, num_threads, 1), 1, [&](int64_t piece) {
    Buffer<int32_t> last_ray(num_primitives);
    std::fill(last_ray.get(), last_ray.get() + num_primitives, -1);
    for (int64_t i = piece * kRaysPerPiece, end = std::min(num_rays, i + kRaysPerPiece); i < end; ++i) {
      const Ray ray = make_ray(origins + 3 * i, directions + 3 * i);
      FirstHit hit;
      if (ray.is_ray) cells.cast(ray, i, limits, last_ray.get(), hit);
      write_hit(primitives.get(), ray, hit, i, distance, normals, primitive);
    }
  });
}

}  // namespace ops::cpu
