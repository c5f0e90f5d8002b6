// Who meets whom in a tile of a sparse convolution: the rows of its table, sorted by kernel offset.
#pragma once

#include <cstdint>

#include "common.hpp"
#include "parallel.hpp"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(OPS_NO_CLONES)
#define OPS_WIDE_VECTORS  // not under sanitizers: their code for it takes minutes to compile
#include <immintrin.h>
#endif

namespace ops::cpu {

/// For each of some offsets the rows of a tile that have a neighbour there, in ascending order.
class Pairs {
 public:
  Pairs(int64_t rows, int64_t offsets) : room_(rows + kLanes), output_(offsets * room_), input_(offsets * room_), count_(offsets) {}

  int64_t count(int64_t k) const { return count_[k]; }
  const int32_t* output(int64_t k) { return output_.get() + k * room_; }  // they count from the first one of the tile
  const int32_t* input(int64_t k) { return input_.get() + k * room_; }

  /// From `columns` columns of `rows` rows of a table; `stride` is the length of its rows.
  void collect(const int32_t* table, int64_t rows, int64_t columns, int64_t stride) {
    for (int64_t k = 0; k < columns; ++k) {
      int32_t *out = output_.get() + k * room_, *in = input_.get() + k * room_;
      int64_t count = 0;
      for (int64_t r = 0; r < rows; ++r) {  // without a branch: whether there is a neighbour cannot be foretold
        const int32_t row = table[r * stride + k];
        out[count] = static_cast<int32_t>(r);
        in[count] = row;
        count += row >= 0;
      }
      count_[k] = count;
    }
  }

#ifdef OPS_WIDE_VECTORS
  /// The same, 16 rows at a time.
  __attribute__((target("avx512f,popcnt"))) void collect_wide(const int32_t* table, int64_t rows, int64_t columns, int64_t stride) {
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i step = _mm512_mullo_epi32(lane, _mm512_set1_epi32(static_cast<int32_t>(stride)));
    const __m512i none = _mm512_set1_epi32(-1);
    std::fill(count_.get(), count_.get() + columns, 0);
    for (int64_t first = 0; first < rows; first += kLanes, table += kLanes * stride) {
      const __m512i number = _mm512_add_epi32(lane, _mm512_set1_epi32(static_cast<int32_t>(first)));
      const __mmask16 is_row = static_cast<__mmask16>(rows - first >= kLanes ? 0xffff : (1 << (rows - first)) - 1);
      for (int64_t k = 0; k < columns; ++k) {
        const __m512i row = _mm512_mask_i32gather_epi32(none, is_row, step, table + k, 4);
        const __mmask16 is_pair = _mm512_cmpgt_epi32_mask(row, none);
        const int64_t place = k * room_ + count_[k];
        // Whole vectors, of which the next ones overwrite the rest: behind a list there is room for one.
        _mm512_storeu_si512(&output_[place], _mm512_maskz_compress_epi32(is_pair, number));
        _mm512_storeu_si512(&input_[place], _mm512_maskz_compress_epi32(is_pair, row));
        count_[k] += __builtin_popcount(is_pair);
      }
    }
  }
#endif

 private:
  static constexpr int64_t kLanes = 16;
  int64_t room_;
  Buffer<int32_t> output_, input_;
  Buffer<int64_t> count_;
};

}  // namespace ops::cpu
