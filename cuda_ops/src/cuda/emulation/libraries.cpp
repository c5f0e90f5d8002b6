// What sort.cu and memory.cu take from CUDA's libraries.
#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "../launch.cuh"

namespace ops::cuda {
namespace {

template <class Key>
void sort(const Key* keys, Key* sorted_keys, const int32_t* values, int32_t* sorted_values, int64_t count, int bits) {
  const Key mask = bits >= static_cast<int>(8 * sizeof(Key)) ? ~Key{0} : (Key{1} << bits) - 1;
  std::vector<int64_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return (keys[a] & mask) < (keys[b] & mask); });
  for (int64_t i = 0; i < count; ++i) {
    sorted_keys[i] = keys[order[static_cast<size_t>(i)]];
    sorted_values[i] = values[order[static_cast<size_t>(i)]];
  }
}

}  // namespace

cudaError_t allocate(void** block, size_t bytes, cudaStream_t stream) { return cudaMallocAsync(block, bytes, stream); }

void sort_pairs(const uint32_t* keys, uint32_t* sorted_keys, const int32_t* values, int32_t* sorted_values, int64_t count, int bits,
                cudaStream_t) {
  sort(keys, sorted_keys, values, sorted_values, count, bits);
}

void sort_pairs(const uint64_t* keys, uint64_t* sorted_keys, const int32_t* values, int32_t* sorted_values, int64_t count, int bits,
                cudaStream_t) {
  sort(keys, sorted_keys, values, sorted_values, count, bits);
}

void inclusive_sum(const int32_t* values, int32_t* sums, int64_t count, cudaStream_t) { std::partial_sum(values, values + count, sums); }

}  // namespace ops::cuda
