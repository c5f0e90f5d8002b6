#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>

#include "launch.cuh"

namespace ops::cuda {
namespace {

template <class Key>
void sort(const Key* keys, Key* sorted_keys, const int32_t* values, int32_t* sorted_values, int64_t count, int bits, cudaStream_t stream) {
  if (count <= 0) return;
  const int n = static_cast<int>(count);
  size_t bytes = 0;
  OPS_CHECK(cub::DeviceRadixSort::SortPairs(nullptr, bytes, keys, sorted_keys, values, sorted_values, n, 0, bits, stream));
  DeviceBuffer<char> scratch(static_cast<int64_t>(bytes), stream);
  OPS_CHECK(cub::DeviceRadixSort::SortPairs(scratch.get(), bytes, keys, sorted_keys, values, sorted_values, n, 0, bits, stream));
}

}  // namespace

void sort_pairs(const uint32_t* keys, uint32_t* sorted_keys, const int32_t* values, int32_t* sorted_values, int64_t count, int bits,
                cudaStream_t stream) {
  sort(keys, sorted_keys, values, sorted_values, count, bits, stream);
}

void sort_pairs(const uint64_t* keys, uint64_t* sorted_keys, const int32_t* values, int32_t* sorted_values, int64_t count, int bits,
                cudaStream_t stream) {
  sort(keys, sorted_keys, values, sorted_values, count, bits, stream);
}

void inclusive_sum(const int32_t* values, int32_t* sums, int64_t count, cudaStream_t stream) {
  if (count <= 0) return;
  const int n = static_cast<int>(count);
  size_t bytes = 0;
  OPS_CHECK(cub::DeviceScan::InclusiveSum(nullptr, bytes, values, sums, n, stream));
  DeviceBuffer<char> scratch(static_cast<int64_t>(bytes), stream);
  OPS_CHECK(cub::DeviceScan::InclusiveSum(scratch.get(), bytes, values, sums, n, stream));
}

}  // namespace ops::cuda
