// The tree that rays on the CPU search: boxes round the primitives, four to a node, in a table of plain numbers that Python can keep.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "rays.hpp"

namespace ops::cpu {

/// Four numbers that the processor works on together (GCC and Clang, on every processor).
typedef float Four __attribute__((vector_size(16), aligned(4)));
typedef int32_t FourFlags __attribute__((vector_size(16)));  // -1 or 0

/// Four boxes, side by side.
struct Node {
  Four side[6];      // low x, y, z, high x, y, z; of a slot that is not used, low is +inf and high -inf: no ray meets that
  int32_t child[4];  // a node further on in the table; ~child, below 0: a primitive; kNone: the slot is not used
};

/// Where things are in the words (int32 or float32) of a tree for P primitives. `cuda_ops.rays` has the same two numbers.
struct TreeTable {
  static constexpr int32_t kNone = INT32_MIN;
  static constexpr int64_t kHeader = 4, kWordsEach = 32;  // the numbers of nodes and of primitives apart, two unused
  static_assert(sizeof(Node) == 28 * sizeof(int32_t) && sizeof(HeightExtent) == 3 * sizeof(int32_t), "words of the table");

  int32_t* words;
  int64_t num_primitives;

  int32_t& num_nodes() const { return words[0]; }
  int32_t& num_apart() const { return words[1]; }
  Node* nodes() const { return reinterpret_cast<Node*>(words + kHeader); }
  /// Primitives that no box can keep rays away from: planes, and what covers so much of the scene that every box round it would be as large.
  int32_t* apart() const { return words + kHeader + 28 * num_primitives; }
  /// Of the heights of each primitive.
  HeightExtent* extents() const { return reinterpret_cast<HeightExtent*>(words + kHeader + 29 * num_primitives); }
};

/// Makes the nodes: each set of boxes is cut where the surfaces of both parts, each times what is in it, are smallest (seven
/// candidates along the longest side), the largest part again until there are four (surface area heuristic, Wald 2007).
class TreeBuilder {
 public:
  TreeBuilder(const TreeTable& table, const Primitive* primitives) : table_(table), bounds_(static_cast<std::size_t>(table.num_primitives)) {
    Box all;
    std::vector<int32_t> apart;
    for (int32_t i = 0; i < table.num_primitives; ++i) {
      if (primitives[i].kind == kNothing) continue;
      bounds_[index(i)] = bounds_of(primitives[i]);
      if (has_end(bounds_[index(i)])) {
        inside_.push_back(i), all.add(bounds_[index(i)]);
      } else {
        apart.push_back(i);
      }
    }
    const auto end = std::stable_partition(inside_.begin(), inside_.end(), [&](int32_t i) {
      Box box;
      box.add(bounds_[index(i)]);
      return box.length(0) * box.length(1) <= all.length(0) * all.length(1) / 8;
    });
    apart.insert(apart.end(), end, inside_.end());
    inside_.erase(end, inside_.end());
    if (!inside_.empty()) build(0, static_cast<int32_t>(inside_.size()), 0);
    table_.num_nodes() = num_nodes_, table_.num_apart() = static_cast<int32_t>(apart.size());
    std::copy(apart.begin(), apart.end(), table_.apart());
  }

 private:
  static constexpr int kBins = 8, kFairDepth = 24;  // from here on parts are halves, whatever that costs: no tree is deeper than 24 + 31

  struct Box {
    float low[3] = {HUGE_VALF, HUGE_VALF, HUGE_VALF}, high[3] = {-HUGE_VALF, -HUGE_VALF, -HUGE_VALF};
    void add(const Bounds& b) {
      const float l[3] = {b.low_x, b.low_y, b.low_z}, h[3] = {b.high_x, b.high_y, b.high_z};
      for (int a = 0; a < 3; ++a) low[a] = std::min(low[a], l[a]), high[a] = std::max(high[a], h[a]);
    }
    void add(const Box& b) {
      for (int a = 0; a < 3; ++a) low[a] = std::min(low[a], b.low[a]), high[a] = std::max(high[a], b.high[a]);
    }
    double length(int axis) const { return std::max(0.0, double{high[axis]} - low[axis]); }
    double surface() const { return length(0) * length(1) + length(1) * length(2) + length(2) * length(0); }
  };

  struct Part {
    int32_t begin, end;
    double weight;  // surface of its box; below 0 where it cannot be cut
  };

  static std::size_t index(int32_t i) { return static_cast<std::size_t>(i); }
  static bool has_end(const Bounds& b) { return is_finite(double{b.low_x} + b.low_y + b.low_z + b.high_x + b.high_y + b.high_z); }
  /// Twice the middle along an axis.
  static double middle(const Bounds& b, int axis) {
    return axis == 0 ? double{b.low_x} + b.high_x : axis == 1 ? double{b.low_y} + b.high_y : double{b.low_z} + b.high_z;
  }
  const Bounds& bounds_at(int32_t k) const { return bounds_[index(inside_[index(k)])]; }

  Part part(int32_t begin, int32_t end) const {
    Box box;
    for (int32_t k = begin; k < end; ++k) box.add(bounds_at(k));
    return {begin, end, end - begin > 1 ? box.surface() : -1.0};
  }

  int32_t build(int32_t begin, int32_t end, int depth) {
    const int32_t mine = num_nodes_++;
    Part parts[4] = {part(begin, end)};
    int count = 1;
    for (; count < 4; ++count) {
      Part* largest = std::max_element(parts, parts + count, [](const Part& a, const Part& b) { return a.weight < b.weight; });
      if (largest->weight < 0) break;
      const int32_t first = largest->begin, last = largest->end, cut = cut_of(first, last, depth);
      *largest = part(first, cut), parts[count] = part(cut, last);
    }
    Node node;
    for (int k = 0; k < 4; ++k) {
      Box box;
      node.child[k] = TreeTable::kNone;
      if (k < count) {
        for (int32_t i = parts[k].begin; i < parts[k].end; ++i) box.add(bounds_at(i));
        const bool is_one = parts[k].end - parts[k].begin == 1;
        node.child[k] = is_one ? ~inside_[index(parts[k].begin)] : build(parts[k].begin, parts[k].end, depth + 1);
      }
      for (int a = 0; a < 3; ++a) node.side[a][k] = box.low[a], node.side[3 + a][k] = box.high[a];
    }
    table_.nodes()[mine] = node;
    return mine;
  }

  /// Where the second part of [begin, end) begins, once its members are in order; two or more of them. Along the longest side.
  int32_t cut_of(int32_t begin, int32_t end, int depth) {
    double low[3] = {HUGE_VAL, HUGE_VAL, HUGE_VAL}, high[3] = {-HUGE_VAL, -HUGE_VAL, -HUGE_VAL};
    for (int32_t k = begin; k < end; ++k) {
      for (int a = 0; a < 3; ++a) {
        low[a] = std::min(low[a], middle(bounds_at(k), a)), high[a] = std::max(high[a], middle(bounds_at(k), a));
      }
    }
    int axis = high[1] - low[1] > high[0] - low[0] ? 1 : 0;
    if (high[2] - low[2] > high[axis] - low[axis]) axis = 2;
    const int32_t count = end - begin, half = begin + count / 2;
    if (depth >= kFairDepth || count == 2 || !(high[axis] > low[axis])) {
      std::nth_element(inside_.begin() + begin, inside_.begin() + half, inside_.begin() + end,
                       [&](int32_t a, int32_t b) { return middle(bounds_[index(a)], axis) < middle(bounds_[index(b)], axis); });
      return half;
    }
    const auto bin_of = [&](int32_t i) {
      return std::min(static_cast<int>((middle(bounds_[index(i)], axis) - low[axis]) / (high[axis] - low[axis]) * kBins), kBins - 1);
    };
    Box boxes[kBins], behind, before;
    int32_t counts[kBins] = {};
    for (int32_t k = begin; k < end; ++k) {
      const int bin = bin_of(inside_[index(k)]);
      boxes[bin].add(bounds_at(k)), ++counts[bin];
    }
    double costs[kBins];  // of what lies from a bin on, then of both parts; the first and the last bin hold something
    for (int bin = kBins - 1, num = 0; bin > 0; --bin) {
      behind.add(boxes[bin]), num += counts[bin];
      costs[bin] = behind.surface() * num;
    }
    int best = 1;
    for (int bin = 1, num = 0; bin < kBins; ++bin) {
      before.add(boxes[bin - 1]), num += counts[bin - 1];
      costs[bin] += before.surface() * num;
      if (costs[bin] < costs[best]) best = bin;
    }
    const auto cut = std::partition(inside_.begin() + begin, inside_.begin() + end, [&](int32_t i) { return bin_of(i) < best; });
    return static_cast<int32_t>(cut - inside_.begin());
  }

  TreeTable table_;
  std::vector<Bounds> bounds_;
  std::vector<int32_t> inside_;
  int32_t num_nodes_ = 0;
};

/// A finished tree with its primitives.
class Tree {
 public:
  Tree(const TreeTable& table, const Primitive* primitives)
      : primitives_(primitives), nodes_(table.nodes()), apart_(table.apart()), num_nodes_(table.num_nodes()), num_apart_(table.num_apart()) {
    for (int32_t k = 0; k < num_apart_; ++k) apart_bounds_.push_back(bounds_of(primitives[apart_[k]]));
  }

  /// Raises where a table, which may come from anywhere, would lead out of itself or its primitives, or round in circles.
  static void expect_tree(const TreeTable& table) {
    const int64_t num_nodes = table.num_nodes(), num_apart = table.num_apart(), num_primitives = table.num_primitives;
    bool is_good = num_nodes >= 0 && num_nodes <= num_primitives && num_apart >= 0 && num_apart <= num_primitives;
    for (int64_t k = 0; is_good && k < num_apart; ++k) is_good = table.apart()[k] >= 0 && table.apart()[k] < num_primitives;
    std::vector<int32_t> depth(is_good ? static_cast<std::size_t>(num_nodes) : 0);
    for (int64_t at = 0; is_good && at < num_nodes; ++at) {
      for (const int32_t child : table.nodes()[at].child) {
        if (child == TreeTable::kNone) continue;
        is_good &= child < 0 ? ~child < num_primitives : child > at && child < num_nodes;
        if (!is_good || child < 0) continue;
        depth[static_cast<std::size_t>(child)] = depth[static_cast<std::size_t>(at)] + 1;
        is_good &= depth[static_cast<std::size_t>(child)] < kMaxDepth;
      }
    }
    if (!is_good) throw std::invalid_argument("cast_rays: tree: expected what cuda_ops.ray_tree made of this table, got other numbers");
  }

  /// Offer `hit` every primitive that may be the first one.
  void cast(const Ray& ray, int64_t ray_index, const RayLimits& limits, FirstHit& hit) const {
    const Sight sight(ray);
    float farthest = static_cast<float>(hit.limit(limits));
    const auto offer = [&](int32_t i) {
      hit.offer(primitives_[i], i, ray, ray_index, limits);
      farthest = static_cast<float>(hit.limit(limits));
    };
    // Of each axis the side that the ray comes to first.
    const int near_x = sight.per_x < 0 ? 3 : 0, near_y = sight.per_y < 0 ? 4 : 1, near_z = sight.per_z < 0 ? 5 : 2;
    float enter_later[4 * kMaxDepth];  // two arrays: a pair would be written in two halves and stall when it is read at once
    int32_t child_later[4 * kMaxDepth];
    int num_later = 0;
    if (num_nodes_ > 0) enter_later[0] = limits.min_range, child_later[num_later++] = 0;
    while (num_later > 0) {
      const int32_t child = child_later[--num_later];
      if (!Sight::overlaps(enter_later[num_later], farthest)) continue;
      if (child < 0) {
        offer(~child);
        continue;
      }
      const Node& node = nodes_[child];
      const Four ex = (node.side[near_x] - sight.x) * sight.per_x, lx = (node.side[3 - near_x] - sight.x) * sight.per_x;
      const Four ey = (node.side[near_y] - sight.y) * sight.per_y, ly = (node.side[5 - near_y] - sight.y) * sight.per_y;
      const Four ez = (node.side[near_z] - sight.z) * sight.per_z, lz = (node.side[7 - near_z] - sight.z) * sight.per_z;
      const Four enter = most(most(ex, ey), most(ez, Four{} + limits.min_range));
      const Four leave = least(least(lx, ly), least(lz, Four{} + farthest));
      const FourFlags is_met = enter - Sight::kRoom * enter <= leave + Sight::kRoom * most(leave, -leave);
      const int first = num_later;  // the nearest on top
      for (int k = 0; k < 4; ++k) {
        if (!is_met[k]) continue;
        int at = num_later++;
        for (; at > first && enter_later[at - 1] < enter[k]; --at) {
          enter_later[at] = enter_later[at - 1], child_later[at] = child_later[at - 1];
        }
        enter_later[at] = enter[k], child_later[at] = node.child[k];
      }
    }
    for (int32_t k = 0; k < num_apart_; ++k) {
      if (sight.may_meet(apart_bounds_[static_cast<std::size_t>(k)], limits.min_range, farthest)) offer(apart_[k]);
    }
  }

 private:
  static constexpr int kMaxDepth = 64;

  static Four least(Four a, Four b) { return a < b ? a : b; }
  static Four most(Four a, Four b) { return a > b ? a : b; }

  const Primitive* primitives_;
  const Node* nodes_;
  const int32_t* apart_;
  int32_t num_nodes_, num_apart_;
  std::vector<Bounds> apart_bounds_;
};

}  // namespace ops::cpu
