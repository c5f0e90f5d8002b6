#include "emulation.hpp"

#include <ucontext.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "../launch.cuh"

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace ops::cuda::emulation {
namespace {

constexpr size_t kStack = 64 * 1024;

struct Fiber {
  ucontext_t context;
  bool is_done;
};

std::vector<Fiber> fibers;
std::vector<char> stacks, shared;
std::vector<int64_t> slots;  // what shuffles exchange
ucontext_t scheduler;
size_t current;
const std::function<void()>* body;

void start() {
  (*body)();
  fibers[current].is_done = true;
  swapcontext(&fibers[current].context, &scheduler);
}

void run_block(unsigned num_threads) {
  fibers.resize(num_threads);
  stacks.resize(num_threads * kStack);
  slots.assign(num_threads, 0);
  for (size_t t = 0; t < num_threads; ++t) {
    Fiber& fiber = fibers[t];
    fiber.is_done = false;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = stacks.data() + t * kStack;
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = &scheduler;
    makecontext(&fiber.context, start, 0);
  }
  for (bool is_alive = true; is_alive;) {  // one round takes every fiber to its next barrier
    is_alive = false;
    for (current = 0; current < num_threads; ++current) {
      if (fibers[current].is_done) continue;
      threadIdx = dim3(static_cast<unsigned>(current), 0, 0);
      swapcontext(&scheduler, &fibers[current].context);
      is_alive |= !fibers[current].is_done;
    }
  }
}

}  // namespace

void run(dim3 blocks, dim3 threads, size_t shared_bytes, const std::function<void()>& thread) {
  gridDim = blocks;
  blockDim = threads;
  shared.assign(shared_bytes + 64, static_cast<char>(0xA5));
  body = &thread;
  for (unsigned z = 0; z < blocks.z; ++z) {
    for (unsigned y = 0; y < blocks.y; ++y) {
      for (unsigned x = 0; x < blocks.x; ++x) {
        blockIdx = dim3(x, y, z);
        run_block(threads.x);
      }
    }
  }
}

void barrier() {
  const dim3 thread = threadIdx;
  swapcontext(&fibers[current].context, &scheduler);
  threadIdx = thread;
}

void* dynamic_shared() { return shared.data(); }

int64_t shuffle_down(int64_t value, int offset) {
  const size_t me = current, source = me + static_cast<size_t>(offset);
  slots[me] = value;
  barrier();
  const bool is_in_warp = source / 32 == me / 32 && source < slots.size();
  const int64_t got = is_in_warp ? slots[source] : value;
  barrier();
  return got;
}

}  // namespace ops::cuda::emulation

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
