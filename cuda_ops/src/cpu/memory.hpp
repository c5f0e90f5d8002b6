// What the module _cpu offers beside the operators: its threads, and memory for results.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "parallel.hpp"

namespace ops {

inline int default_num_threads() {
#ifdef _OPENMP
  return omp_get_max_threads();
#else
  return 1;
#endif
}

/// Uninitialised bytes from the pool; they return to it when the array is garbage-collected.
inline nanobind::ndarray<nanobind::numpy, uint8_t, nanobind::ndim<1>> pooled_bytes(std::size_t bytes) {
  void* block = cpu::take_block(bytes);
  nanobind::capsule owner(block, [](void* p) noexcept { cpu::give_block(p); });
  return nanobind::ndarray<nanobind::numpy, uint8_t, nanobind::ndim<1>>(block, {bytes}, owner);
}

inline void offer_memory(nanobind::module_& m) {
  m.def("default_num_threads", &default_num_threads);
  m.def("pooled_bytes", &pooled_bytes);
}

}  // namespace ops
