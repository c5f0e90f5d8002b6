// Rows reduced by voxel on the CPU: a stable sort of the rows by voxel, then each voxel's rows in their order.
#include "scatter.hpp"

#include <vector>

#include "ops.hpp"
#include "sort.hpp"

namespace ops::cpu {
namespace {

constexpr int64_t kRowsPerThread = 8192;        // when only their voxels are looked at
constexpr int64_t kNumbersPerThread = 1 << 15;  // when all columns are
constexpr int64_t kAhead = 12;                  // rows lie anywhere in memory: ask for them so many rows before they are needed

/// The rows of each voxel in their order.
class RowsOfVoxels {
 public:
  RowsOfVoxels(const int32_t* index, int64_t num_rows, int64_t size, int num_threads)
      : RowsOfVoxels(kept_rows(index, num_rows, size, num_threads), index, num_rows, size) {}

  int64_t count() const { return order_.count(); }
  int64_t begin(int64_t voxel) const { return begins_[voxel]; }
  int64_t row(int64_t i) const { return order_.index(i); }

 private:
  /// Rows kept before each thread's range, and in all.
  static std::vector<int64_t> kept_rows(const int32_t* index, int64_t num_rows, int64_t size, int num_threads) {
    const int threads = threads_for(num_rows, num_threads, kRowsPerThread);
    std::vector<int64_t> before(static_cast<std::size_t>(threads) + 1, 0);
    parallel_ranges(num_rows, threads, [&](int t, int64_t begin, int64_t end) {
      int64_t kept = 0;
      for (int64_t i = begin; i < end; ++i) kept += is_voxel(index[i], size);
      before[static_cast<std::size_t>(t) + 1] = kept;
    });
    for (std::size_t t = 1; t < before.size(); ++t) before[t] += before[t - 1];
    return before;
  }

  RowsOfVoxels(const std::vector<int64_t>& before, const int32_t* index, int64_t num_rows, int64_t size)
      : order_(before.back()), begins_(size + 1) {
    const int threads = static_cast<int>(before.size()) - 1;
    parallel_ranges(num_rows, threads, [&](int t, int64_t begin, int64_t end) {
      uint64_t* word = order_.words() + before[static_cast<std::size_t>(t)];
      for (int64_t i = begin; i < end; ++i) {
        if (is_voxel(index[i], size)) *word++ = static_cast<uint64_t>(index[i]) << 32 | static_cast<uint64_t>(i);
      }
    });
    if (!is_sorted(threads)) order_.sort_by_bits(bits_of(static_cast<uint64_t>(size - 1)), threads);
    find_begins(size, threads);
  }

  bool is_sorted(int threads) {
    std::vector<char> sorted(static_cast<std::size_t>(threads));
    parallel_ranges(count(), threads, [&](int t, int64_t begin, int64_t end) {
      const uint64_t* words = order_.words();
      sorted[static_cast<std::size_t>(t)] = std::is_sorted(words + std::max<int64_t>(begin - 1, 0), words + end);
    });
    return std::count(sorted.begin(), sorted.end(), 1) == threads;
  }

  void find_begins(int64_t size, int threads) {
    const auto voxel = [&](int64_t i) { return static_cast<int64_t>(order_.words()[i] >> 32); };
    parallel_ranges(count(), threads, [&](int, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {  // a voxel without rows begins where the next one with rows does
        for (int64_t v = i == 0 ? 0 : voxel(i - 1) + 1; v <= voxel(i); ++v) begins_[v] = static_cast<uint32_t>(i);
      }
    });
    for (int64_t v = count() == 0 ? 0 : voxel(count() - 1) + 1; v <= size; ++v) begins_[v] = static_cast<uint32_t>(count());
  }

  StableSort order_;
  Buffer<uint32_t> begins_;
};

// ---- leaf loops: templates for both dtypes, cloned below for the processors ----

#define OPS_INLINE __attribute__((always_inline)) inline  // into the clones, or they would all call the plain one

template <class T>
OPS_INLINE void ask_for(const T* row, int64_t columns) {
  constexpr int64_t kLine = 64 / sizeof(T);
  for (int64_t c = 0; c < columns; c += kLine) __builtin_prefetch(row + c);
}

template <class T>
OPS_INLINE void max_range(const RowsOfVoxels& rows, const T* values, int64_t columns, int64_t begin, int64_t end, T* best, int32_t* argmax) {
  for (int64_t v = begin; v < end; ++v) {
    T* __restrict out = best + v * columns;
    int32_t* __restrict at = argmax + v * columns;
    const int64_t first = rows.begin(v), stop = rows.begin(v + 1);
    if (first == stop) {
      for (int64_t c = 0; c < columns; ++c) out[c] = 0, at[c] = -1;
      continue;
    }
    for (int64_t i = first; i < stop; ++i) {
      if (i + kAhead < rows.count()) ask_for(values + rows.row(i + kAhead) * columns, columns);
      const int32_t row = static_cast<int32_t>(rows.row(i));
      const T* __restrict p = values + row * columns;
      if (i == first) {
        for (int64_t c = 0; c < columns; ++c) out[c] = p[c], at[c] = row;
        continue;
      }
      for (int64_t c = 0; c < columns; ++c) {
        const bool is_new = replaces(p[c], out[c]);
        out[c] = is_new ? p[c] : out[c];
        at[c] = is_new ? row : at[c];
      }
    }
  }
}

template <class T>
OPS_INLINE void mean_range(const RowsOfVoxels& rows, const T* values, int64_t columns, int64_t begin, int64_t end, T* mean, int32_t* counts) {
  for (int64_t v = begin; v < end; ++v) {
    T* __restrict out = mean + v * columns;
    const int64_t first = rows.begin(v), stop = rows.begin(v + 1);
    counts[v] = static_cast<int32_t>(stop - first);
    if (first == stop) {
      for (int64_t c = 0; c < columns; ++c) out[c] = 0;
      continue;
    }
    for (int64_t i = first; i < stop; ++i) {
      if (i + kAhead < rows.count()) ask_for(values + rows.row(i + kAhead) * columns, columns);
      const T* __restrict p = values + rows.row(i) * columns;
      if (i == first) {
        for (int64_t c = 0; c < columns; ++c) out[c] = p[c];
      } else {
        for (int64_t c = 0; c < columns; ++c) out[c] += p[c];
      }
    }
    if (stop - first == 1) continue;
    for (int64_t c = 0; c < columns; ++c) out[c] = mean_of(out[c], stop - first);
  }
}

template <class T>
OPS_INLINE void max_grad_range(const T* grad, const int32_t* index, int64_t size, int64_t columns, const int32_t* argmax, int64_t begin,
                               int64_t end, T* grad_values) {
  for (int64_t i = begin; i < end; ++i) {
    T* __restrict out = grad_values + i * columns;
    if (!is_voxel(index[i], size)) {
      for (int64_t c = 0; c < columns; ++c) out[c] = 0;
      continue;
    }
    if (i + kAhead < end && is_voxel(index[i + kAhead], size)) {
      ask_for(grad + index[i + kAhead] * columns, columns);
      ask_for(argmax + index[i + kAhead] * columns, columns);
    }
    const T* __restrict from = grad + index[i] * columns;
    const int32_t* __restrict at = argmax + index[i] * columns;
    const int32_t row = static_cast<int32_t>(i);
    for (int64_t c = 0; c < columns; ++c) out[c] = grad_of_max(from[c], at[c], row);
  }
}

template <class T>
OPS_INLINE void mean_grad_range(const T* grad, const int32_t* index, int64_t size, int64_t columns, const int32_t* counts, int64_t begin,
                                int64_t end, T* grad_values) {
  for (int64_t i = begin; i < end; ++i) {
    T* __restrict out = grad_values + i * columns;
    if (!is_voxel(index[i], size)) {
      for (int64_t c = 0; c < columns; ++c) out[c] = 0;
      continue;
    }
    if (i + kAhead < end && is_voxel(index[i + kAhead], size)) ask_for(grad + index[i + kAhead] * columns, columns);
    const T* __restrict from = grad + index[i] * columns;
    const int32_t count = counts[index[i]];
    for (int64_t c = 0; c < columns; ++c) out[c] = mean_of(from[c], count);
  }
}

#define OPS_LEAVES(T)                                                                                                                      \
  OPS_CLONES void max_leaf(const RowsOfVoxels& rows, const T* values, int64_t columns, int64_t begin, int64_t end, T* best,                \
                           int32_t* argmax) {                                                                                              \
    max_range(rows, values, columns, begin, end, best, argmax);                                                                            \
  }                                                                                                                                        \
  OPS_CLONES void mean_leaf(const RowsOfVoxels& rows, const T* values, int64_t columns, int64_t begin, int64_t end, T* mean,               \
                            int32_t* counts) {                                                                                             \
    mean_range(rows, values, columns, begin, end, mean, counts);                                                                           \
  }                                                                                                                                        \
  OPS_CLONES void max_grad_leaf(const T* grad, const int32_t* index, int64_t size, int64_t columns, const int32_t* argmax, int64_t begin,  \
                                int64_t end, T* grad_values) {                                                                             \
    max_grad_range(grad, index, size, columns, argmax, begin, end, grad_values);                                                           \
  }                                                                                                                                        \
  OPS_CLONES void mean_grad_leaf(const T* grad, const int32_t* index, int64_t size, int64_t columns, const int32_t* counts, int64_t begin, \
                                 int64_t end, T* grad_values) {                                                                            \
    mean_grad_range(grad, index, size, columns, counts, begin, end, grad_values);                                                          \
  }
OPS_LEAVES(float)
OPS_LEAVES(double)

/// body(begin, end) for blocks of voxels, handed out as threads become free: voxels may have very different numbers of rows.
template <class Body>
void for_blocks(int64_t num_rows, int64_t size, int64_t columns, int num_threads, Body&& body) {
  const int threads = threads_for((num_rows + size) * columns, num_threads, kNumbersPerThread);
  const int64_t block = std::clamp<int64_t>(size / (8 * threads), 1, 512);
  parallel_dynamic((size + block - 1) / block, threads, 1, [&](int64_t b) { body(b * block, std::min((b + 1) * block, size)); });
}

}  // namespace

template <class T>
void scatter_max(const T* values, int64_t num_rows, int64_t columns, const int32_t* index, int64_t size, T* best, int32_t* argmax,
                 int num_threads) {
  const RowsOfVoxels rows(index, num_rows, size, num_threads);
  for_blocks(rows.count(), size, columns, num_threads,
             [&](int64_t begin, int64_t end) { max_leaf(rows, values, columns, begin, end, best, argmax); });
}

template <class T>
void scatter_mean(const T* values, int64_t num_rows, int64_t columns, const int32_t* index, int64_t size, T* mean, int32_t* counts,
                  int num_threads) {
  const RowsOfVoxels rows(index, num_rows, size, num_threads);
  for_blocks(rows.count(), size, columns, num_threads,
             [&](int64_t begin, int64_t end) { mean_leaf(rows, values, columns, begin, end, mean, counts); });
}

template <class T>
void scatter_max_grad(const T* grad, int64_t size, int64_t columns, const int32_t* index, int64_t num_rows, const int32_t* argmax,
                      T* grad_values, int num_threads) {
  parallel_ranges(num_rows, threads_for(num_rows * columns, num_threads, kNumbersPerThread), [&](int, int64_t begin, int64_t end) {
    max_grad_leaf(grad, index, size, columns, argmax, begin, end, grad_values);
  });
}

template <class T>
void scatter_mean_grad(const T* grad, int64_t size, int64_t columns, const int32_t* index, int64_t num_rows, const int32_t* counts,
                       T* grad_values, int num_threads) {
  parallel_ranges(num_rows, threads_for(num_rows * columns, num_threads, kNumbersPerThread), [&](int, int64_t begin, int64_t end) {
    mean_grad_leaf(grad, index, size, columns, counts, begin, end, grad_values);
  });
}

#define OPS_INSTANCES(T)                                                                                                       \
  template void scatter_max(const T*, int64_t, int64_t, const int32_t*, int64_t, T*, int32_t*, int);                           \
  template void scatter_mean(const T*, int64_t, int64_t, const int32_t*, int64_t, T*, int32_t*, int);                          \
  template void scatter_max_grad(const T*, int64_t, int64_t, const int32_t*, int64_t, const int32_t*, T*, int);                \
  template void scatter_mean_grad(const T*, int64_t, int64_t, const int32_t*, int64_t, const int32_t*, T*, int);
OPS_INSTANCES(float)
OPS_INSTANCES(double)

}  // namespace ops::cpu
