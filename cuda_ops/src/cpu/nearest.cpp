// The nearest point of a group on the CPU: points sorted by group, then every point of the group for every query.
#include "nearest.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "ops.hpp"
#include "parallel.hpp"
#include "sort.hpp"

namespace ops::cpu {
namespace {

/// The points group by group, in ascending rows; those that are not finite are left out.
class PointsByGroup {
 public:
  PointsByGroup(const double* points, const int64_t* group, int64_t count, int threads) : x_(count), y_(count), row_(count) {
    std::vector<int32_t> rows;
    uint64_t low = ~uint64_t{0}, high = 0;
    rows.reserve(static_cast<std::size_t>(count));
    for (int64_t i = 0; i < count; ++i) {
      if (std::isnan(make_place(points + 2 * i).x)) continue;
      rows.push_back(static_cast<int32_t>(i));
      low = std::min(low, key_of_group(group[i])), high = std::max(high, key_of_group(group[i]));
    }
    const int64_t kept = static_cast<int64_t>(rows.size());
    int bits = 0;
    for (uint64_t span = kept > 0 ? high - low : 0; span; span >>= 1) ++bits;
    StableSort sort(kept);
    sort.sort([&](int64_t i) { return key_of_group(group[rows[static_cast<std::size_t>(i)]]) - low; }, bits, threads);
    for (int64_t i = 0; i < kept; ++i) {
      const int32_t row = rows[static_cast<std::size_t>(sort.index(i))];
      x_[i] = points[2 * row], y_[i] = points[2 * row + 1], row_[i] = row;
      const uint64_t key = key_of_group(group[row]);
      if (keys_.empty() || keys_.back() != key) {
        keys_.push_back(key);
        begins_.push_back(i);
      }
    }
    begins_.push_back(kept);
  }

  Nearest nearest(const Place& query, int64_t group) const;

 private:
  Buffer<double> x_, y_;
  Buffer<int32_t> row_;
  std::vector<uint64_t> keys_;  // of the groups, ascending
  std::vector<int64_t> begins_;
};

/// The smallest distance to the points [0, count) and where it is, the first of equal ones; -1 where all overflow. In eight strands, each
/// with a minimum of its own, that become the lanes of vectors.
OPS_CLONES int64_t find_nearest(double qx, double qy, const double* x, const double* y, int64_t count, double* smallest) {
  constexpr int64_t kStrands = 8;
  double best[kStrands];
  int64_t at[kStrands];
  for (int64_t s = 0; s < kStrands; ++s) best[s] = HUGE_VAL, at[s] = -1;
  int64_t j = 0;
  for (; j + kStrands <= count; j += kStrands) {
    for (int64_t s = 0; s < kStrands; ++s) {
      const double dx = qx - x[j + s], dy = qy - y[j + s], squared = dx * dx + dy * dy;
      at[s] = squared < best[s] ? j + s : at[s];
      best[s] = squared < best[s] ? squared : best[s];
    }
  }
  for (; j < count; ++j) {
    const double dx = qx - x[j], dy = qy - y[j], squared = dx * dx + dy * dy;
    if (squared < best[j % kStrands]) best[j % kStrands] = squared, at[j % kStrands] = j;
  }
  int64_t first = -1;
  *smallest = HUGE_VAL;
  for (int64_t s = 0; s < kStrands; ++s) {
    if (at[s] >= 0 && (first < 0 || best[s] < *smallest || (best[s] == *smallest && at[s] < first))) *smallest = best[s], first = at[s];
  }
  return first;
}

Nearest PointsByGroup::nearest(const Place& query, int64_t group) const {
  Nearest found;
  const uint64_t key = key_of_group(group);
  const int64_t g = lower_bound_of(keys_.data(), static_cast<int64_t>(keys_.size()), key);
  if (std::isnan(query.x) || g == static_cast<int64_t>(keys_.size()) || keys_[static_cast<std::size_t>(g)] != key) return found;
  const int64_t begin = begins_[static_cast<std::size_t>(g)], count = begins_[static_cast<std::size_t>(g + 1)] - begin;
  const double *x = &x_[begin], *y = &y_[begin];
  const int64_t at = find_nearest(query.x, query.y, x, y, count, &found.squared);
  found.row = row_[begin + std::max<int64_t>(at, 0)];  // all infinitely far: the first, which has the lowest row
  return found;
}

}  // namespace

void nearest_in_group(const double* queries, const int64_t* query_group, int64_t num_queries, const double* points,
                      const int64_t* point_group, int64_t num_points, int32_t* index, double* squared_distance, int num_threads) {
  constexpr int64_t kQueriesPerThread = 256;
  const PointsByGroup groups(points, point_group, num_points, threads_for(num_points, num_threads, 1 << 15));
  parallel_dynamic(num_queries, threads_for(num_queries, num_threads, kQueriesPerThread), 64, [&](int64_t i) {
    const Nearest found = groups.nearest(make_place(queries + 2 * i), query_group[i]);
    index[i] = found.row;
    squared_distance[i] = found.squared;
  });
}

}  // namespace ops::cpu
