// The module cuda_ops._cuda.
#include "ops.cuh"
#include "wire.hpp"

#ifdef OPS_EMULATE_CUDA  // in the place of the CPU bodies
#include "../cpu/memory.hpp"
#include "emulation/selftest.hpp"
NB_MODULE(_cpu, m) {
  ops::offer_memory(m);
  ops::cuda::emulation::offer(m);
#else
NB_MODULE(_cuda, m) {
#endif
  m.doc() = "Bodies of the operators for NVIDIA GPUs; called through cuda_ops, which checks the arguments.";
  ops::offer(m, "voxelize_mean", &ops::cuda::voxelize_mean);
  ops::offer(m, "voxelize_hard", &ops::cuda::voxelize_hard);
  ops::offer(m, "iou_bev", &ops::cuda::iou_bev);
  ops::offer(m, "iou_3d", &ops::cuda::iou_3d);
  ops::offer(m, "points_in_boxes", &ops::cuda::points_in_boxes);
  ops::offer(m, "nms_bev", &ops::cuda::nms_bev);
  ops::offer(m, "nms_circle", &ops::cuda::nms_circle);
}
