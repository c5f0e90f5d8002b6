// The module cuda_ops._cpu.
#include "memory.hpp"
#include "ops.hpp"
#include "wire.hpp"

NB_MODULE(_cpu, m) {
  m.doc() = "Bodies of the operators for the CPU; called through cuda_ops, which checks the arguments.";
  ops::offer_memory(m);
  ops::offer(m, "voxelize_mean", &ops::cpu::voxelize_mean);
  ops::offer(m, "voxelize_hard", &ops::cpu::voxelize_hard);
  ops::offer(m, "iou_bev", &ops::cpu::iou_bev);
  ops::offer(m, "iou_3d", &ops::cpu::iou_3d);
  ops::offer(m, "points_in_boxes", &ops::cpu::points_in_boxes);
  ops::offer(m, "nms_bev", &ops::cpu::nms_bev);
  ops::offer(m, "nms_circle", &ops::cpu::nms_circle);
  ops::offer(m, "cast_rays", &ops::cpu::cast_rays);
  ops::offer(m, "transpose_table", &ops::cpu::transpose_table);
  ops::offer(m, "sparse_conv_float32", &ops::cpu::sparse_conv<float>);
  ops::offer(m, "sparse_conv_float64", &ops::cpu::sparse_conv<double>);
  ops::offer(m, "sparse_conv_weight_gradient_float32", &ops::cpu::sparse_conv_weight_gradient<float>);
  ops::offer(m, "sparse_conv_weight_gradient_float64", &ops::cpu::sparse_conv_weight_gradient<double>);
}
