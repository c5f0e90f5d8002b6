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
  ops::offer(m, "sparse_outputs", &ops::cuda::sparse_outputs);
  ops::offer(m, "sparse_table", &ops::cuda::sparse_table);
  ops::offer(m, "scatter_max_float32", &ops::cuda::scatter_max<float>);
  ops::offer(m, "scatter_max_float64", &ops::cuda::scatter_max<double>);
  ops::offer(m, "scatter_mean_float32", &ops::cuda::scatter_mean<float>);
  ops::offer(m, "scatter_mean_float64", &ops::cuda::scatter_mean<double>);
  ops::offer(m, "scatter_max_grad_float32", &ops::cuda::scatter_max_grad<float>);
  ops::offer(m, "scatter_max_grad_float64", &ops::cuda::scatter_max_grad<double>);
  ops::offer(m, "scatter_mean_grad_float32", &ops::cuda::scatter_mean_grad<float>);
  ops::offer(m, "scatter_mean_grad_float64", &ops::cuda::scatter_mean_grad<double>);
  ops::offer(m, "nearest_in_group", &ops::cuda::nearest_in_group);
  ops::offer(m, "gather_bilinear_float32", &ops::cuda::gather_bilinear<float>);
  ops::offer(m, "gather_bilinear_gradient_float32", &ops::cuda::gather_bilinear_gradient<float>);
  ops::offer(m, "gather_bilinear_float64", &ops::cuda::gather_bilinear<double>);
  ops::offer(m, "gather_bilinear_gradient_float64", &ops::cuda::gather_bilinear_gradient<double>);
  ops::offer(m, "gather_bilinear_float16", &ops::cuda::gather_bilinear<ops::Half>);
  ops::offer(m, "gather_bilinear_gradient_float16", &ops::cuda::gather_bilinear_gradient<ops::Half>);
  ops::offer(m, "gather_bilinear_bfloat16", &ops::cuda::gather_bilinear<ops::BFloat16>);
  ops::offer(m, "gather_bilinear_gradient_bfloat16", &ops::cuda::gather_bilinear_gradient<ops::BFloat16>);
  ops::offer(m, "transpose_table", &ops::cuda::transpose_table);
  ops::offer(m, "ray_tree", &ops::cuda::ray_tree);
  ops::offer(m, "cast_rays", &ops::cuda::cast_rays);
}
