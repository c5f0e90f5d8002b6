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
  ops::offer(m, "ray_tree", &ops::cpu::ray_tree);
  ops::offer(m, "cast_rays", &ops::cpu::cast_rays);
  ops::offer(m, "sparse_outputs", &ops::cpu::sparse_outputs);
  ops::offer(m, "sparse_table", &ops::cpu::sparse_table);
  ops::offer(m, "scatter_max_float32", &ops::cpu::scatter_max<float>);
  ops::offer(m, "scatter_max_float64", &ops::cpu::scatter_max<double>);
  ops::offer(m, "scatter_mean_float32", &ops::cpu::scatter_mean<float>);
  ops::offer(m, "scatter_mean_float64", &ops::cpu::scatter_mean<double>);
  ops::offer(m, "scatter_max_grad_float32", &ops::cpu::scatter_max_grad<float>);
  ops::offer(m, "scatter_max_grad_float64", &ops::cpu::scatter_max_grad<double>);
  ops::offer(m, "scatter_mean_grad_float32", &ops::cpu::scatter_mean_grad<float>);
  ops::offer(m, "scatter_mean_grad_float64", &ops::cpu::scatter_mean_grad<double>);
  ops::offer(m, "nearest_in_group", &ops::cpu::nearest_in_group);
  ops::offer(m, "gather_bilinear_float32", &ops::cpu::gather_bilinear<float>);
  ops::offer(m, "gather_bilinear_gradient_float32", &ops::cpu::gather_bilinear_gradient<float>);
  ops::offer(m, "gather_bilinear_float64", &ops::cpu::gather_bilinear<double>);
  ops::offer(m, "gather_bilinear_gradient_float64", &ops::cpu::gather_bilinear_gradient<double>);
  ops::offer(m, "gather_bilinear_float16", &ops::cpu::gather_bilinear<ops::Half>);
  ops::offer(m, "gather_bilinear_gradient_float16", &ops::cpu::gather_bilinear_gradient<ops::Half>);
  ops::offer(m, "gather_bilinear_bfloat16", &ops::cpu::gather_bilinear<ops::BFloat16>);
  ops::offer(m, "gather_bilinear_gradient_bfloat16", &ops::cpu::gather_bilinear_gradient<ops::BFloat16>);
  ops::offer(m, "transpose_table", &ops::cpu::transpose_table);
  ops::offer(m, "sparse_conv_float32", &ops::cpu::sparse_conv<float>);
  ops::offer(m, "sparse_conv_float64", &ops::cpu::sparse_conv<double>);
  ops::offer(m, "sparse_conv_weight_gradient_float32", &ops::cpu::sparse_conv_weight_gradient<float>);
  ops::offer(m, "sparse_conv_weight_gradient_float64", &ops::cpu::sparse_conv_weight_gradient<double>);
}
