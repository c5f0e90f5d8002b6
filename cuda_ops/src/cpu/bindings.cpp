// The module cuda_ops._cpu.
#include <nanobind/ndarray.h>

#include "ops.hpp"
#include "parallel.hpp"
#include "wire.hpp"

namespace nb = nanobind;

namespace {

int default_num_threads() {
#ifdef _OPENMP
  return omp_get_max_threads();
#else
  return 1;
#endif
}

/// Uninitialised bytes from the pool; they return to it when the array is garbage-collected.
nb::ndarray<nb::numpy, uint8_t, nb::ndim<1>> pooled_bytes(std::size_t bytes) {
  void* block = ops::cpu::take_block(bytes);
  nb::capsule owner(block, [](void* p) noexcept { ops::cpu::give_block(p); });
  return nb::ndarray<nb::numpy, uint8_t, nb::ndim<1>>(block, {bytes}, owner);
}

}  // namespace

NB_MODULE(_cpu, m) {
  m.doc() = "Bodies of the operators for the CPU; called through cuda_ops, which checks the arguments.";
  m.def("default_num_threads", &default_num_threads);
  m.def("pooled_bytes", &pooled_bytes);
  ops::offer(m, "voxelize_mean", &ops::cpu::voxelize_mean);
  ops::offer(m, "voxelize_hard", &ops::cpu::voxelize_hard);
  ops::offer(m, "iou_bev", &ops::cpu::iou_bev);
  ops::offer(m, "iou_3d", &ops::cpu::iou_3d);
  ops::offer(m, "points_in_boxes", &ops::cpu::points_in_boxes);
  ops::offer(m, "nms_bev", &ops::cpu::nms_bev);
  ops::offer(m, "nms_circle", &ops::cpu::nms_circle);
}
