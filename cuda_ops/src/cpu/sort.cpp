#include "sort.hpp"

#include <cstring>
#include <utility>
#include <vector>

namespace ops::cpu {

void StableSort::sort_by_bits(int bits, int threads) {
  if (bits <= 0 || count_ <= 1) return;
  const int passes = (bits + 8) / 9;  // 2^9 streams of one cache line each just fit the first-level cache
  for (int pass = 0, done = 0; pass < passes; ++pass) {
    const int width = (bits - done) / (passes - pass), shift = 32 + done;
    const int64_t buckets = int64_t{1} << width;
    const uint64_t mask = static_cast<uint64_t>(buckets - 1);
    std::vector<uint32_t> place(static_cast<std::size_t>(threads) * static_cast<std::size_t>(buckets), 0);
    parallel_ranges(count_, threads, [&](int thread, int64_t begin, int64_t end) {
      uint32_t* mine = place.data() + thread * buckets;
      for (int64_t i = begin; i < end; ++i) ++mine[words_[i] >> shift & mask];
    });
    uint32_t total = 0;  // bucket by bucket, inside a bucket thread by thread: earlier ranges first, which makes the sort stable
    bool in_one_bucket = false;
    for (int64_t b = 0; b < buckets; ++b) {
      const uint32_t before = total;
      for (int t = 0; t < threads; ++t) total += std::exchange(place[static_cast<std::size_t>(t * buckets + b)], total);
      in_one_bucket |= total - before == static_cast<uint32_t>(count_);
    }
    done += width;
    if (in_one_bucket) continue;
    parallel_ranges(count_, threads, [&](int thread, int64_t begin, int64_t end) {
      uint32_t* mine = place.data() + thread * buckets;
      for (int64_t i = begin; i < end; ++i) spare_[mine[words_[i] >> shift & mask]++] = words_[i];
    });
    std::swap(words_, spare_);
  }
}

}  // namespace ops::cpu
