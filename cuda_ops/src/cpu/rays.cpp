// First hits of rays on the CPU: rays go through a tree of boxes, nearer ones first, and leave out what begins behind the best hit so far.
#include "rays.hpp"

#include <algorithm>
#include <vector>

#include "ops.hpp"
#include "parallel.hpp"

namespace ops::cpu {
namespace {

/// A binary tree over the boxes round the primitives, halved at the median along its longest side.
class Tree {
 public:
  /// culled: false offers every primitive to every ray.
  Tree(const Primitive* primitives, int64_t count, bool culled) : primitives_(primitives), bounds_(count) {
    Bounds all = kEmpty;
    for (int64_t i = 0; i < count; ++i) {
      if (primitives[i].kind == kNothing) continue;
      bounds_[i] = culled ? bounds_of(primitives[i]) : kEverything;
      if (has_end(bounds_[i])) {
        inside_.push_back(static_cast<int32_t>(i)), grow(all, bounds_[i]);
      } else {
        for_every_ray_.push_back(static_cast<int32_t>(i));
      }
    }
    // What covers much of the scene, as the ground does, would make every box round it as large.
    const auto end = std::stable_partition(inside_.begin(), inside_.end(), [&](int32_t i) { return area(bounds_[i]) <= area(all) / 8; });
    for_every_ray_.insert(for_every_ray_.end(), end, inside_.end());
    inside_.erase(end, inside_.end());
    if (!inside_.empty()) build(0, static_cast<int32_t>(inside_.size()));
  }

  /// Offer `hit` every primitive that may be the first one.
  void cast(const Ray& ray, int64_t ray_index, const RayLimits& limits, FirstHit& hit) const {
    const Sight sight(ray);
    float farthest = static_cast<float>(hit.limit(limits));
    const auto look_at = [&](int32_t i) {
      if (!sight.may_meet(bounds_[i], limits.min_range, farthest)) return;
      hit.offer(primitives_[i], i, ray, ray_index, limits);
      farthest = static_cast<float>(hit.limit(limits));
    };
    for (int32_t i : for_every_ray_) look_at(i);
    if (nodes_.empty()) return;
    const bool is_down[3] = {ray.dx < 0, ray.dy < 0, ray.dz < 0};
    int32_t later[64], num_later = 0;  // halving 2^31 primitives gives a depth of 31
    for (int32_t at = 0;;) {
      const Node& node = nodes_[index(at)];
      if (sight.may_meet(node.bounds, limits.min_range, farthest)) {
        if (node.axis >= 0) {
          later[num_later++] = is_down[node.axis] ? at + 1 : node.second;
          at = is_down[node.axis] ? node.second : at + 1;
          continue;
        }
        for (int32_t k = node.begin; k < node.end; ++k) look_at(inside_[index(k)]);
      }
      if (num_later == 0) return;
      at = later[--num_later];
    }
  }

 private:
  static constexpr int32_t kLeaf = 2;  // primitives
  static constexpr Bounds kEmpty{HUGE_VALF, HUGE_VALF, HUGE_VALF, 0, -HUGE_VALF, -HUGE_VALF, -HUGE_VALF, 0};
  static constexpr Bounds kEverything{-HUGE_VALF, -HUGE_VALF, -HUGE_VALF, 0, HUGE_VALF, HUGE_VALF, HUGE_VALF, 0};

  struct Node {
    Bounds bounds;
    int32_t axis;        // that divides its two halves: the lower one comes next, the other is `second`; -1: a leaf
    int32_t second;
    int32_t begin, end;  // of what it holds, in inside_
  };

  static std::size_t index(int32_t i) { return static_cast<std::size_t>(i); }
  static double area(const Bounds& b) { return (double{b.high_x} - b.low_x) * (double{b.high_y} - b.low_y); }
  static bool has_end(const Bounds& b) { return is_finite(double{b.low_x} + b.low_y + b.low_z + b.high_x + b.high_y + b.high_z); }
  static void grow(Bounds& b, const Bounds& other) {
    b.low_x = std::min(b.low_x, other.low_x), b.low_y = std::min(b.low_y, other.low_y), b.low_z = std::min(b.low_z, other.low_z);
    b.high_x = std::max(b.high_x, other.high_x), b.high_y = std::max(b.high_y, other.high_y), b.high_z = std::max(b.high_z, other.high_z);
  }
  /// Twice the middle along an axis.
  static double middle(const Bounds& b, int32_t axis) {
    return axis == 0 ? double{b.low_x} + b.high_x : axis == 1 ? double{b.low_y} + b.high_y : double{b.low_z} + b.high_z;
  }

  void build(int32_t begin, int32_t end) {
    const std::size_t mine = nodes_.size();
    Bounds bounds = kEmpty;
    double low[3] = {HUGE_VAL, HUGE_VAL, HUGE_VAL}, high[3] = {-HUGE_VAL, -HUGE_VAL, -HUGE_VAL};
    for (int32_t k = begin; k < end; ++k) {
      const Bounds& b = bounds_[inside_[index(k)]];
      grow(bounds, b);
      for (int32_t axis = 0; axis < 3; ++axis) {
        low[axis] = std::min(low[axis], middle(b, axis)), high[axis] = std::max(high[axis], middle(b, axis));
      }
    }
    nodes_.push_back({bounds, -1, 0, begin, end});
    if (end - begin <= kLeaf) return;
    int32_t axis = high[1] - low[1] > high[0] - low[0] ? 1 : 0;
    if (high[2] - low[2] > high[axis] - low[axis]) axis = 2;
    const int32_t half = begin + (end - begin) / 2;
    std::nth_element(inside_.begin() + begin, inside_.begin() + half, inside_.begin() + end,
                     [&](int32_t a, int32_t b) { return middle(bounds_[a], axis) < middle(bounds_[b], axis); });
    build(begin, half);
    const int32_t second = static_cast<int32_t>(nodes_.size());
    build(half, end);
    nodes_[mine].axis = axis, nodes_[mine].second = second;
  }

  const Primitive* primitives_;
  Buffer<Bounds> bounds_;
  std::vector<int32_t> for_every_ray_, inside_;
  std::vector<Node> nodes_;
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
  const Tree tree(primitives.get(), num_primitives, culled);
  const RayLimits limits{static_cast<uint64_t>(seed), static_cast<float>(min_range), static_cast<float>(max_range)};
  const int64_t pieces = (num_rays + kRaysPerPiece - 1) / kRaysPerPiece;
  parallel_dynamic(pieces, threads_for(pieces, num_threads, 1), 1, [&](int64_t piece) {
    for (int64_t i = piece * kRaysPerPiece, end = std::min(num_rays, i + kRaysPerPiece); i < end; ++i) {
      const Ray ray = make_ray(origins + 3 * i, directions + 3 * i);
      FirstHit hit;
      if (ray.is_ray) tree.cast(ray, i, limits, hit);
      write_hit(primitives.get(), ray, hit, i, distance, normals, primitive);
    }
  });
}

}  // namespace ops::cpu
