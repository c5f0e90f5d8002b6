// Non-maximum suppression on the CPU. Best score first; what is kept goes into a bird's-eye grid, so that the next ones are compared with
// the few kept before them that are near. One thread: the order is the method, and a thousand boxes take a fraction of a millisecond.
#include <cstring>
#include <unordered_map>
#include <utility>
#include <vector>

#include "boxes.hpp"
#include "ops.hpp"
#include "sort.hpp"

namespace ops::cpu {
namespace {

/// Bits whose ascending order is the descending order of the scores.
uint64_t descending_bits(double score) {
  uint64_t bits;
  score += 0.0;  // -0 and 0 are the same score
  std::memcpy(&bits, &score, sizeof bits);
  return bits >> 63 ? bits : ~bits & ~(uint64_t{1} << 63);
}

uint32_t descending_bits(float score) {
  uint32_t bits;
  score += 0.0f;
  std::memcpy(&bits, &score, sizeof bits);
  return bits >> 31 ? bits : ~bits & ~(uint32_t{1} << 31);
}

/// Numbers of the rows by score, highest first, equal ones by number; rows whose score is NaN are left out.
std::vector<int32_t> order_by_score(const double* scores, int64_t count) {
  std::vector<int32_t> rows;
  rows.reserve(static_cast<std::size_t>(count));
  bool is_float = true;
  for (int64_t i = 0; i < count; ++i) {
    if (scores[i] != scores[i]) continue;
    rows.push_back(static_cast<int32_t>(i));
    is_float &= static_cast<double>(static_cast<float>(scores[i])) == scores[i];
  }
  const int64_t valid = static_cast<int64_t>(rows.size());
  StableSort order(valid);
  const auto score = [&](int64_t i) { return scores[rows[static_cast<std::size_t>(i)]]; };
  if (is_float) {
    order.sort([&](int64_t i) { return uint64_t{descending_bits(static_cast<float>(score(i)))}; }, 32, 1);
  } else {
    order.sort([&](int64_t i) { return descending_bits(score(i)); }, 64, 1);
  }
  std::vector<int32_t> sorted(rows.size());
  for (int64_t i = 0; i < valid; ++i) sorted[static_cast<std::size_t>(i)] = rows[static_cast<std::size_t>(order.index(i))];
  return sorted;
}

/// Groups numbered 0, 1, ... as they appear; all 0 where there are none.
class Groups {
 public:
  Groups(const int64_t* group, int64_t count, int64_t max_out) : max_out_(max_out) {
    if (group) {
      number_.resize(static_cast<std::size_t>(count));
      std::unordered_map<int64_t, int32_t> seen;
      for (int64_t i = 0; i < count; ++i) {
        if (i && group[i] == group[i - 1]) {
          number_[static_cast<std::size_t>(i)] = number_[static_cast<std::size_t>(i - 1)];
        } else {
          number_[static_cast<std::size_t>(i)] = seen.emplace(group[i], static_cast<int32_t>(seen.size())).first->second;
        }
      }
      kept_.assign(seen.size(), 0);
    } else {
      kept_.assign(1, 0);
    }
    open_ = max_out == 0 ? 0 : static_cast<int64_t>(kept_.size());
  }

  int32_t of(int64_t row) const { return number_.empty() ? 0 : number_[static_cast<std::size_t>(row)]; }
  bool is_full(int32_t group) const { return max_out_ >= 0 && kept_[static_cast<std::size_t>(group)] >= max_out_; }
  bool all_full() const { return open_ == 0; }
  void add(int32_t group) {
    if (++kept_[static_cast<std::size_t>(group)] == max_out_) --open_;
  }

 private:
  int64_t max_out_, open_;
  std::vector<int32_t> number_;
  std::vector<int64_t> kept_;
};

/// Kept items by the cells that they reach into; a bucket may hold several cells, which costs time but changes nothing.
class KeptGrid {
 public:
  struct Area {
    double low_x, high_x, low_y, high_y;
  };

  KeptGrid(int64_t count, double cell_size) : cells_per_metre_(1 / cell_size), seen_(static_cast<std::size_t>(count), -1) {
    int64_t buckets = 64;
    while (buckets < 2 * count) buckets *= 2;
    mask_ = static_cast<uint64_t>(buckets - 1);
    first_.assign(static_cast<std::size_t>(buckets), -1);
    entries_.reserve(static_cast<std::size_t>(2 * count));
  }

  void add(int32_t item, const Area& area, int32_t group) {
    Cells cells;
    kept_.push_back(item);
    if (!find_cells(area, cells)) {
      large_.push_back(item);
      return;
    }
    for (int64_t y = cells.low_y; y <= cells.high_y; ++y) {
      for (int64_t x = cells.low_x; x <= cells.high_x; ++x) {
        int32_t& head = first_[bucket(x, y, group)];
        entries_.push_back({item, head});
        head = static_cast<int32_t>(entries_.size() - 1);
      }
    }
  }

  /// Whether test(kept) holds for a kept item whose area may meet `area`; asked once for each, in any order.
  template <class Test>
  bool any_near(int32_t item, const Area& area, int32_t group, Test&& test) {
    Cells cells;
    if (!find_cells(area, cells)) return any(kept_, test);
    if (any(large_, test)) return true;
    for (int64_t y = cells.low_y; y <= cells.high_y; ++y) {
      for (int64_t x = cells.low_x; x <= cells.high_x; ++x) {
        for (int32_t e = first_[bucket(x, y, group)]; e >= 0;) {
          const Entry entry = entries_[static_cast<std::size_t>(e)];
          e = entry.next;
          if (std::exchange(seen_[static_cast<std::size_t>(entry.item)], item) != item && test(entry.item)) return true;
        }
      }
    }
    return false;
  }

 private:
  static constexpr int64_t kMostCells = 16;
  struct Cells {
    int64_t low_x, high_x, low_y, high_y;
  };
  struct Entry {
    int32_t item, next;
  };

  template <class Test>
  static bool any(const std::vector<int32_t>& items, Test&& test) {
    for (const int32_t item : items) {
      if (test(item)) return true;
    }
    return false;
  }

  int64_t cell(double x) const {
    constexpr double kFar = 1e9;  // beyond it all cells are one
    const double scaled = smaller(larger(x * cells_per_metre_, -kFar), kFar);
    const int64_t cut = static_cast<int64_t>(scaled);
    return cut - (static_cast<double>(cut) > scaled);
  }

  bool find_cells(const Area& area, Cells& cells) const {
    cells = {cell(area.low_x), cell(area.high_x), cell(area.low_y), cell(area.high_y)};
    return (cells.high_x - cells.low_x + 1) <= kMostCells && (cells.high_y - cells.low_y + 1) <= kMostCells &&
           (cells.high_x - cells.low_x + 1) * (cells.high_y - cells.low_y + 1) <= kMostCells;
  }

  std::size_t bucket(int64_t x, int64_t y, int32_t group) const {
    uint64_t key = static_cast<uint64_t>(x) * 0x9E3779B97F4A7C15u + static_cast<uint64_t>(y) * 0xC2B2AE3D27D4EB4Fu +
                   static_cast<uint64_t>(group) * 0x165667B19E3779F9u;
    key ^= key >> 32;
    return static_cast<std::size_t>((key * 0xD6E8FEB86659FD93u) >> 32 & mask_);
  }

  double cells_per_metre_;
  uint64_t mask_;
  std::vector<int32_t> first_, seen_, kept_, large_;
  std::vector<Entry> entries_;
};

/// The loop that both kinds share. Items are numbered by score; area_of(i) is where an item looks for kept ones, home_of(i) where it is
/// found when kept; drops(kept, later) is the rule.
template <class AreaOf, class HomeOf, class Drops>
int64_t keep_best(const std::vector<int32_t>& order, Groups& groups, double cell_size, int64_t* keep, AreaOf&& area_of, HomeOf&& home_of,
                  Drops&& drops) {
  KeptGrid grid(static_cast<int64_t>(order.size()), cell_size > 0 && cell_size < 1e300 ? cell_size : 1.0);
  int64_t num_kept = 0;
  for (std::size_t i = 0; i < order.size() && !groups.all_full(); ++i) {
    const int32_t item = static_cast<int32_t>(i), group = groups.of(order[i]);
    if (groups.is_full(group)) continue;
    const auto is_dropped_by = [&](int32_t kept) {
      return groups.of(order[static_cast<std::size_t>(kept)]) == group && drops(kept, item);
    };
    if (grid.any_near(item, area_of(item), group, is_dropped_by)) continue;
    keep[num_kept++] = order[i];
    groups.add(group);
    grid.add(item, home_of(item), group);
  }
  return num_kept;
}

}  // namespace

void nms_bev(const double* boxes, int64_t num, int64_t columns, const double* scores, const int64_t* group, double iou_threshold,
             int64_t max_out, int64_t* keep, int64_t* num_kept, int) {
  const std::vector<int32_t> order = order_by_score(scores, num);
  const int64_t count = static_cast<int64_t>(order.size());
  Groups groups(group, num, max_out);
  Buffer<BevBox> box(count);
  std::vector<double> diameters;
  diameters.reserve(order.size());
  for (int64_t i = 0; i < count; ++i) {
    box[i] = make_bev_box(boxes + order[static_cast<std::size_t>(i)] * columns, columns);
    if (box[i].area > 0) diameters.push_back(2 * box[i].radius);
  }
  double cell_size = 1;  // of the size of most boxes: each then reaches into few cells, and few share one
  if (!diameters.empty()) {
    const auto middle = diameters.begin() + static_cast<int64_t>(diameters.size() / 2);
    std::nth_element(diameters.begin(), middle, diameters.end());
    cell_size = *middle;
  }
  const SuppressByIou rule{iou_threshold};
  const auto area_of = [&](int32_t i) -> KeptGrid::Area {
    if (!(box[i].area > 0)) return {0, 0, 0, 0};  // meets nothing wherever it is
    const double rx = search_reach(box[i].x, box[i].extent_x()), ry = search_reach(box[i].y, box[i].extent_y());
    return {box[i].x - rx, box[i].x + rx, box[i].y - ry, box[i].y + ry};
  };
  *num_kept = keep_best(order, groups, cell_size, keep, area_of, area_of, [&](int32_t kept, int32_t later) { return rule(box[kept], box[later]); });
}

void nms_circle(const double* centers, int64_t num, int64_t columns, const double* scores, const int64_t* group, double radius,
                double squared_radius, int64_t max_out, int64_t* keep, int64_t* num_kept, int) {
  const std::vector<int32_t> order = order_by_score(scores, num);
  Groups groups(group, num, max_out);
  const SuppressByDistance rule{squared_radius};
  const auto row = [&](int32_t i) { return centers + order[static_cast<std::size_t>(i)] * columns; };
  const auto home_of = [&](int32_t i) -> KeptGrid::Area { return {row(i)[0], row(i)[0], row(i)[1], row(i)[1]}; };
  const auto area_of = [&](int32_t i) -> KeptGrid::Area {
    const double x = row(i)[0], y = row(i)[1], rx = search_reach(x, radius), ry = search_reach(y, radius);
    return {x - rx, x + rx, y - ry, y + ry};
  };
  *num_kept = keep_best(order, groups, 2 * radius, keep, area_of, home_of, [&](int32_t kept, int32_t later) {
    return rule(row(kept)[0], row(kept)[1], row(later)[0], row(later)[1]);
  });
}

}  // namespace ops::cpu
