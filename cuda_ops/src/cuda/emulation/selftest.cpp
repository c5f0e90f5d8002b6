// Kernels with known results and kernels with known faults: does the emulation run the ones and find the others?
#include "selftest.hpp"

#include <nanobind/stl/string.h>

#include <string>

#include "../launch.cuh"

namespace ops::cuda::emulation {
namespace {

/// Each block turns its part of `values` round through shared memory.
__global__ void reverse_kernel(int64_t* values, bool has_barrier) {
  OPS_DYNAMIC_SHARED(int64_t, held);
  int64_t* mine = values + int64_t{blockIdx.x} * blockDim.x;
  held[threadIdx.x] = mine[threadIdx.x];
  if (has_barrier) __syncthreads();
  mine[threadIdx.x] = held[blockDim.x - 1 - threadIdx.x];
}

/// The same within each warp, where half of the warps have left.
__global__ void reverse_warp_kernel(int64_t* values, bool has_barrier) {
  OPS_DYNAMIC_SHARED(int64_t, held);
  if (threadIdx.x / 32 % 2 == 1) return;
  held[threadIdx.x] = values[threadIdx.x];
  if (has_barrier) __syncwarp();
  values[threadIdx.x] = held[threadIdx.x ^ 31];
}

/// Sums of halves of a warp in branches of their own, by two different shuffles.
__global__ void sum_halves_kernel(int64_t* values) {
  int64_t value = values[threadIdx.x];
  if (threadIdx.x % 32 < 16) {
    for (int offset = 8; offset > 0; offset /= 2) value += __shfl_xor_sync(0x0000ffffu, value, offset);
  } else {
    for (int offset = 8; offset > 0; offset /= 2) value += __shfl_down_sync(0xffff0000u, value, static_cast<unsigned>(offset), 16);
    value = __shfl_sync(0xffff0000u, value, 16);
  }
  values[threadIdx.x] = value;
}

/// For each thread: how many of its warp have an odd value, and the lanes that have its own value.
__global__ void vote_kernel(int64_t* values) {
  const unsigned odd = __ballot_sync(0xffffffffu, static_cast<int>(values[threadIdx.x] & 1));
  const unsigned same = __match_any_sync(0xffffffffu, values[threadIdx.x]);
  values[threadIdx.x] = __popc(odd) * (int64_t{1} << 32) + same;
}

/// Each block takes a ticket: which block gets which one is open.
__global__ void tickets_kernel(int64_t* values) {
  __shared__ int64_t ticket;
  if (threadIdx.x == 0) ticket = atomicAdd(values, 1);
  __syncthreads();
  if (threadIdx.x == 1) values[1 + ticket] = blockIdx.x;
}

__global__ void unequal_barriers_kernel() {
  if (threadIdx.x < 7) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

__global__ void barrier_and_shuffle_kernel() {
  if (threadIdx.x == 3) __syncthreads();
  __syncwarp();
  __syncthreads();
}

__global__ void not_in_mask_kernel() { __syncwarp(0xfffffffeu); }

/// Two of the mask's lanes wait in a loop that ends earlier for the others.
__global__ void missing_lanes_kernel() {
  for (unsigned i = 0; i < threadIdx.x; ++i) {
    if (threadIdx.x > 29) __syncwarp();
  }
  __syncthreads();
}

__global__ void beyond_shared_kernel(int64_t* values) {
  OPS_DYNAMIC_SHARED(int64_t, held);
  held[threadIdx.x + (threadIdx.x == 63)] = 1;
  __syncthreads();
  values[threadIdx.x] = held[threadIdx.x];
}

void run_selftest(const std::string& name, int64_t* values, int64_t count, cudaStream_t stream) {
  const unsigned n = static_cast<unsigned>(count);
  if (name == "reverse") OPS_LAUNCH(reverse_kernel, n / 64, 64, 64 * sizeof(int64_t), stream, values, true);
  if (name == "reverse without a barrier") OPS_LAUNCH(reverse_kernel, n / 64, 64, 64 * sizeof(int64_t), stream, values, false);
  if (name == "reverse warps") OPS_LAUNCH(reverse_warp_kernel, 1, n, n * sizeof(int64_t), stream, values, true);
  if (name == "reverse warps without a barrier") OPS_LAUNCH(reverse_warp_kernel, 1, n, n * sizeof(int64_t), stream, values, false);
  if (name == "sum halves") OPS_LAUNCH(sum_halves_kernel, 1, n, 0, stream, values);
  if (name == "vote") OPS_LAUNCH(vote_kernel, 1, n, 0, stream, values);
  if (name == "tickets") OPS_LAUNCH(tickets_kernel, n - 1, 64, 0, stream, values);
  if (name == "unequal barriers") OPS_LAUNCH(unequal_barriers_kernel, 1, 64, 0, stream);
  if (name == "barrier and shuffle") OPS_LAUNCH(barrier_and_shuffle_kernel, 1, 64, 0, stream);
  if (name == "not in mask") OPS_LAUNCH(not_in_mask_kernel, 1, 32, 0, stream);
  if (name == "missing lanes") OPS_LAUNCH(missing_lanes_kernel, 1, 32, 0, stream);
  if (name == "too many threads") OPS_LAUNCH(vote_kernel, 1, 1025, 0, stream, values);
  if (name == "no blocks") OPS_LAUNCH(vote_kernel, 0, 32, 0, stream, values);
  if (name == "too much shared memory") OPS_LAUNCH(reverse_kernel, 1, 64, 48 * 1024 + 1, stream, values, true);
  if (name == "default stream") OPS_LAUNCH(vote_kernel, 1, 32, 0, 0, values);
  if (name == "beyond shared memory") OPS_LAUNCH(beyond_shared_kernel, 1, 64, 64 * sizeof(int64_t), stream, values);
}

}  // namespace

void offer(nanobind::module_& m) {
  m.attr("emulated") = true;
#ifdef __SANITIZE_ADDRESS__
  m.attr("sanitized") = true;
#else
  m.attr("sanitized") = false;
#endif
  m.def("set_schedule", &set_schedule);
  m.def("selftest", [](const std::string& name, uintptr_t values, int64_t count) {
    run_selftest(name, reinterpret_cast<int64_t*>(values), count, 1);
  });
}

}  // namespace ops::cuda::emulation
