// Voxelization on the CPU: a stable sort of the points by cell, then one pass over the segments of equal cells.
#include "voxelize.hpp"

#include <cstring>
#include <vector>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "ops.hpp"
#include "sort.hpp"

namespace ops::cpu {
namespace {

constexpr int64_t kGrain = 8192;  // points that are worth a thread

/// Words (cell << 32 | index) of the points [begin, end) for cells below 2^32; points outside get cell `cells`, which sorts last.
OPS_CLONES void write_words(const VoxelGrid& grid, const float* points, int64_t columns, const int32_t* batch, int64_t begin, int64_t end,
                            uint64_t* words, int64_t* num_outside, int64_t* num_not_finite) {
  constexpr int64_t kBlock = 256;
  float x[kBlock], y[kBlock], z[kBlock];
  int32_t cell_x[kBlock], cell_y[kBlock], cell_z[kBlock];
  const int64_t nx = grid.x.count, ny = grid.y.count, nz = grid.z.count, nothing = grid.cells();
  for (int64_t first = begin; first < end; first += kBlock) {
    const int64_t n = std::min(kBlock, end - first);
    for (int64_t i = 0; i < n; ++i) {
      const float* p = points + (first + i) * columns;
      x[i] = p[0], y[i] = p[1], z[i] = p[2];
    }
    for (int64_t i = 0; i < n; ++i) {
      cell_x[i] = grid.x(x[i]);
      cell_y[i] = grid.y(y[i]);
      cell_z[i] = grid.z(z[i]);
    }
    for (int64_t i = 0; i < n; ++i) {
      const int64_t b = batch ? batch[first + i] : 0;
      uint64_t cell = static_cast<uint64_t>(((b * nz + cell_z[i]) * ny + cell_y[i]) * nx + cell_x[i]);
      if (((cell_x[i] | cell_y[i] | cell_z[i]) < 0) | (b < 0) | (b >= grid.num_batches)) {
        const bool is_finite = std::isfinite(x[i]) && std::isfinite(y[i]) && std::isfinite(z[i]);
        ++*(is_finite ? num_outside : num_not_finite);
        cell = static_cast<uint64_t>(nothing);
      }
      words[first + i] = cell << 32 | static_cast<uint64_t>(first + i);
    }
  }
}

/// The points in order of their cell, and where each cell's points begin.
class SortedPoints {
 public:
  SortedPoints(const VoxelGrid& grid, const float* points, int64_t count, int64_t columns, const int32_t* batch, int64_t* counters, int threads)
      : order_(count), begins_(count + 1) {
    const uint64_t nothing = static_cast<uint64_t>(grid.cells());
    const int bits = bits_of(nothing);
    std::vector<int64_t> outside(threads, 0), not_finite(threads, 0);
    if (bits <= 32) {
      parallel_ranges(count, threads, [&](int t, int64_t begin, int64_t end) {
        write_words(grid, points, columns, batch, begin, end, order_.words(), &outside[t], &not_finite[t]);
      });
      order_.sort_by_bits(bits, threads);
    } else {
      wide_ = true;
      const auto cell_of = [&](int64_t i) -> uint64_t {
        const int64_t cell = cell_of_point(grid, points + i * columns, batch ? batch[i] : 0);
        return cell < 0 ? nothing : static_cast<uint64_t>(cell);
      };
      parallel_ranges(count, threads, [&](int t, int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t cell = cell_of_point(grid, points + i * columns, batch ? batch[i] : 0);
          outside[t] += cell == kOutside;
          not_finite[t] += cell == kNotFinite;
        }
      });
      order_.sort(cell_of, bits, threads);
    }
    for (int t = 0; t < threads; ++t) {
      counters[kNumOutside] += outside[t];
      counters[kNumNotFinite] += not_finite[t];
    }
    num_inside_ = count - counters[kNumOutside] - counters[kNumNotFinite];
    find_segments(grid, points, columns, batch, threads);
  }

  int64_t num_voxels() const { return num_voxels_; }
  int64_t num_inside() const { return num_inside_; }
  int64_t begin(int64_t voxel) const { return begins_[voxel]; }
  int64_t point(int64_t i) const { return order_.index(i); }

  int64_t cell(const VoxelGrid& grid, const float* points, int64_t columns, const int32_t* batch, int64_t i) {
    if (!wide_) return static_cast<int64_t>(order_.words()[i] >> 32);
    return cell_of_point(grid, points + point(i) * columns, batch ? batch[point(i)] : 0);
  }

 private:
  void find_segments(const VoxelGrid& grid, const float* points, int64_t columns, const int32_t* batch, int threads) {
    std::vector<int64_t> heads(threads + 1, 0);
    const auto is_head = [&](int64_t i) {
      return i == 0 || cell(grid, points, columns, batch, i) != cell(grid, points, columns, batch, i - 1);
    };
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

  StableSort order_;
  Buffer<uint32_t> begins_;
  int64_t num_voxels_ = 0, num_inside_ = 0;
  bool wide_ = false;
};

/// Sums over the points of a voxel in the order of the points, so that the same voxel has the same bits everywhere.
template <int kColumns>
void mean_of_voxels(SortedPoints& sorted, const float* points, int64_t columns, int64_t begin, int64_t end, float* features) {
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

/// Numbers of the voxels in the order in which their first points come.
void order_of_appearance(SortedPoints& sorted, int64_t num_points, uint32_t* voxel_at, int threads) {
  Buffer<uint32_t> opened_by(num_points);  // voxel + 1 at the place of the point that opens it
  std::memset(opened_by.get(), 0, sizeof(uint32_t) * static_cast<std::size_t>(num_points));
  const int64_t num_voxels = sorted.num_voxels();
  parallel_ranges(num_voxels, threads, [&](int, int64_t begin, int64_t end) {
    for (int64_t v = begin; v < end; ++v) opened_by[sorted.point(sorted.begin(v))] = static_cast<uint32_t>(v + 1);
  });
  int64_t rank = 0;
  for (int64_t i = 0; i < num_points && rank < num_voxels; ++i) {
    if (opened_by[i]) voxel_at[rank++] = opened_by[i] - 1;
  }
}

/// Copy past the caches where the processor can: a large result would only be read into them to be overwritten.
void copy_streaming(const float* from, float* to, int64_t count) {
#ifdef __SSE2__
  while (count > 0 && reinterpret_cast<uintptr_t>(to) % 16 != 0) *to++ = *from++, --count;
  for (; count >= 4; count -= 4, from += 4, to += 4) _mm_stream_ps(to, _mm_loadu_ps(from));
#endif
  std::memcpy(to, from, sizeof(float) * static_cast<std::size_t>(count));
}

/// Rows of zeros to be filled one after the other, collected in the first-level cache and written in blocks.
class RowWriter {
 public:
  RowWriter(float* out, int64_t row) : out_(out), row_(row), rows_(std::max<int64_t>(4096 / row, 1)), block_(rows_ * row) { clear(); }
  ~RowWriter() {
    flush();
#ifdef __SSE2__
    _mm_sfence();
#endif
  }

  float* next() {
    if (filled_ == rows_) {
      flush();
      clear();
    }
    return block_.get() + row_ * filled_++;
  }

 private:
  void clear() { std::memset(block_.get(), 0, sizeof(float) * static_cast<std::size_t>(rows_ * row_)); }
  void flush() {
    copy_streaming(block_.get(), out_, filled_ * row_);
    out_ += filled_ * row_;
    filled_ = 0;
  }

  float* out_;
  int64_t row_, rows_, filled_ = 0;
  Buffer<float> block_;
};

}  // namespace

void voxelize_mean(const float* points, int64_t num_points, int64_t columns, const int32_t* batch, VOXEL_GRID_ARGUMENTS, int64_t max_voxels,
                   int64_t coord_columns, float* features, int32_t* coords, int32_t* counts, int32_t* voxel_of_point, int64_t* counters,
                   int num_threads) {
  const VoxelGrid grid = VOXEL_GRID;
  const int threads = threads_for(num_points, num_threads, kGrain);
  if (voxel_of_point) std::fill(voxel_of_point, voxel_of_point + num_points, -1);
  SortedPoints sorted(grid, points, num_points, columns, batch, counters, threads);
  const int64_t kept = std::min(sorted.num_voxels(), max_voxels);
  counters[kNumVoxels] = kept;
  counters[kNumVoxelsOver] = sorted.num_voxels() - kept;
  counters[kNumPointsOver] = sorted.num_inside() - sorted.begin(kept);
  parallel_ranges(kept, threads, [&](int, int64_t begin, int64_t end) {
    (columns == 5 ? mean_of_voxels<5> : columns == 4 ? mean_of_voxels<4> : mean_of_voxels<0>)(sorted, points, columns, begin, end, features);
    for (int64_t v = begin; v < end; ++v) {
      const int64_t first = sorted.begin(v), stop = sorted.begin(v + 1);
      grid.write_coords(sorted.cell(grid, points, columns, batch, first), static_cast<int32_t>(coord_columns), coords + v * coord_columns);
      counts[v] = static_cast<int32_t>(stop - first);
      if (voxel_of_point) {
        for (int64_t i = first; i < stop; ++i) voxel_of_point[sorted.point(i)] = static_cast<int32_t>(v);
      }
    }
  });
}

void voxelize_hard(const float* points, int64_t num_points, int64_t columns, const int32_t* batch, VOXEL_GRID_ARGUMENTS, int64_t max_points,
                   int64_t max_voxels, int64_t coord_columns, float* voxels, int32_t* coords, int32_t* counts, int32_t* voxel_of_point,
                   int64_t* counters, int num_threads) {
  const VoxelGrid grid = VOXEL_GRID;
  const int threads = threads_for(num_points, num_threads, kGrain);
  if (voxel_of_point) std::fill(voxel_of_point, voxel_of_point + num_points, -1);
  SortedPoints sorted(grid, points, num_points, columns, batch, counters, threads);
  Buffer<uint32_t> voxel_at(sorted.num_voxels());
  order_of_appearance(sorted, num_points, voxel_at.get(), threads);
  const int64_t kept = std::min(sorted.num_voxels(), max_voxels);
  std::vector<int64_t> points_kept(threads, 0);
  const int64_t row = max_points * columns;
  parallel_ranges(kept, threads, [&](int t, int64_t begin, int64_t end) {
    RowWriter writer(voxels + begin * row, row);
    for (int64_t rank = begin; rank < end; ++rank) {
      const int64_t v = voxel_at[rank], first = sorted.begin(v), n = std::min<int64_t>(sorted.begin(v + 1) - first, max_points);
      if (rank + 8 < end) __builtin_prefetch(points + sorted.point(sorted.begin(voxel_at[rank + 8])) * columns);
      grid.write_coords(sorted.cell(grid, points, columns, batch, first), static_cast<int32_t>(coord_columns), coords + rank * coord_columns);
      counts[rank] = static_cast<int32_t>(n);
      points_kept[t] += n;
      float* out = writer.next();
      for (int64_t i = 0; i < n; ++i) {
        const int64_t p = sorted.point(first + i);
        for (int64_t c = 0; c < columns; ++c) out[i * columns + c] = points[p * columns + c];
        if (voxel_of_point) voxel_of_point[p] = static_cast<int32_t>(rank);
      }
    }
  });
  counters[kNumVoxels] = kept;
  counters[kNumVoxelsOver] = sorted.num_voxels() - kept;
  counters[kNumPointsOver] = sorted.num_inside();
  for (const int64_t n : points_kept) counters[kNumPointsOver] -= n;
}

}  // namespace ops::cpu
