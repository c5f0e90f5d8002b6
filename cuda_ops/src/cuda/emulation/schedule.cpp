// Which thread of a launch runs when.
//
// A thread runs until it waits: at a barrier of its block or for lanes of its warp. Threads that never wait follow each other on one stack
// without a switch; one that waits keeps the stack, and the next thread takes another.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <memory>
#include <mutex>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "emulation.hpp"
#include "fibers.hpp"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace ops::cuda::emulation {
namespace {

enum class State { kRunning, kAtBarrier, kMeets, kDone };

struct Thread {
  State state;
  Fiber* fiber;
  int line;  // of the barrier or meeting
  Meeting meeting;
  uint32_t mask;
  uint64_t value, result;
  int lane;
};

// Of the launch
const char* kernel_name = "";
const std::function<void()>* body = nullptr;
std::vector<uint32_t> order;  // in which threads start and are let go
bool is_depth_first;          // who can go on goes on before others start
std::unique_ptr<char[]> shared;
size_t shared_size, shared_limit = 48 * 1024;
uint64_t random_state = 1;

// Of the block
std::vector<Thread> threads;
std::vector<uint32_t> ready;
size_t next_start, next_ready, num_alive, num_at_barrier, num_meeting;
uint32_t current;
std::exception_ptr error;

std::vector<std::unique_ptr<Fiber>> fibers;
std::vector<Fiber*> idle;
Fiber* running;

uint64_t draw() {  // splitmix64
  uint64_t x = random_state += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

[[noreturn]] void fail(const std::string& what) { throw std::runtime_error(std::string("CUDA emulation: ") + kernel_name + ": " + what); }

std::string place(const Thread& thread) {
  return (thread.state == State::kAtBarrier ? "the barrier in line " : "the warp's meeting in line ") + std::to_string(thread.line);
}

void let_go(uint32_t number) {
  num_meeting -= threads[number].state == State::kMeets;
  threads[number].state = State::kRunning;
  ready.push_back(number);
}

void open_barrier_when_full() {
  if (num_at_barrier == 0 || num_at_barrier < num_alive) return;
  int line = 0;
  for (const uint32_t number : order) {
    const Thread& thread = threads[number];
    if (thread.state != State::kAtBarrier) continue;
    if (line != 0 && line != thread.line) fail("threads stand at different barriers, in lines " + std::to_string(line) + " and " + std::to_string(thread.line));
    line = thread.line;
    let_go(number);
  }
  num_at_barrier = 0;
}

/// Where the lanes of `mask` that are still there have all come, give each its result.
void end_meeting_when_full(uint32_t warp, uint32_t mask) {
  const uint32_t first = 32 * warp, count = std::min<uint32_t>(32, static_cast<uint32_t>(threads.size()) - first);
  uint32_t present = 0, yes = 0;
  uint64_t values[32];
  for (uint32_t lane = 0; lane < count; ++lane) {
    const Thread& thread = threads[first + lane];
    if (!(mask >> lane & 1) || thread.state == State::kDone) continue;
    if (thread.state != State::kMeets || thread.mask != mask) return;
    present |= 1u << lane;
    yes |= static_cast<uint32_t>(thread.value != 0) << lane;
    values[lane] = thread.value;
  }
  if (present == 0) return;
  const uint32_t start = static_cast<uint32_t>(draw()), step = order.front() == 0 ? 1 : order.back() == 0 ? 31 : static_cast<uint32_t>(draw()) | 1;
  for (uint32_t i = 0; i < 32; ++i) {
    const uint32_t lane = (start + i * step) & 31;
    if (!(present >> lane & 1)) continue;
    Thread& thread = threads[first + lane];
    const auto in_step = [&](uint32_t other) { return threads[first + other].meeting == thread.meeting; };
    if (thread.meeting == Meeting::kShuffle) {
      thread.result = present >> thread.lane & 1 && in_step(static_cast<uint32_t>(thread.lane)) ? values[thread.lane] : 0xA5A5A5A5A5A5A5A5;
    } else if (thread.meeting == Meeting::kBallot) {
      thread.result = yes;
    } else if (thread.meeting == Meeting::kMatch) {
      thread.result = 0;
      for (uint32_t other = 0; other < 32; ++other) thread.result |= uint64_t{present >> other & 1 && values[other] == thread.value} << other;
    }
    let_go(first + lane);
  }
}

void finish() {
  threads[current].state = State::kDone;
  --num_alive;
  open_barrier_when_full();
  const uint32_t first = current / 32 * 32;
  for (uint32_t number = first; num_meeting > 0 && number < std::min<size_t>(first + 32, threads.size()); ++number) {
    if (threads[number].state == State::kMeets) end_meeting_when_full(current / 32, threads[number].mask);
  }
}

/// What runs now is thread `number`.
void become(uint32_t number) {
  current = number;
  threadIdx = number < blockDim.x ? dim3(number, 0, 0) : dim3(number % blockDim.x, number / blockDim.x % blockDim.y, number / blockDim.x / blockDim.y);
}

void work() {
  Fiber::entered();
  Fiber* const me = running;
  for (;;) {
    try {
      while (next_start < threads.size() && (!is_depth_first || next_ready == ready.size())) {
        become(order[next_start++]);
        threads[current].fiber = me;
        (*body)();
        finish();
      }
    } catch (...) {
      error = std::current_exception();
    }
    idle.push_back(me);
    me->leave();
  }
}

void go(Fiber* fiber) {
  running = fiber;
  fiber->resume();
  if (error) std::rethrow_exception(std::exchange(error, nullptr));
}

void wait() { threads[current].fiber->leave(); }

void run_block() {
  num_alive = threads.size();
  num_at_barrier = num_meeting = next_start = next_ready = 0;
  ready.clear();
  std::memset(shared.get(), 0xA5, shared_size);
  for (Thread& thread : threads) thread.state = State::kRunning;
  while (num_alive > 0) {
    if (next_ready < ready.size() && (is_depth_first || next_start == threads.size())) {
      uint32_t number;
      if (is_depth_first) {
        number = ready.back();
        ready.pop_back();
      } else {
        number = ready[next_ready++];
        if (next_ready == ready.size()) ready.clear(), next_ready = 0;
      }
      become(number);
      go(threads[number].fiber);
    } else if (next_start < threads.size()) {
      if (idle.empty()) {
        fibers.push_back(std::make_unique<Fiber>(work));
        idle.push_back(fibers.back().get());
      }
      Fiber* const fiber = idle.back();
      idle.pop_back();
      go(fiber);
    } else {
      const auto stuck = std::find_if(threads.begin(), threads.end(), [](const Thread& t) { return t.state != State::kDone; });
      const auto other = std::find_if(threads.begin(), threads.end(), [&](const Thread& t) {
        return t.state != State::kDone && (t.line != stuck->line || t.state != stuck->state);
      });
      fail("thread " + std::to_string(stuck - threads.begin()) + " waits at " + place(*stuck) + " for ever" +
           (other == threads.end() ? "" : ", thread " + std::to_string(other - threads.begin()) + " at " + place(*other)));
    }
  }
}

void draw_orders(size_t num_threads) {
  order.resize(num_threads);
  std::iota(order.begin(), order.end(), 0);
  const uint64_t kind = draw() % 3;
  if (kind == 1) std::reverse(order.begin(), order.end());
  for (size_t i = num_threads; kind == 2 && i > 1; --i) std::swap(order[i - 1], order[draw() % i]);
  is_depth_first = draw() & 1;
}

void run_blocks() {
  // Blocks in order, backwards, or with a stride that meets each once.
  const uint64_t count = uint64_t{gridDim.x} * gridDim.y * gridDim.z, kind = draw() % 3;
  uint64_t at = kind == 1 ? count - 1 : 0, step = kind == 1 ? count - 1 : 1;
  if (kind == 2) {
    for (at = draw() % count, step = draw() % count; std::gcd(step, count) != 1;) step = draw() % count;
  }
  for (uint64_t i = 0; i < count; ++i, at = (at + step) % count) {
    blockIdx = dim3(static_cast<unsigned>(at % gridDim.x), static_cast<unsigned>(at / gridDim.x % gridDim.y), static_cast<unsigned>(at / gridDim.x / gridDim.y));
    run_block();
  }
}

#ifdef __SANITIZE_ADDRESS__
void say_kernel(const char*) {
  if (body) std::fprintf(stderr, "in %s, block %u %u %u, thread %u\n", kernel_name, blockIdx.x, blockIdx.y, blockIdx.z, current);
}
#endif

}  // namespace

void set_schedule(uint64_t seed) { random_state = seed; }

void allow_shared(size_t bytes) { shared_limit = std::max(shared_limit, bytes); }

void* dynamic_shared() { return shared.get(); }

int my_lane() { return static_cast<int>(current % 32); }

void run(const char* kernel, dim3 blocks, dim3 threads_of_block, size_t shared_bytes, cudaStream_t stream, const std::function<void()>& thread) {
  static std::mutex one_launch;
  const std::lock_guard<std::mutex> guard(one_launch);
  kernel_name = kernel;
  const size_t num_threads = size_t{threads_of_block.x} * threads_of_block.y * threads_of_block.z;
  const bool is_grid = blocks.x - 1 < 0x7fffffff && blocks.y - 1 < 65535 && blocks.z - 1 < 65535;
  if (!is_grid || num_threads - 1 >= 1024 || threads_of_block.z > 64) fail("a GPU would refuse these blocks or threads");
  if (shared_bytes > shared_limit || shared_limit > 227 * 1024) fail(std::to_string(shared_bytes) + " bytes of shared memory were not asked for");
  if (stream == 0) fail("not on the caller's stream");
  gridDim = blocks;
  blockDim = threads_of_block;
  body = &thread;
  threads.resize(num_threads);
  shared.reset(new char[shared_bytes]);
  shared_size = shared_bytes;
  draw_orders(num_threads);
#ifdef __SANITIZE_ADDRESS__
  __asan_set_error_report_callback(say_kernel);
#endif
  try {
    run_blocks();
  } catch (...) {
    idle.clear(), fibers.clear();  // those that wait will not be resumed
    body = nullptr;
    throw;
  }
  body = nullptr;
}

void sync_block(int line) {
  Thread& thread = threads[current];
  thread.state = State::kAtBarrier, thread.line = line;
  ++num_at_barrier;
  open_barrier_when_full();
  wait();
}

uint64_t meet(Meeting kind, uint32_t mask, uint64_t value, int lane, int line) {
  if (!(mask >> my_lane() & 1)) fail("line " + std::to_string(line) + ": lane " + std::to_string(my_lane()) + " is not in its own mask");
  const uint32_t number = current;
  Thread& thread = threads[number];
  ++num_meeting;
  thread.state = State::kMeets, thread.meeting = kind, thread.mask = mask, thread.value = value, thread.lane = lane, thread.line = line;
  end_meeting_when_full(number / 32, mask);
  wait();
  return threads[number].result;
}

}  // namespace ops::cuda::emulation
