// Threads and memory of the CPU bodies.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace ops::cpu {

/// Memory that is kept for the next call: fresh pages cost more than most operators' work. Blocks are handed back to a pool that holds at
/// most 256 MiB; threads may take and give at the same time. The content is undefined.
void* take_block(std::size_t bytes);
void give_block(void* block) noexcept;

template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t count) : data_(static_cast<T*>(take_block(sizeof(T) * static_cast<std::size_t>(std::max<int64_t>(count, 1))))) {}
  ~Buffer() { give_block(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  T* get() { return data_; }
  T& operator[](int64_t i) { return data_[i]; }
  const T& operator[](int64_t i) const { return data_[i]; }

 private:
  T* data_;
};

/// One after the other in [0, count), cut into `parts` ranges of nearly the same length.
inline int64_t part_begin(int64_t count, int parts, int part) { return count / parts * part + std::min<int64_t>(count % parts, part); }

/// Threads for `count` items, when one thread should have at least `grain` of them.
inline int threads_for(int64_t count, int num_threads, int64_t grain) {
  return static_cast<int>(std::clamp<int64_t>(count / std::max<int64_t>(grain, 1), 1, std::max(num_threads, 1)));
}

/// body(thread, begin, end) for `threads` ranges of [0, count), each in its own thread. Which thread does what never changes a result:
/// every item is written by one thread, in an order that does not depend on their number.
template <class Body>
void parallel_ranges(int64_t count, int threads, Body&& body) {
  if (threads <= 1) {
    body(0, int64_t{0}, count);
    return;
  }
  std::exception_ptr error;  // an exception must not leave an OpenMP region
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int t = 0; t < threads; ++t) {
    try {
      body(t, part_begin(count, threads, t), part_begin(count, threads, t + 1));
    } catch (...) {
#pragma omp critical
      error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

/// body(i) for i in [0, count), handed out in pieces of `grain` as threads become free: for items of uneven cost.
template <class Body>
void parallel_dynamic(int64_t count, int threads, int64_t grain, Body&& body) {
  if (threads <= 1) {
    for (int64_t i = 0; i < count; ++i) body(i);
    return;
  }
  std::exception_ptr error;
#pragma omp parallel for num_threads(threads) schedule(dynamic, grain)
  for (int64_t i = 0; i < count; ++i) {
    try {
      body(i);
    } catch (...) {
#pragma omp critical
      error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace ops::cpu
