// Launching, memory and errors of the CUDA bodies. Everything is queued on the caller's stream; nothing here waits for the device.
#pragma once

#ifdef OPS_EMULATE_CUDA
#include "emulation/emulation.hpp"
#else
#include <cuda_runtime.h>

// As macros, because a C++ compiler knows no <<< >>>.
#define OPS_LAUNCH(kernel, blocks, threads, shared, stream, ...)       \
  do {                                                                 \
    kernel<<<(blocks), (threads), (shared), (stream)>>>(__VA_ARGS__);  \
    OPS_CHECK(cudaGetLastError());                                     \
  } while (false)
#define OPS_DYNAMIC_SHARED(type, name) extern __shared__ type name[]
#endif

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace ops::cuda {

/// Raise where a CUDA call has failed, with its text and the call.
inline void check(cudaError_t status, const char* call) {
  if (status != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(status) + " in " + call);
}
#define OPS_CHECK(call) ::ops::cuda::check((call), #call)

constexpr int kThreads = 256;

/// Blocks for `count` items, at most so many that every processor has several; kernels stride over the rest.
inline unsigned blocks_for(int64_t count) {
  return static_cast<unsigned>(std::clamp<int64_t>((count + kThreads - 1) / kThreads, 1, 65535));
}

template <class Functor>
__global__ void for_each_kernel(int64_t count, Functor functor) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) functor(i);
}

/// functor(i) for i in [0, count), each once, in any order.
template <class Functor>
void for_each(int64_t count, cudaStream_t stream, Functor functor) {
  if (count <= 0) return;
  OPS_LAUNCH(for_each_kernel, blocks_for(count), kThreads, 0, stream, count, functor);
}

/// cudaMallocAsync from a pool that keeps its memory: memory.cu.
cudaError_t allocate(void** block, size_t bytes, cudaStream_t stream);

/// Memory of the device for one call, in stream order: free when the work queued before the destructor is done. CUDA graphs can hold it.
template <class T>
class DeviceBuffer {
 public:
  DeviceBuffer(int64_t count, cudaStream_t stream) : stream_(stream) {
    OPS_CHECK(allocate(reinterpret_cast<void**>(&data_), sizeof(T) * static_cast<size_t>(std::max<int64_t>(count, 1)), stream));
  }
  ~DeviceBuffer() { cudaFreeAsync(data_, stream_); }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;
  T* get() const { return data_; }

 private:
  T* data_ = nullptr;
  cudaStream_t stream_;
};

/// Add the values of all threads of a warp to `sum`, with one atomic operation. Integers: the order does not matter.
__device__ __forceinline__ void add_of_warp(int64_t value, int64_t* sum) {
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_down_sync(0xffffffffu, value, offset);
  if ((threadIdx.x & 31) == 0 && value != 0) {
    atomicAdd(reinterpret_cast<unsigned long long*>(sum), static_cast<unsigned long long>(value));
  }
}

/// The value of the lane that stands `offset` lanes further on.
__device__ __forceinline__ double down_of_warp(double value, int offset) {
  return __longlong_as_double(__shfl_down_sync(0xffffffffu, static_cast<int64_t>(__double_as_longlong(value)), offset));
}

// sort.cu: the only file that instantiates CUB, because that is what takes long to compile

/// Stable sort of `count` (key, value) pairs by the lower `bits` of the keys; count below 2^31.
void sort_pairs(const uint32_t* keys, uint32_t* sorted_keys, const int32_t* values, int32_t* sorted_values, int64_t count, int bits,
                cudaStream_t stream);
void sort_pairs(const uint64_t* keys, uint64_t* sorted_keys, const int32_t* values, int32_t* sorted_values, int64_t count, int bits,
                cudaStream_t stream);

/// sums[i] = values[0] + .. + values[i].
void inclusive_sum(const int32_t* values, int32_t* sums, int64_t count, cudaStream_t stream);

}  // namespace ops::cuda
