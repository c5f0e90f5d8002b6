// CUDA for people without a GPU: enough of it to run the kernels of this folder on a CPU, so that the operators' tests execute them
// (`make emulate`). For tests only.
//
// Each launch runs the threads of a block in another order: upwards, downwards or mixed, each warp as far as it gets or all in step (see
// schedule.cpp). So what stands on an order shows as a wrong result: a barrier that is missing, a block that waits for an earlier one. Said
// at once: barriers and shuffles that some threads never reach, lanes that are not in their mask, launches that a GPU would refuse, work
// that is not on the caller's stream. Memory, shared memory included, is filled with nonsense first.
// Not seen: races that no order of whole stretches between barriers shows; `__shared__` arrays keep what an earlier block left in them;
// threads that spin until another one writes hang.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static  // one block runs at a time, so what all its threads share may be static

#define OPS_LAUNCH(kernel, blocks, threads, shared, stream, ...) \
  ops::cuda::emulation::run(#kernel, (blocks), (threads), (shared), (stream), [&] { kernel(__VA_ARGS__); })
#define OPS_DYNAMIC_SHARED(type, name) type* name = static_cast<type*>(ops::cuda::emulation::dynamic_shared())

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
extern dim3 threadIdx, blockIdx, blockDim, gridDim;
constexpr int warpSize = 32;

using cudaStream_t = int;  // takes the place of the CPU bodies' number of threads: never 0, the stream that nobody means

namespace ops::cuda::emulation {

void run(const char* kernel, dim3 blocks, dim3 threads, size_t shared_bytes, cudaStream_t stream, const std::function<void()>& thread);
void allow_shared(size_t bytes);
void* dynamic_shared();
/// Later launches draw their orders from this number.
void set_schedule(uint64_t seed);

void sync_block(int line);

/// What the lanes of `mask` do together once all of them are there. `lane` is where a shuffle reads; ballots gather the lanes with a value.
enum class Meeting { kSync, kShuffle, kBallot, kMatch };
uint64_t meet(Meeting kind, uint32_t mask, uint64_t value, int lane, int line);
int my_lane();

template <class T>
T shuffle(uint32_t mask, T value, int lane, int line) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = meet(Meeting::kShuffle, mask, bits, lane, line);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace ops::cuda::emulation

// ---- the runtime ----

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorMemoryAllocation = 2 };
enum cudaMemcpyKind { cudaMemcpyDeviceToDevice = 3 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };

inline const char* cudaGetErrorString(cudaError_t error) { return error == cudaErrorMemoryAllocation ? "out of memory" : "invalid argument"; }
inline cudaError_t cudaMallocAsync(void** block, size_t bytes, cudaStream_t stream) {
  if (stream == 0) return cudaErrorInvalidValue;
  *block = std::malloc(bytes);
  if (*block) std::memset(*block, 0xA5, bytes);  // what was never written is never zero by luck
  return *block ? cudaSuccess : cudaErrorMemoryAllocation;
}
inline cudaError_t cudaFreeAsync(void* block, cudaStream_t) { return std::free(block), cudaSuccess; }
inline cudaError_t cudaMemsetAsync(void* block, int value, size_t bytes, cudaStream_t stream) {
  if (stream == 0) return cudaErrorInvalidValue;
  return std::memset(block, value, bytes), cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  if (stream == 0) return cudaErrorInvalidValue;
  return std::memmove(to, from, bytes), cudaSuccess;
}
template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel*, cudaFuncAttribute, int bytes) {
  return ops::cuda::emulation::allow_shared(static_cast<size_t>(bytes)), cudaSuccess;
}

// ---- threads together ----

inline void __syncthreads(int line = __builtin_LINE()) { ops::cuda::emulation::sync_block(line); }
inline void __syncwarp(unsigned mask = 0xffffffffu, int line = __builtin_LINE()) {
  ops::cuda::emulation::meet(ops::cuda::emulation::Meeting::kSync, mask, 0, 0, line);
}
inline void __threadfence() {}
inline void __threadfence_block() {}

// Lanes are counted within pieces of `width`; beyond the piece a lane gets its own value.
template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32, int line = __builtin_LINE()) {
  const int first = ops::cuda::emulation::my_lane() & ~(width - 1);
  return ops::cuda::emulation::shuffle(mask, value, first + (lane & (width - 1)), line);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned offset, int width = 32, int line = __builtin_LINE()) {
  const int me = ops::cuda::emulation::my_lane(), lane = me + static_cast<int>(offset);
  return ops::cuda::emulation::shuffle(mask, value, lane < (me & ~(width - 1)) + width ? lane : me, line);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned offset, int width = 32, int line = __builtin_LINE()) {
  const int me = ops::cuda::emulation::my_lane(), lane = me - static_cast<int>(offset);
  return ops::cuda::emulation::shuffle(mask, value, lane >= (me & ~(width - 1)) ? lane : me, line);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, int line = __builtin_LINE()) {
  const int me = ops::cuda::emulation::my_lane(), lane = me ^ bits;
  return ops::cuda::emulation::shuffle(mask, value, lane < (me & ~(width - 1)) + width ? lane : me, line);
}
inline unsigned __ballot_sync(unsigned mask, int is_true, int line = __builtin_LINE()) {
  return static_cast<unsigned>(ops::cuda::emulation::meet(ops::cuda::emulation::Meeting::kBallot, mask, is_true != 0, 0, line));
}
inline int __any_sync(unsigned mask, int is_true, int line = __builtin_LINE()) { return __ballot_sync(mask, is_true, line) != 0; }
inline int __all_sync(unsigned mask, int is_true, int line = __builtin_LINE()) { return __ballot_sync(mask, !is_true, line) == 0; }
template <class T>
unsigned __match_any_sync(unsigned mask, T value, int line = __builtin_LINE()) {
  static_assert(sizeof(T) <= 8);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return static_cast<unsigned>(ops::cuda::emulation::meet(ops::cuda::emulation::Meeting::kMatch, mask, bits, 0, line));
}
/// As few lanes as a GPU may answer: the caller's.
inline unsigned __activemask() { return 1u << ops::cuda::emulation::my_lane(); }

// ---- arithmetic ----

template <class To, class From>
To ops_bits_as(From value) {
  static_assert(sizeof(To) == sizeof(From));
  To bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline long long __double_as_longlong(double value) { return ops_bits_as<long long>(value); }
inline double __longlong_as_double(long long value) { return ops_bits_as<double>(value); }
inline int __float_as_int(float value) { return ops_bits_as<int>(value); }
inline unsigned __float_as_uint(float value) { return ops_bits_as<unsigned>(value); }
inline float __int_as_float(int value) { return ops_bits_as<float>(value); }
inline float __uint_as_float(unsigned value) { return ops_bits_as<float>(value); }
inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __popcll(unsigned long long value) { return __builtin_popcountll(value); }
inline int __ffs(int value) { return __builtin_ffs(value); }
inline int __ffsll(long long value) { return __builtin_ffsll(value); }
inline int __clz(int value) { return value ? __builtin_clz(static_cast<unsigned>(value)) : 32; }
inline int __clzll(long long value) { return value ? __builtin_clzll(static_cast<unsigned long long>(value)) : 64; }
template <class T>
T __ldg(const T* place) {
  return *place;
}

template <class T>
T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
T max(T a, T b) {
  return a < b ? b : a;
}

// One thread runs at a time, so every step is atomic.
template <class T, class Change>
T ops_exchange(T* place, Change change) {
  const T before = *place;
  *place = change(before);
  return before;
}
template <class T>
T atomicAdd(T* place, std::common_type_t<T> value) {
  return ops_exchange(place, [&](T before) { return static_cast<T>(before + value); });
}
template <class T>
T atomicSub(T* place, std::common_type_t<T> value) {
  return ops_exchange(place, [&](T before) { return static_cast<T>(before - value); });
}
template <class T>
T atomicMin(T* place, std::common_type_t<T> value) {
  return ops_exchange(place, [&](T before) { return value < before ? value : before; });
}
template <class T>
T atomicMax(T* place, std::common_type_t<T> value) {
  return ops_exchange(place, [&](T before) { return before < value ? value : before; });
}
template <class T>
T atomicOr(T* place, std::common_type_t<T> value) {
  return ops_exchange(place, [&](T before) { return static_cast<T>(before | value); });
}
template <class T>
T atomicAnd(T* place, std::common_type_t<T> value) {
  return ops_exchange(place, [&](T before) { return static_cast<T>(before & value); });
}
template <class T>
T atomicXor(T* place, std::common_type_t<T> value) {
  return ops_exchange(place, [&](T before) { return static_cast<T>(before ^ value); });
}
template <class T>
T atomicExch(T* place, std::common_type_t<T> value) {
  return ops_exchange(place, [&](T) { return value; });
}
template <class T>
T atomicCAS(T* place, std::common_type_t<T> expected, std::common_type_t<T> value) {
  return ops_exchange(place, [&](T before) { return before == expected ? value : before; });
}

struct alignas(8) float2 {
  float x, y;
};
struct float3 {
  float x, y, z;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(16) double2 {
  double x, y;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float3 make_float3(float x, float y, float z) { return {x, y, z}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }
