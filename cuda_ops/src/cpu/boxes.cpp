// Overlaps of boxes and points in boxes on the CPU: a cheap filter over everything, the exact arithmetic for what passes it.
#include "boxes.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "ops.hpp"
#include "parallel.hpp"

namespace ops::cpu {
namespace {

/// Boxes from above; what the filter reads stands in rows of its own.
struct BevBoxes {
  BevBoxes(const double* rows, int64_t count, int64_t columns) : box(count), x(count), y(count), radius(count) {
    for (int64_t i = 0; i < count; ++i) {
      box[i] = make_bev_box(rows + i * columns, columns);
      x[i] = box[i].x, y[i] = box[i].y, radius[i] = box[i].area > 0 ? box[i].radius : 0;
    }
  }
  Buffer<BevBox> box;
  Buffer<double> x, y, radius;
};

/// The boxes [0, count) whose circles reach into the circle of `box`: their numbers to `near`, how many is returned.
OPS_CLONES int64_t find_near(const BevBox& box, const double* x, const double* y, const double* radius, int64_t count, int32_t* near) {
  int64_t found = 0;
  for (int64_t j = 0; j < count; ++j) {
    const double dx = x[j] - box.x, dy = y[j] - box.y, reach = radius[j] + box.radius;
    near[found] = static_cast<int32_t>(j);
    found += dx * dx + dy * dy < reach * reach;
  }
  return found;
}

/// pair(i, j) for every pair that may overlap; 0 for the others.
template <class Pair>
void fill_pairs(BevBoxes& a, int64_t num_a, BevBoxes& b, int64_t num_b, double* iou, int num_threads, Pair&& pair) {
  constexpr int64_t kPairsPerThread = 1 << 14;
  parallel_ranges(num_a, threads_for(num_a * num_b, num_threads, kPairsPerThread), [&](int, int64_t begin, int64_t end) {
    Buffer<int32_t> near(num_b);
    for (int64_t i = begin; i < end; ++i) {
      double* row = iou + i * num_b;
      std::fill(row, row + num_b, 0.0);
      if (!(a.box[i].area > 0)) continue;
      const int64_t found = find_near(a.box[i], b.x.get(), b.y.get(), b.radius.get(), num_b, near.get());
      for (int64_t k = 0; k < found; ++k) row[near[k]] = pair(i, near[k]);
    }
  });
}

/// For each cell of a bird's-eye grid the boxes that reach into it, lowest number first.
class BoxesByCell {
 public:
  BoxesByCell(const BevBox* boxes, int64_t count) {
    double low_x = HUGE_VAL, low_y = HUGE_VAL, high_x = -HUGE_VAL, high_y = -HUGE_VAL;
    std::vector<Range> ranges;
    for (int64_t i = 0; i < count; ++i) {
      if (!(boxes[i].area > 0)) continue;
      const double rx = search_reach(boxes[i].x, boxes[i].extent_x()), ry = search_reach(boxes[i].y, boxes[i].extent_y());
      ranges.push_back({static_cast<int32_t>(i), boxes[i].x - rx, boxes[i].x + rx, boxes[i].y - ry, boxes[i].y + ry});
      low_x = std::min(low_x, ranges.back().low_x), high_x = std::max(high_x, ranges.back().high_x);
      low_y = std::min(low_y, ranges.back().low_y), high_y = std::max(high_y, ranges.back().high_y);
    }
    if (ranges.empty()) low_x = low_y = 0, high_x = high_y = -1;  // every point lies outside
    low_x_ = low_x, high_x_ = high_x, low_y_ = low_y, high_y_ = high_y;
    set_axes(ranges);
    // As fine as it may be without long lists of large boxes.
    const int64_t most = 32 * count + kCells * kCells;
    for (width_ = kCells; width_ > 1 && entries(ranges) > most;) {
      width_ /= 2;
      for (SearchAxis* axis : {&x_, &y_}) axis->cells_per_metre /= 2, axis->last = static_cast<double>(width_ - 1);
    }
    begin_.assign(static_cast<std::size_t>(width_ * width_ + 1), 0);
    for_cells(ranges, [&](int64_t cell, int32_t) { ++begin_[static_cast<std::size_t>(cell + 1)]; });
    for (std::size_t cell = 1; cell < begin_.size(); ++cell) begin_[cell] += begin_[cell - 1];
    boxes_.resize(static_cast<std::size_t>(begin_.back()));
    std::vector<int32_t> place(begin_.begin(), begin_.end() - 1);
    for_cells(ranges, [&](int64_t cell, int32_t box) { boxes_[static_cast<std::size_t>(place[static_cast<std::size_t>(cell)]++)] = box; });
  }

  /// The boxes that may hold the points at x, y: [first, last).
  void at(double x, double y, const int32_t*& first, const int32_t*& last) const {
    first = last = boxes_.data();
    if (!(x >= low_x_ && x <= high_x_ && y >= low_y_ && y <= high_y_)) return;
    const int64_t cell = y_(y) * width_ + x_(x);
    first += begin_[static_cast<std::size_t>(cell)], last += begin_[static_cast<std::size_t>(cell + 1)];
  }

 private:
  static constexpr int64_t kCells = 256;  // along an axis: a table that fits the second-level cache
  struct Range {
    int32_t box;
    double low_x, high_x, low_y, high_y;
  };

  /// Cells where most boxes are: a box far away or of kilometres must not make them coarse. What lies beyond belongs to the border cells.
  void set_axes(const std::vector<Range>& ranges) {
    const auto axis = [&](double Range::*low_of, double Range::*high_of) {
      std::vector<double> lows, highs;
      for (const Range& r : ranges) lows.push_back(r.*low_of), highs.push_back(r.*high_of);
      if (ranges.empty()) return SearchAxis{0, 0, kCells - 1};
      std::sort(lows.begin(), lows.end());
      std::sort(highs.begin(), highs.end());
      const std::size_t count = ranges.size(), tenth = count / 10;
      const double most = highs[count - 1 - tenth] - lows[tenth];
      const double low = std::max(lows[0], lows[tenth] - most / 2), high = std::min(highs[count - 1], highs[count - 1 - tenth] + most / 2);
      return SearchAxis{low, high > low ? static_cast<double>(kCells) / (high - low) : 0, kCells - 1};
    };
    x_ = axis(&Range::low_x, &Range::high_x), y_ = axis(&Range::low_y, &Range::high_y);
  }

  int64_t entries(const std::vector<Range>& ranges) const {
    int64_t sum = 0;
    for (const Range& r : ranges) sum += int64_t{x_(r.high_x) - x_(r.low_x) + 1} * (y_(r.high_y) - y_(r.low_y) + 1);
    return sum;
  }

  template <class Body>
  void for_cells(const std::vector<Range>& ranges, Body&& body) const {
    for (const Range& r : ranges) {
      for (int64_t cy = y_(r.low_y); cy <= y_(r.high_y); ++cy) {
        for (int64_t cx = x_(r.low_x); cx <= x_(r.high_x); ++cx) body(cy * width_ + cx, r.box);
      }
    }
  }

  double low_x_, high_x_, low_y_, high_y_;
  int64_t width_ = kCells;
  SearchAxis x_{}, y_{};
  std::vector<int32_t> begin_, boxes_;
};

}  // namespace

void iou_bev(const double* boxes_a, int64_t num_a, int64_t columns_a, const double* boxes_b, int64_t num_b, int64_t columns_b, double* iou,
             int num_threads) {
  BevBoxes a(boxes_a, num_a, columns_a), b(boxes_b, num_b, columns_b);
  fill_pairs(a, num_a, b, num_b, iou, num_threads, [&](int64_t i, int64_t j) { return ops::iou_bev(a.box[i], b.box[j]); });
}

void iou_3d(const double* boxes_a, int64_t num_a, const double* boxes_b, int64_t num_b, double* iou, int num_threads) {
  BevBoxes a(boxes_a, num_a, 7), b(boxes_b, num_b, 7);
  fill_pairs(a, num_a, b, num_b, iou, num_threads, [&](int64_t i, int64_t j) {
    return ops::iou_3d(a.box[i], make_span(boxes_a + 7 * i), b.box[j], make_span(boxes_b + 7 * j));
  });
}

void points_in_boxes(const float* points, int64_t num_points, int64_t columns, const int32_t* point_group, const double* boxes,
                     int64_t num_boxes, const int32_t* box_group, int32_t* index, int32_t* counts, int num_threads) {
  constexpr int64_t kPointsPerThread = 8192;
  Buffer<BevBox> box(num_boxes);
  Buffer<Span> span(num_boxes);
  for (int64_t b = 0; b < num_boxes; ++b) {
    box[b] = make_bev_box(boxes + 7 * b, 7);
    span[b] = make_span(boxes + 7 * b);
  }
  const BoxesByCell cells(box.get(), num_boxes);
  const int threads = threads_for(num_points, num_threads, kPointsPerThread);
  std::vector<std::vector<int32_t>> counts_of_thread(static_cast<std::size_t>(threads));
  parallel_ranges(num_points, threads, [&](int thread, int64_t begin, int64_t end) {
    std::vector<int32_t> mine(static_cast<std::size_t>(num_boxes), 0);
    for (int64_t i = begin; i < end; ++i) {
      const float* point = points + i * columns;
      const int32_t *candidate, *last;
      const int32_t group = point_group != nullptr ? point_group[i] : 0;
      int32_t first = -1;
      if (group < 0) {
        index[i] = first;
        continue;
      }
      cells.at(point[0], point[1], candidate, last);
      for (; candidate < last; ++candidate) {
        if (box_group != nullptr && box_group[*candidate] != group) continue;
        if (!contains_point(box[*candidate], span[*candidate], point[0], point[1], point[2])) continue;
        if (first < 0) first = *candidate;
        ++mine[static_cast<std::size_t>(*candidate)];
      }
      index[i] = first;
    }
    counts_of_thread[static_cast<std::size_t>(thread)] = std::move(mine);
  });
  std::fill(counts, counts + num_boxes, 0);
  for (const auto& mine : counts_of_thread) {
    for (std::size_t b = 0; b < mine.size(); ++b) counts[b] += mine[b];
  }
}

}  // namespace ops::cpu
