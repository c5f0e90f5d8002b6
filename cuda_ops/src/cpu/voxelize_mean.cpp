// Means of voxels on the CPU: a stable sort of the points by cell, then one pass over the segments of equal cells.
#include <vector>

#include "cells.hpp"
#include "ops.hpp"
#include "sort.hpp"

namespace ops::cpu {
namespace {

constexpr int64_t kGrain = 8192;  // points that are worth a thread

/// The points in order of their cell, and where each cell's points begin. Cell: uint32_t, or uint64_t where 32 bits are too few.
template <class Cell>
class SortedPoints {
 public:
  SortedPoints(const VoxelGrid& grid, const float* points, int64_t count, int64_t columns, const int32_t* batch, int64_t* counters, int threads)
      : cells_(count), order_(count), begins_(count + 1) {
    std::vector<int64_t> outside(threads, 0), not_finite(threads, 0);
    parallel_ranges(count, threads, [&](int t, int64_t begin, int64_t end) {
      write_cells(grid, points, columns, batch, begin, end, cells_.get(), &outside[t], &not_finite[t]);
    });
    for (int t = 0; t < threads; ++t) {
      counters[kNumOutside] += outside[t];
      counters[kNumNotFinite] += not_finite[t];
    }
    num_inside_ = count - counters[kNumOutside] - counters[kNumNotFinite];
    // Points outside have the highest number, grid.cells(), and come last.
    order_.sort([&](int64_t i) { return uint64_t{cells_[i]}; }, bits_of(static_cast<uint64_t>(grid.cells())), threads);
    find_segments(threads);
  }

  int64_t num_voxels() const { return num_voxels_; }
  int64_t num_inside() const { return num_inside_; }
  int64_t begin(int64_t voxel) const { return begins_[voxel]; }
  int64_t point(int64_t i) const { return order_.index(i); }
  Cell cell(int64_t i) const {
    if constexpr (sizeof(Cell) == 4) return static_cast<Cell>(order_.key(i));
    return cells_[point(i)];
  }

 private:
  void find_segments(int threads) {
    std::vector<int64_t> heads(threads + 1, 0);
    const auto is_head = [&](int64_t i) { return i == 0 || cell(i) != cell(i - 1); };
    parallel_ranges(num_inside_, threads, [&](int t, int64_t begin, int64_t end) {
      int64_t n = 0;
      for (int64_t i = begin; i < end; ++i) n += is_head(i);
      heads[t + 1] = n;
    });
    for (int t = 0; t < threads; ++t) heads[t + 1] += heads[t];
    num_voxels_ = heads[threads];
    parallel_ranges(num_inside_, threads, [&](int t, int64_t begin, int64_t end) {
      int64_t voxel = heads[t];
      for (int64_t i = begin; i < end; ++i) {
        if (is_head(i)) begins_[voxel++] = static_cast<uint32_t>(i);
      }
    });
    begins_[num_voxels_] = static_cast<uint32_t>(num_inside_);
  }

  Buffer<Cell> cells_;
  StableSort order_;
  Buffer<uint32_t> begins_;
  int64_t num_voxels_ = 0, num_inside_ = 0;
};

/// Sums over the points of a voxel in the order of the points, so that the same voxel has the same bits everywhere.
template <int kColumns, class Cell>
void mean_of_voxels(const SortedPoints<Cell>& sorted, const float* points, int64_t columns, int64_t begin, int64_t end, float* features) {
  constexpr int64_t kAhead = 16;  // the points lie anywhere in memory: ask for them before they are needed
  const int64_t last = sorted.num_inside();
  for (int64_t voxel = begin; voxel < end; ++voxel) {
    const int64_t first = sorted.begin(voxel), stop = sorted.begin(voxel + 1);
    const int64_t width = kColumns ? kColumns : columns;
    float* out = features + voxel * width;
    if (first + kAhead < last) __builtin_prefetch(points + sorted.point(first + kAhead) * width);
    const float* p = points + sorted.point(first) * width;
    for (int64_t c = 0; c < width; ++c) out[c] = p[c];
    if (stop - first == 1) continue;
    for (int64_t i = first + 1; i < stop; ++i) {
      if (i + kAhead < last) __builtin_prefetch(points + sorted.point(i + kAhead) * width);
      p = points + sorted.point(i) * width;
      for (int64_t c = 0; c < width; ++c) out[c] += p[c];
    }
    const float count = static_cast<float>(stop - first);
    for (int64_t c = 0; c < width; ++c) out[c] /= count;
  }
}

template <class Cell>
void voxelize(const VoxelGrid& grid, const float* points, int64_t num_points, int64_t columns, const int32_t* batch, int64_t max_voxels,
              int64_t coord_columns, float* features, int32_t* coords, int32_t* counts, int32_t* voxel_of_point, int64_t* counters,
              int threads) {
  const SortedPoints<Cell> sorted(grid, points, num_points, columns, batch, counters, threads);
  const int64_t kept = std::min(sorted.num_voxels(), max_voxels);
  counters[kNumVoxels] = kept;
  counters[kNumVoxelsOver] = sorted.num_voxels() - kept;
  counters[kNumPointsOver] = sorted.num_inside() - sorted.begin(kept);
  if (voxel_of_point) std::fill(voxel_of_point, voxel_of_point + num_points, -1);
  parallel_ranges(kept, threads, [&](int, int64_t begin, int64_t end) {
    const auto write_means = columns == 5 ? mean_of_voxels<5, Cell> : columns == 4 ? mean_of_voxels<4, Cell> : mean_of_voxels<0, Cell>;
    write_means(sorted, points, columns, begin, end, features);
    constexpr int64_t kBlock = 256;
    Cell cells[kBlock];
    for (int64_t first = begin; first < end; first += kBlock) {
      const int64_t n = std::min(kBlock, end - first);
      for (int64_t k = 0; k < n; ++k) {
        cells[k] = sorted.cell(sorted.begin(first + k));
        counts[first + k] = static_cast<int32_t>(sorted.begin(first + k + 1) - sorted.begin(first + k));
      }
      write_coords(grid, cells, n, coord_columns, coords + first * coord_columns);
    }
    if (!voxel_of_point) return;
    for (int64_t v = begin; v < end; ++v) {
      for (int64_t i = sorted.begin(v); i < sorted.begin(v + 1); ++i) voxel_of_point[sorted.point(i)] = static_cast<int32_t>(v);
    }
  });
}

}  // namespace

void voxelize_mean(const float* points, int64_t num_points, int64_t columns, const int32_t* batch, VOXEL_GRID_ARGUMENTS, int64_t max_voxels,
                   int64_t coord_columns, float* features, int32_t* coords, int32_t* counts, int32_t* voxel_of_point, int64_t* counters,
                   int num_threads) {
  const VoxelGrid grid = VOXEL_GRID;
  const int threads = threads_for(num_points, num_threads, kGrain);
  const auto run = grid.cells() < (int64_t{1} << 32) ? voxelize<uint32_t> : voxelize<uint64_t>;
  run(grid, points, num_points, columns, batch, max_voxels, coord_columns, features, coords, counts, voxel_of_point, counters, threads);
}

}  // namespace ops::cpu
