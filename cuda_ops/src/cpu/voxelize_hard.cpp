// Hard voxels on the CPU: a hash table finds the first point of each point's cell; the first points, in their order, are the voxels. Then
// the points are listed voxel by voxel, and every row of the result is written once, in order.
#include <cstring>
#include <vector>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "cells.hpp"
#include "ops.hpp"

namespace ops::cpu {
namespace {

constexpr int64_t kGrain = 8192;  // points that are worth a thread
constexpr int64_t kBlock = 256;   // points that are looked up together, so that their cache lines are on the way

/// The first point of each cell: open addressing, never more than three quarters full.
template <class Cell>
class FirstPoints {
 public:
  explicit FirstPoints(int64_t slots) { allocate(slots); }
  ~FirstPoints() { give_block(slots_); }
  FirstPoints(const FirstPoints&) = delete;
  FirstPoints& operator=(const FirstPoints&) = delete;

  static uint64_t mix(Cell cell) { return static_cast<uint64_t>(cell) * 0x9E3779B97F4A7C15u; }

  /// first[i], the first point of cells[i], for n of the points i, at most kBlock, in this order: i itself where the cell is new.
  void find_or_add(const uint32_t* points, int64_t n, const Cell* cells, uint32_t* first) {
    while (used_ + kBlock > size_ / 4 * 3) grow();
    for (int64_t k = 0; k < n; ++k) __builtin_prefetch(&slots_[place(cells[points[k]])], 1);
    // What a slot holds cannot be foreseen. Most cells are found at their own place, which is done without a branch; the others afterwards,
    // all points of such a cell alike, because what stands in their place stays there.
    uint32_t elsewhere[kBlock];
    int64_t num_elsewhere = 0;
    for (int64_t k = 0; k < n; ++k) {
      const uint32_t i = points[k];
      Slot& slot = slots_[place(cells[i])];
      const bool is_free = slot.first == kFree;
      const Slot now{is_free ? cells[i] : slot.cell, is_free ? i : slot.first};
      slot = now;
      first[i] = now.first;
      used_ += is_free;
      elsewhere[num_elsewhere] = i;
      num_elsewhere += now.cell != cells[i];
    }
    for (int64_t k = 0; k < num_elsewhere; ++k) {
      const uint32_t i = elsewhere[k];
      uint64_t at = place(cells[i]);
      do at = (at + 1) & (size_ - 1);
      while (slots_[at].first != kFree && slots_[at].cell != cells[i]);
      if (slots_[at].first == kFree) slots_[at] = {cells[i], i}, ++used_;
      first[i] = slots_[at].first;
    }
  }

 private:
  static constexpr uint32_t kFree = 0xffffffffu;  // no point: there are fewer than 2^31
  struct Slot {
    Cell cell;
    uint32_t first;
  };

  uint64_t place(Cell cell) const { return mix(cell) >> shift_; }

  void allocate(int64_t slots) {
    size_ = 64, shift_ = 58;
    while (static_cast<int64_t>(size_) < slots) size_ *= 2, --shift_;
    slots_ = static_cast<Slot*>(take_block(sizeof(Slot) * size_));
    std::memset(static_cast<void*>(slots_), 0xff, sizeof(Slot) * size_);
  }

  void grow() {
    Slot* const old = slots_;
    const uint64_t count = size_;
    allocate(static_cast<int64_t>(4 * count));
    for (uint64_t k = 0; k < count; ++k) {
      if (old[k].first == kFree) continue;
      uint64_t at = place(old[k].cell);
      while (slots_[at].first != kFree) at = (at + 1) & (size_ - 1);
      slots_[at] = old[k];
    }
    give_block(old);
  }

  Slot* slots_;
  uint64_t size_, used_ = 0;
  int shift_;
};

/// The points of each voxel, voxels in the order of their first points.
template <class Cell>
class GroupedPoints {
 public:
  GroupedPoints(const VoxelGrid& grid, const float* points, int64_t count, int64_t columns, const int32_t* batch, int64_t max_points,
                int64_t* counters, int threads)
      : count_(count), threads_(threads), nothing_(static_cast<Cell>(grid.cells())), cells_(count), first_(count), nth_(count),
        begin_of_(count), begins_(count + 1), order_(count + threads) {
    std::vector<int64_t> outside(threads, 0), not_finite(threads, 0);
    parallel_ranges(count, threads, [&](int t, int64_t begin, int64_t end) {
      write_cells(grid, points, columns, batch, begin, end, cells_.get(), &outside[t], &not_finite[t]);
      std::fill(first_.get() + begin, first_.get() + end, kNone);
      std::fill(nth_.get() + begin, nth_.get() + end, 0u);
      std::fill(begin_of_.get() + begin, begin_of_.get() + end, 0u);
    });
    for (int t = 0; t < threads; ++t) {
      counters[kNumOutside] += outside[t];
      counters[kNumNotFinite] += not_finite[t];
    }
    find_first_points();
    number_voxels(static_cast<uint32_t>(max_points));
    list_points(static_cast<uint32_t>(max_points));
  }

  int64_t num_voxels() const { return num_voxels_; }
  /// Where the voxel's points begin in the list, at most max_points of each.
  int64_t begin(int64_t voxel) const { return begins_[voxel]; }
  int64_t point(int64_t i) const { return order_[i] & 0x7fffffffu; }
  bool is_first(int64_t i) const { return order_[i] >> 31; }
  Cell cell(int64_t point) const { return cells_[point]; }

 private:
  static constexpr uint32_t kNone = 0xffffffffu;

  /// first_: the first point of each point's cell. nth_: how many of the cell came before it; of a first point, how many there are in all.
  void find_first_points() {
    // Each thread has the cells whose hash falls to it, and goes through all points in their order. Not the upper bits of the hash: those
    // say where in the table a cell stands.
    const auto is_of = [&](int t, Cell cell) {
      return (threads_ == 1 || static_cast<int>((FirstPoints<Cell>::mix(cell) >> 24 & 0xffff) * static_cast<uint64_t>(threads_) >> 16) == t) &
             (cell != nothing_);
    };
    parallel_ranges(threads_, threads_, [&](int t, int64_t, int64_t) {
      FirstPoints<Cell> table(count_ / threads_);
      uint32_t mine[kBlock];
      for (int64_t begin = 0; begin < count_; begin += kBlock) {
        int64_t n = 0;
        for (int64_t i = begin, end = std::min(count_, begin + kBlock); i < end; ++i) {
          mine[n] = static_cast<uint32_t>(i);
          n += is_of(t, cells_[i]);
        }
        table.find_or_add(mine, n, cells_.get(), first_.get());
        for (int64_t k = 0; k < n; ++k) {
          const uint32_t i = mine[k], first = first_[i], before = nth_[first];  // 0 where first is i
          nth_[i] = before;
          nth_[first] = before + 1;
        }
      }
    });
  }

  /// begins_ of each voxel, and begin_of_ its first point.
  void number_voxels(uint32_t max_points) {
    std::vector<int64_t> voxels(threads_ + 1, 0), listed(threads_ + 1, 0);
    const auto take = [&](int64_t i, int64_t& voxel, uint32_t& next) {
      const uint32_t is_first = first_[i] == static_cast<uint32_t>(i);
      voxel += is_first;
      next += std::min(nth_[i], max_points) & (0 - is_first);  // no branch: it cannot be foreseen
    };
    parallel_ranges(count_, threads_, [&](int t, int64_t begin, int64_t end) {
      int64_t voxel = 0;
      uint32_t next = 0;
      for (int64_t i = begin; i < end; ++i) take(i, voxel, next);
      voxels[t + 1] = voxel, listed[t + 1] = next;
    });
    for (int t = 0; t < threads_; ++t) voxels[t + 1] += voxels[t], listed[t + 1] += listed[t];
    num_voxels_ = voxels[threads_];
    parallel_ranges(count_, threads_, [&](int t, int64_t begin, int64_t end) {
      int64_t voxel = voxels[t];
      uint32_t next = static_cast<uint32_t>(listed[t]);
      for (int64_t i = begin; i < end && voxel < voxels[t + 1]; ++i) {
        begin_of_[i] = begins_[voxel] = next;
        take(i, voxel, next);
      }
    });
    begins_[num_voxels_] = static_cast<uint32_t>(listed[threads_]);
  }

  void list_points(uint32_t max_points) {
    parallel_ranges(count_, threads_, [&](int t, int64_t begin, int64_t end) {
      const uint32_t aside = static_cast<uint32_t>(count_ + t);
      for (int64_t i = begin; i < end; ++i) {
        const uint32_t first = first_[i], point = static_cast<uint32_t>(i);
        const uint32_t is_first = first == point, before = is_first ? 0 : nth_[i];
        const uint32_t to = begin_of_[first == kNone ? point : first] + before;
        order_[(before < max_points) & (first != kNone) ? to : aside] = point | is_first << 31;
      }
    });
  }

  int64_t count_;
  int threads_;
  Cell nothing_;
  Buffer<Cell> cells_;
  Buffer<uint32_t> first_, nth_, begin_of_, begins_, order_;
  int64_t num_voxels_ = 0;
};

/// Copy past the caches where the processor can: a large result would only be read into them to be overwritten.
void copy_streaming(const float* from, float* to, int64_t count) {
#ifdef __SSE2__
  while (count > 0 && reinterpret_cast<uintptr_t>(to) % 16 != 0) *to++ = *from++, --count;
  for (; count >= 4; count -= 4, from += 4, to += 4) _mm_stream_ps(to, _mm_loadu_ps(from));
#endif
  std::memcpy(to, from, sizeof(float) * static_cast<std::size_t>(count));
}

/// The points of the voxels [begin, end) and zeros behind them, each row written once; kColumns 0: any number of columns.
template <int kColumns, class Cell>
void write_points(const GroupedPoints<Cell>& grouped, const float* points, int64_t any_columns, int64_t max_points, int64_t begin,
                  int64_t end, float* voxels) {
  constexpr int64_t kAhead = 16;  // the points lie anywhere in memory: ask for them before they are needed
  const int64_t columns = kColumns ? kColumns : any_columns, row = max_points * columns, last = grouped.begin(end);
  const int64_t rows = std::max<int64_t>(2048 / row, 1);  // put together in the first-level cache
  Buffer<float> block(rows * row);
  for (int64_t voxel = begin; voxel < end; voxel += rows) {
    const int64_t n = std::min(rows, end - voxel), stop = grouped.begin(voxel + n);
    std::memset(block.get(), 0, sizeof(float) * static_cast<std::size_t>(n * row));
    float *next = block.get(), *out = next;
    for (int64_t i = grouped.begin(voxel); i < stop; ++i) {
      if (i + kAhead < last) __builtin_prefetch(points + grouped.point(i + kAhead) * columns);
      const bool is_first = grouped.is_first(i);
      out = is_first ? next : out;
      next += is_first ? row : 0;
      const float* p = points + grouped.point(i) * columns;
      for (int64_t c = 0; c < columns; ++c) out[c] = p[c];
      out += columns;
    }
    copy_streaming(block.get(), voxels + voxel * row, n * row);
  }
#ifdef __SSE2__
  _mm_sfence();
#endif
}

/// Place and number of points of the voxels [begin, end).
template <class Cell>
void write_places(const GroupedPoints<Cell>& grouped, const VoxelGrid& grid, int64_t begin, int64_t end, int64_t coord_columns,
                  int32_t* coords, int32_t* counts) {
  Cell cells[kBlock];
  for (int64_t voxel = begin; voxel < end; voxel += kBlock) {
    const int64_t n = std::min(kBlock, end - voxel);
    for (int64_t k = 0; k < n; ++k) {
      const int64_t first = grouped.begin(voxel + k);
      counts[voxel + k] = static_cast<int32_t>(grouped.begin(voxel + k + 1) - first);
      cells[k] = grouped.cell(grouped.point(first));
    }
    write_coords(grid, cells, n, coord_columns, coords + voxel * coord_columns);
  }
}

template <class Cell>
void voxelize(const VoxelGrid& grid, const float* points, int64_t num_points, int64_t columns, const int32_t* batch, int64_t max_points,
              int64_t max_voxels, int64_t coord_columns, float* voxels, int32_t* coords, int32_t* counts, int32_t* voxel_of_point,
              int64_t* counters, int threads) {
  const GroupedPoints<Cell> grouped(grid, points, num_points, columns, batch, max_points, counters, threads);
  const int64_t kept = std::min(grouped.num_voxels(), max_voxels);
  if (voxel_of_point) std::fill(voxel_of_point, voxel_of_point + num_points, -1);
  parallel_ranges(kept, threads, [&](int, int64_t begin, int64_t end) {
    write_places(grouped, grid, begin, end, coord_columns, coords, counts);
    const auto write = columns == 5 ? write_points<5, Cell> : columns == 4 ? write_points<4, Cell> : write_points<0, Cell>;
    write(grouped, points, columns, max_points, begin, end, voxels);
    if (!voxel_of_point) return;
    for (int64_t v = begin; v < end; ++v) {
      for (int64_t i = grouped.begin(v); i < grouped.begin(v + 1); ++i) voxel_of_point[grouped.point(i)] = static_cast<int32_t>(v);
    }
  });
  counters[kNumVoxels] = kept;
  counters[kNumVoxelsOver] = grouped.num_voxels() - kept;
  counters[kNumPointsOver] = num_points - counters[kNumOutside] - counters[kNumNotFinite] - grouped.begin(kept);
}

}  // namespace

void voxelize_hard(const float* points, int64_t num_points, int64_t columns, const int32_t* batch, VOXEL_GRID_ARGUMENTS, int64_t max_points,
                   int64_t max_voxels, int64_t coord_columns, float* voxels, int32_t* coords, int32_t* counts, int32_t* voxel_of_point,
                   int64_t* counters, int num_threads) {
  const VoxelGrid grid = VOXEL_GRID;
  const int threads = threads_for(num_points, num_threads, kGrain);
  const auto run = grid.cells() < (int64_t{1} << 32) ? voxelize<uint32_t> : voxelize<uint64_t>;
  run(grid, points, num_points, columns, batch, max_points, max_voxels, coord_columns, voxels, coords, counts, voxel_of_point, counters, threads);
}

}  // namespace ops::cpu
