// A stable sort of (key, index) pairs, and the segments of equal keys.
#pragma once

#include <cstdint>

#include "parallel.hpp"

namespace ops::cpu {

/// Order of `count` keys, equal ones by index. Keys lie below 2^bits, count below 2^32.
///
/// after sort(): words[i] & 0xffffffff is the index of the i-th smallest key (of keys below 2^32 the upper half is the key itself).
class StableSort {
 public:
  explicit StableSort(int64_t count) : count_(count), first_(count), second_(count), words_(first_.get()), spare_(second_.get()) {}

  /// keys(i) is asked for once, or twice where bits > 32, for each i, by several threads.
  template <class Keys>
  void sort(Keys&& keys, int bits, int threads) {
    parallel_ranges(count_, threads, [&](int, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) words_[i] = keys(i) << 32 | static_cast<uint64_t>(i);
    });
    sort_by_bits(bits < 32 ? bits : 32, threads);
    if (bits <= 32) return;
    parallel_ranges(count_, threads, [&](int, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) words_[i] = keys(index(i)) >> 32 << 32 | static_cast<uint64_t>(index(i));
    });
    sort_by_bits(bits - 32, threads);
  }

  /// The same for words (key << 32 | index) that stand in words() already; bits <= 32.
  void sort_by_bits(int bits, int threads);

  int64_t count() const { return count_; }
  uint64_t* words() { return words_; }
  /// The key of the i-th smallest, where bits <= 32.
  uint32_t key(int64_t i) const { return static_cast<uint32_t>(words_[i] >> 32); }
  int64_t index(int64_t i) const { return static_cast<int64_t>(words_[i] & 0xffffffffu); }

 private:
  int64_t count_;
  Buffer<uint64_t> first_, second_;
  uint64_t *words_, *spare_;
};

}  // namespace ops::cpu
