// Arithmetic of sparse convolutions on the CPU: rows gathered by a table, multiplied by the weights of their offset, summed in registers.
//
// This file is compiled with fused multiply-add where the processor has it (CMakeLists.txt), unlike the others: its sums are long and no
// decision hangs on them. Each sum has one order (offset by offset, channel by channel; or row by row of a block, block by block), so the
// bits depend on whether the processor has that instruction and on nothing else: not on threads, tiles or the width of its vectors.
#include "sparse_conv.hpp"

#include <numeric>
#include <stdexcept>
#include <string>

#include "ops.hpp"
#include "parallel.hpp"
#include "sparse_pairs.hpp"

// What is inlined takes the instruction set of the function that it ends up in.
#define OPS_INLINE __attribute__((always_inline)) inline
#define OPS_UNROLL _Pragma("GCC unroll 16")

namespace ops::cpu {
namespace {

template <class T, int kBytes>
struct VectorOf;
#define OPS_VECTOR(T, bytes)                                                                                                 \
  template <>                                                                                                                \
  struct VectorOf<T, bytes> {                                                                                                \
    typedef T Type __attribute__((vector_size(bytes), aligned(sizeof(T)), may_alias)); /* loads need no alignment */         \
  };
OPS_VECTOR(float, 16)
OPS_VECTOR(float, 32)
OPS_VECTOR(float, 64)
OPS_VECTOR(double, 16)
OPS_VECTOR(double, 32)
OPS_VECTOR(double, 64)

/// What the tiles of one call share. Output channels come in panels of as many as a vector has lanes; `stride` is their number with the
/// zeros behind the last one.
template <class T>
struct Layer {
  const T* features;
  int64_t num_inputs, c_in;
  const T* weight;    // for `convolve`, see `pack_weight`
  const T* gradient;  // (num_outputs, stride), for `differentiate`
  int64_t c_out, stride;
  const int32_t* table;
  int64_t num_outputs, offsets;
  const T *bias, *residual;
  bool relu;
  T* out;
};

/// Rows of a tile: its sums stay in the second cache, and the weights of all offsets are read seldom.
template <class T>
int64_t rows_of_tile(int64_t stride) {
  constexpr int64_t kBytes = 131072;
  return std::clamp<int64_t>(kBytes / static_cast<int64_t>(sizeof(T)) / stride, 32, 256);
}

/// Largest entry of [begin, end), at least -1.
OPS_CLONES int32_t largest_entry(const int32_t* table, int64_t begin, int64_t end) {
  int32_t largest = -1;
  for (int64_t i = begin; i < end; ++i) largest = table[i] > largest ? table[i] : largest;
  return largest;
}

OPS_CLONES int64_t count_neighbours(const int32_t* table, int64_t begin, int64_t end) {
  int64_t count = 0;
  for (int64_t i = begin; i < end; ++i) count += table[i] >= 0;
  return count;
}

/// Raise where the entries [begin, end) of the table name an input that does not exist.
void expect_inputs(const int32_t* table, int64_t begin, int64_t end, int64_t num_inputs) {
  const int32_t largest = largest_entry(table, begin, end);
  if (largest < num_inputs) return;
  throw std::invalid_argument("table: expected -1 or rows below " + std::to_string(num_inputs) + ", got " + std::to_string(largest));
}

constexpr int64_t kLineBytes = 64;  // of a cache

/// The inner loops for vectors of kBytes in kRegisters registers.
template <class T, int kBytes, int kRegisters>
struct Kernels {
  using Vector = typename VectorOf<T, kBytes>::Type;
  static constexpr int kLanes = kBytes / static_cast<int>(sizeof(T));
  static constexpr int kMostVectors = kRegisters >= 32 ? 4 : 2;  // panels at a time: more of them need fewer loads

  /// Rows at a time for so many panels: their sums leave registers for the panels and one number. More than 12 run out of addresses.
  static constexpr int most_rows(int vectors) { return std::min((kRegisters - 1 - vectors) / vectors, 12); }

  static Vector& vector(T* place) { return *reinterpret_cast<Vector*>(place); }
  static const Vector& vector(const T* place) { return *reinterpret_cast<const Vector*>(place); }

  /// sums[output[r]] += features[input[r]] * w, for kRows rows of c_in channels and kVectors panels w.
  struct RowsTimesWeight {
    const T* features;
    const int32_t* input;
    int64_t c_in;
    const T* w;
    T* sums;
    const int32_t* output;
    int64_t stride;
    const int32_t* next;  // inputs of the next offset; with num_next = 0 nobody fetches them
    int64_t num_next;

    template <int kRows, int kVectors>
    OPS_INLINE static void add(const T* const (&x)[kRows], int64_t c, const T* w, Vector (&acc)[kRows][kVectors]) {
      Vector b[kVectors];
      OPS_UNROLL for (int v = 0; v < kVectors; ++v) b[v] = vector(w + v * kLanes);
      OPS_UNROLL for (int r = 0; r < kRows; ++r) {
        OPS_UNROLL for (int v = 0; v < kVectors; ++v) acc[r][v] += x[r][c] * b[v];
      }
    }

    template <int kRows, int kVectors>
    OPS_INLINE void run(int64_t first) const {
      constexpr int kChannels = 4;  // at a time
      const T* x[kRows];
      Vector acc[kRows][kVectors];
      OPS_UNROLL for (int r = 0; r < kRows; ++r) {
        x[r] = features + input[first + r] * c_in;
        const T* sum = sums + output[first + r] * stride;
        OPS_UNROLL for (int v = 0; v < kVectors; ++v) acc[r][v] = vector(sum + v * kLanes);
      }
      if (first + kRows <= num_next) {  // what is far away by then comes meanwhile
        for (int64_t c = 0; c < c_in; c += kLineBytes / static_cast<int64_t>(sizeof(T))) {
          OPS_UNROLL for (int r = 0; r < kRows; ++r) __builtin_prefetch(features + next[first + r] * c_in + c);
        }
      }
      const T* weight = w;
      int64_t c = 0;
      for (; c + kChannels <= c_in; c += kChannels, weight += kChannels * kVectors * kLanes) {
        OPS_UNROLL for (int i = 0; i < kChannels; ++i) add<kRows, kVectors>(x, c + i, weight + i * kVectors * kLanes, acc);
      }
      for (; c < c_in; ++c, weight += kVectors * kLanes) add<kRows, kVectors>(x, c, weight, acc);
      const int32_t* again = output + first;
      asm("" : "+r"(again));  // read anew: to keep their addresses would take the registers of x
      OPS_UNROLL for (int r = 0; r < kRows; ++r) {
        T* sum = sums + again[r] * stride;
        OPS_UNROLL for (int v = 0; v < kVectors; ++v) vector(sum + v * kLanes) = acc[r][v];
      }
    }
  };

  /// sums[r] += features[input[i]][r] * gradient[output[i]], summed over i, for kRows input channels r and kVectors panels.
  struct FeaturesTimesGradient {
    const T* features;
    const int32_t* input;
    int64_t c_in;
    const T* gradient;
    const int32_t* output;
    int64_t stride, count;
    T* sums;

    template <int kRows, int kVectors>
    OPS_INLINE void run(int64_t first) const {
      T* sum = sums + first * stride;
      Vector acc[kRows][kVectors];
      OPS_UNROLL for (int r = 0; r < kRows; ++r) {
        OPS_UNROLL for (int v = 0; v < kVectors; ++v) acc[r][v] = vector(sum + r * stride + v * kLanes);
      }
      for (int64_t i = 0; i < count; ++i) {
        const T *x = features + input[i] * c_in + first, *g = gradient + output[i] * stride;
        Vector b[kVectors];
        OPS_UNROLL for (int v = 0; v < kVectors; ++v) b[v] = vector(g + v * kLanes);
        OPS_UNROLL for (int r = 0; r < kRows; ++r) {
          OPS_UNROLL for (int v = 0; v < kVectors; ++v) acc[r][v] += x[r] * b[v];
        }
      }
      OPS_UNROLL for (int r = 0; r < kRows; ++r) {
        OPS_UNROLL for (int v = 0; v < kVectors; ++v) vector(sum + r * stride + v * kLanes) = acc[r][v];
      }
    }
  };

  /// loop.run<rows, kVectors>(first) with what `rows` is only when it runs.
  template <int kRows, int kVectors, class Loop>
  OPS_INLINE static void run_rows(const Loop& loop, int64_t first, int64_t rows) {
    if constexpr (kRows > 0) {
      if (rows == kRows) {
        loop.template run<kRows, kVectors>(first);
      } else {
        run_rows<kRows - 1, kVectors>(loop, first, rows);
      }
    }
  }

  /// `loop` over all of `count` rows in groups of nearly the same size: a last group of one row would wait for its own sums.
  template <int kVectors, class Loop>
  OPS_INLINE static void run_groups(const Loop& loop, int64_t count) {
    constexpr int kRows = most_rows(kVectors);
    int64_t first = 0;
    for (int64_t groups = (count + kRows - 1) / kRows; groups > 0; --groups) {
      const int64_t rows = (count - first + groups - 1) / groups;
      run_rows<kRows, kVectors>(loop, first, rows);
      first += rows;
    }
  }

  /// make_loop(panel) over all of `count` rows, for every panel, kVectors at a time, then half as many.
  template <int kVectors, class MakeLoop>
  OPS_INLINE static void run_panels(int64_t panel, int64_t panels, int64_t count, const MakeLoop& make_loop) {
    for (; panel + kVectors <= panels; panel += kVectors) run_groups<kVectors>(make_loop(panel), count);
    if constexpr (kVectors > 1) run_panels<kVectors / 2>(panel, panels, count, make_loop);
  }

  OPS_INLINE static void collect(Pairs& pairs, const int32_t* table, int64_t rows, int64_t columns, int64_t stride) {
#ifdef OPS_WIDE_VECTORS
    if constexpr (kBytes == 64) return pairs.collect_wide(table, rows, columns, stride);
#endif
    pairs.collect(table, rows, columns, stride);
  }

  /// Bias, residual and ReLU for the output `row`, whose sum is known.
  OPS_INLINE static void finish(const Layer<T>& layer, int64_t row, const T* sum) {
    const T* residual = layer.residual ? layer.residual + row * layer.c_out : nullptr;
    T* out = layer.out + row * layer.c_out;
    int64_t c = 0;
    for (; c + kLanes <= layer.c_out; c += kLanes) {
      Vector value = vector(sum + c);
      if (layer.bias) value += vector(layer.bias + c);
      if (residual) value += vector(residual + c);
      vector(out + c) = layer.relu ? (value < 0 ? Vector{} : value) : value;  // NaN stays
    }
    for (; c < layer.c_out; ++c) {
      T value = sum[c];
      if (layer.bias) value += layer.bias[c];
      if (residual) value += residual[c];
      out[c] = layer.relu && value < 0 ? T{0} : value;
    }
  }

  /// The outputs [begin, begin + rows).
  OPS_INLINE static void convolve(const Layer<T>& layer, int64_t begin, int64_t rows, Pairs& pairs, T* sums) {
    const int64_t panels = layer.stride / kLanes, panel_size = layer.c_in * kLanes;
    collect(pairs, layer.table + begin * layer.offsets, rows, layer.offsets, layer.offsets);
    std::fill(sums, sums + rows * layer.stride, T{0});
    for (int64_t k = 0; k < layer.offsets; ++k) {
      const T* w = layer.weight + k * panels * panel_size;
      const int64_t next = std::min(k + 1, layer.offsets - 1), num_next = k == next ? 0 : pairs.count(next);
      run_panels<kMostVectors>(0, panels, pairs.count(k), [&](int64_t panel) __attribute__((always_inline)) {
        return RowsTimesWeight{layer.features,  pairs.input(k), layer.c_in,        w + panel * panel_size,  sums + panel * kLanes,
                               pairs.output(k), layer.stride,   pairs.input(next), panel == 0 ? num_next : 0};
      });
    }
    for (int64_t r = 0; r < rows; ++r) finish(layer, begin + r, sums + r * layer.stride);
  }

  /// What the outputs [begin, begin + rows) add to the gradient of the weights of the offsets [first_offset, last_offset): sums (those
  /// offsets, c_in, stride).
  OPS_INLINE static void differentiate(const Layer<T>& layer, int64_t begin, int64_t rows, int64_t first_offset, int64_t last_offset,
                                       Pairs& pairs, T* sums) {
    const int64_t offsets = last_offset - first_offset;
    collect(pairs, layer.table + begin * layer.offsets + first_offset, rows, offsets, layer.offsets);
    for (int64_t k = 0; k < offsets; ++k, sums += layer.c_in * layer.stride) {
      const int64_t count = pairs.count(k);
      if (count == 0) continue;
      run_panels<2>(0, layer.stride / kLanes, layer.c_in, [&](int64_t panel) __attribute__((always_inline)) {
        return FeaturesTimesGradient{layer.features,  pairs.input(k), layer.c_in, layer.gradient + begin * layer.stride + panel * kLanes,
                                     pairs.output(k), layer.stride,   count,      sums + panel * kLanes};
      });
    }
  }
};

#define OPS_CONVOLVE_ARGUMENTS const Layer<T>&layer, int64_t begin, int64_t rows, Pairs &pairs, T *sums
#define OPS_DIFFERENTIATE_ARGUMENTS \
  const Layer<T>&layer, int64_t begin, int64_t rows, int64_t first_offset, int64_t last_offset, Pairs &pairs, T *sums
#define OPS_BODIES(name, target, bytes, registers)                                                             \
  template <class T>                                                                                           \
  target void convolve_##name(OPS_CONVOLVE_ARGUMENTS) {                                                        \
    Kernels<T, bytes, registers>::convolve(layer, begin, rows, pairs, sums);                                   \
  }                                                                                                            \
  template <class T>                                                                                           \
  target void differentiate_##name(OPS_DIFFERENTIATE_ARGUMENTS) {                                              \
    Kernels<T, bytes, registers>::differentiate(layer, begin, rows, first_offset, last_offset, pairs, sums);   \
  }
#ifdef OPS_WIDE_VECTORS
OPS_BODIES(avx512, __attribute__((target("avx512f"))), 64, 32)
OPS_BODIES(avx2, __attribute__((target("avx2,fma"))), 32, 16)
#endif
OPS_BODIES(plain, , 16, 16)

/// The functions for this processor. Not OPS_CLONES: each instruction set has its own blocking and layout of weights.
template <class T>
struct Bodies {
  int64_t lanes, panels;
  void (*convolve)(OPS_CONVOLVE_ARGUMENTS);
  void (*differentiate)(OPS_DIFFERENTIATE_ARGUMENTS);
};

template <class T>
Bodies<T> choose_bodies() {
#ifdef OPS_WIDE_VECTORS
  if (__builtin_cpu_supports("avx512f")) {
    return {64 / sizeof(T), Kernels<T, 64, 32>::kMostVectors, convolve_avx512<T>, differentiate_avx512<T>};
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    return {32 / sizeof(T), Kernels<T, 32, 16>::kMostVectors, convolve_avx2<T>, differentiate_avx2<T>};
  }
#endif
  return {16 / sizeof(T), Kernels<T, 16, 16>::kMostVectors, convolve_plain<T>, differentiate_plain<T>};
}

constexpr int64_t kMultipliesPerThread = 1 << 20;

/// weight (c_out, offsets, c_in) as panels, for the offset k; those that `run_panels` takes together, at most `most`, lie side by side.
template <class T>
void pack_weight(const T* weight, int64_t c_out, int64_t offsets, int64_t c_in, int64_t lanes, int64_t most, int64_t stride, int64_t k,
                 T* packed) {
  packed += k * c_in * stride;
  const int64_t panels = stride / lanes;
  for (int64_t panel = 0, together = most; panel < panels; panel += together) {
    while (panel + together > panels) together /= 2;
    T* block = packed + panel * c_in * lanes;
    const int64_t width = together * lanes;
    for (int64_t i = 0; i < width; ++i) {
      const int64_t o = panel * lanes + i;
      const T* from = weight + (o * offsets + k) * c_in;
      for (int64_t c = 0; c < c_in; ++c) block[c * width + i] = o < c_out ? from[c] : T{0};
    }
  }
}

/// How the gradient of the weights is cut: rows into blocks, each of which has sums of its own; offsets into groups. It must not depend on
/// the number of threads or on the processor, because blocks are what is summed in the end.
struct Cut {
  static constexpr int64_t kMostBlocks = 16, kMostSums = int64_t{1} << 23, kRowsOfBlock = 2048, kOffsetsOfGroup = 9;
  Cut(int64_t num_outputs, int64_t offsets, int64_t size_of_offset) {
    const int64_t most = std::clamp<int64_t>(kMostSums / std::max<int64_t>(offsets * size_of_offset, 1), 1, kMostBlocks);
    rows = std::max(kRowsOfBlock, (num_outputs + most - 1) / most);
    blocks = (num_outputs + rows - 1) / rows;
    groups = (offsets + kOffsetsOfGroup - 1) / kOffsetsOfGroup;
  }
  int64_t rows, blocks, groups;
};

}  // namespace

template <class T>
void sparse_conv(const T* features, int64_t num_inputs, int64_t c_in, const T* weight, int64_t c_out, int64_t offsets, const int32_t* table,
                 int64_t num_outputs, const T* bias, const T* residual, bool relu, T* out, int num_threads) {
  if (num_outputs == 0 || c_out == 0) return;
  const Bodies<T> bodies = choose_bodies<T>();
  const int64_t stride = (c_out + bodies.lanes - 1) / bodies.lanes * bodies.lanes;
  const int threads = threads_for(num_outputs * offsets * c_in * c_out, num_threads, kMultipliesPerThread);
  Buffer<T> packed(offsets * c_in * stride);
  parallel_ranges(offsets, threads, [&](int, int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) pack_weight(weight, c_out, offsets, c_in, bodies.lanes, bodies.panels, stride, k, packed.get());
  });
  const Layer<T> layer{features, num_inputs, c_in, packed.get(), nullptr, c_out, stride, table, num_outputs, offsets, bias, residual, relu, out};
  const int64_t tile = rows_of_tile<T>(stride);
  const auto body = [&](int64_t t) {
    Pairs pairs(tile, offsets);
    Buffer<T> sums(tile * stride);
    const int64_t begin = t * tile, rows = std::min(tile, num_outputs - begin);
    expect_inputs(table, begin * offsets, (begin + rows) * offsets, num_inputs);  // also brings them near
    bodies.convolve(layer, begin, rows, pairs, sums.get());
  };
  parallel_dynamic((num_outputs + tile - 1) / tile, threads, 1, body);
}

template <class T>
void sparse_conv_weight_gradient(const T* features, int64_t num_inputs, int64_t c_in, const T* gradient, int64_t c_out, int64_t offsets,
                                 const int32_t* table, int64_t num_outputs, T* weight_gradient, T* bias_gradient, int num_threads) {
  const Bodies<T> bodies = choose_bodies<T>();
  const int64_t stride = (c_out + bodies.lanes - 1) / bodies.lanes * bodies.lanes;
  const int threads = threads_for(num_outputs * offsets * c_in * c_out, num_threads, kMultipliesPerThread);
  Buffer<T> padded(stride == c_out ? 0 : num_outputs * stride);
  if (stride != c_out) {
    parallel_ranges(num_outputs, threads, [&](int, int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        std::copy(gradient + r * c_out, gradient + (r + 1) * c_out, &padded[r * stride]);
        std::fill(&padded[r * stride + c_out], &padded[r * stride] + stride, T{0});
      }
    });
    gradient = padded.get();
  }
  const Layer<T> layer{features, num_inputs,  c_in,    nullptr, gradient, c_out, stride,
                       table,    num_outputs, offsets, nullptr, nullptr,  false, nullptr};
  const Cut cut(num_outputs, offsets, c_in * c_out);
  const int64_t size = c_in * stride, tile = 128;
  Buffer<T> sums(cut.blocks * offsets * size), bias_sums(cut.blocks * stride);
  const auto body = [&](int64_t task) {
    const int64_t block = task / cut.groups, group = task % cut.groups;
    const int64_t first = group * Cut::kOffsetsOfGroup, last = std::min(offsets, first + Cut::kOffsetsOfGroup);
    const int64_t begin = block * cut.rows, end = std::min(num_outputs, begin + cut.rows);
    T *mine = &sums[(block * offsets + first) * size], *bias = &bias_sums[block * stride];
    Pairs pairs(tile, last - first);
    std::fill(mine, mine + (last - first) * size, T{0});
    for (int64_t r = begin; r < end; r += tile) {
      const int64_t rows = std::min(tile, end - r);
      expect_inputs(table, r * offsets, (r + rows) * offsets, num_inputs);
      bodies.differentiate(layer, r, rows, first, last, pairs, mine);
    }
    if (group > 0) return;
    std::fill(bias, bias + stride, T{0});
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t o = 0; o < stride; ++o) bias[o] += gradient[r * stride + o];
    }
  };
  parallel_dynamic(cut.blocks * cut.groups, threads, 1, body);
  parallel_ranges(offsets, threads, [&](int, int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      for (int64_t o = 0; o < c_out; ++o) {
        T* to = weight_gradient + (o * offsets + k) * c_in;
        for (int64_t c = 0; c < c_in; ++c) {
          T sum = 0;
          for (int64_t block = 0; block < cut.blocks; ++block) sum += sums[(block * offsets + k) * size + c * stride + o];
          to[c] = sum;
        }
      }
    }
  });
  for (int64_t o = 0; bias_gradient && o < c_out; ++o) {
    bias_gradient[o] = 0;
    for (int64_t block = 0; block < cut.blocks; ++block) bias_gradient[o] += bias_sums[block * stride + o];
  }
}

#define OPS_INSTANTIATE(T)                                                                                                               \
  template void sparse_conv(const T*, int64_t, int64_t, const T*, int64_t, int64_t, const int32_t*, int64_t, const T*, const T*, bool, T*, \
                            int);                                                                                                        \
  template void sparse_conv_weight_gradient(const T*, int64_t, int64_t, const T*, int64_t, int64_t, const int32_t*, int64_t, T*, T*, int);
OPS_INSTANTIATE(float)
OPS_INSTANTIATE(double)

namespace {

/// The rows [begin, end) of the table to their places.
void transpose_rows(const NeighbourTable table, int64_t begin, int64_t end, int32_t* transposed) {
  for (int64_t row = begin; row < end; ++row) {
    for (int64_t k = 0; k < table.offsets; ++k) {
      const int64_t place = table.transposed_place(row, k);
      // Relaxed, which costs nothing: only a table with an input twice at an offset writes a place twice, and it is refused afterwards.
      if (place >= 0) __atomic_store_n(transposed + place, static_cast<int32_t>(row), __ATOMIC_RELAXED);
    }
  }
}

}  // namespace

void transpose_table(const int32_t* table, int64_t rows, int64_t offsets, int64_t num_others, int32_t* transposed, int num_threads) {
  constexpr int64_t kEntriesPerThread = 1 << 16;
  const int64_t entries = rows * offsets, size = num_others * offsets;
  const int threads = threads_for(std::max(entries, size), num_threads, kEntriesPerThread);
  Buffer<int64_t> lost(threads);
  parallel_ranges(entries, threads, [&](int thread, int64_t begin, int64_t end) {
    expect_inputs(table, begin, end, num_others);
    lost[thread] = count_neighbours(table, begin, end);
  });
  parallel_ranges(size, threads, [&](int, int64_t begin, int64_t end) { std::fill(transposed + begin, transposed + end, -1); });
  parallel_ranges(rows, threads, [&](int, int64_t begin, int64_t end) {
    transpose_rows({table, offsets, num_others}, begin, end, transposed);
  });
  parallel_ranges(size, threads, [&](int thread, int64_t begin, int64_t end) { lost[thread] -= count_neighbours(transposed, begin, end); });
  const int64_t repeated = std::accumulate(lost.get(), lost.get() + threads, int64_t{0});
  if (repeated > 0) {
    throw std::invalid_argument("table: expected no input row twice at one offset, got " + std::to_string(repeated) + " repeated");
  }
}

}  // namespace ops::cpu
