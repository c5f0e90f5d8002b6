// CUDA for people without a GPU: enough of it to run the kernels of this folder on a CPU, one thread after the other, so that the operators'
// tests execute them (`make emulate`). For tests only: slow, and blind to races between threads of different warps.
//
// Each thread of a block is a fiber; a barrier hands over to the next fiber, and all go on when every one that lives has reached it.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static  // one block runs at a time, so what all its threads share may be static

#define OPS_LAUNCH(kernel, blocks, threads, shared, stream, ...) \
  ((void)(stream), ops::cuda::emulation::run((blocks), (threads), (shared), [&] { kernel(__VA_ARGS__); }))
#define OPS_DYNAMIC_SHARED(type, name) type* name = static_cast<type*>(ops::cuda::emulation::dynamic_shared())

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
extern dim3 threadIdx, blockIdx, blockDim, gridDim;

using cudaStream_t = int;  // takes the place of the CPU bodies' number of threads
enum cudaError_t { cudaSuccess = 0, cudaErrorMemoryAllocation = 2 };
inline const char* cudaGetErrorString(cudaError_t) { return "out of memory"; }
inline cudaError_t cudaMallocAsync(void** block, size_t bytes, cudaStream_t) {
  *block = std::malloc(bytes);
  if (*block) std::memset(*block, 0xA5, bytes);  // what was never written is never zero by luck
  return *block ? cudaSuccess : cudaErrorMemoryAllocation;
}
inline cudaError_t cudaFreeAsync(void* block, cudaStream_t) { return std::free(block), cudaSuccess; }
inline cudaError_t cudaMemsetAsync(void* block, int value, size_t bytes, cudaStream_t) { return std::memset(block, value, bytes), cudaSuccess; }

namespace ops::cuda::emulation {

void run(dim3 blocks, dim3 threads, size_t shared_bytes, const std::function<void()>& thread);
void barrier();
void* dynamic_shared();
int64_t shuffle_down(int64_t value, int offset);

}  // namespace ops::cuda::emulation

inline void __syncthreads() { ops::cuda::emulation::barrier(); }
inline int64_t __shfl_down_sync(unsigned, int64_t value, int offset) { return ops::cuda::emulation::shuffle_down(value, offset); }
inline long long __double_as_longlong(double value) {
  long long bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline double __longlong_as_double(long long bits) {
  double value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

template <class T>
T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
T max(T a, T b) {
  return a < b ? b : a;
}
template <class T>
T atomicAdd(T* place, T value) {
  const T before = *place;
  *place += value;
  return before;
}
template <class T>
T atomicOr(T* place, T value) {
  const T before = *place;
  *place |= value;
  return before;
}
template <class T>
T atomicMin(T* place, T value) {
  const T before = *place;
  if (value < before) *place = value;
  return before;
}
inline int __popcll(unsigned long long bits) { return __builtin_popcountll(bits); }
inline int __ffsll(long long bits) { return __builtin_ffsll(bits); }
