// The operators' CUDA bodies, as they are offered to Python: the arguments of the CPU bodies (src/cpu/ops.hpp), with the stream last.
#pragma once

#ifdef OPS_EMULATE_CUDA
#include "emulation/emulation.hpp"
#else
#include <cuda_runtime_api.h>
#endif

#include <cstdint>

#include "sparse_indices.hpp"
#include "gather.hpp"
#include "voxelize.hpp"

namespace ops::cuda {

// voxelize.cu
void voxelize_mean(const float* points, int64_t num_points, int64_t columns, const int32_t* batch, VOXEL_GRID_ARGUMENTS, int64_t max_voxels,
                   int64_t coord_columns, float* features, int32_t* coords, int32_t* counts, int32_t* voxel_of_point, int64_t* counters,
                   cudaStream_t stream);
void voxelize_hard(const float* points, int64_t num_points, int64_t columns, const int32_t* batch, VOXEL_GRID_ARGUMENTS, int64_t max_points,
                   int64_t max_voxels, int64_t coord_columns, float* voxels, int32_t* coords, int32_t* counts, int32_t* voxel_of_point,
                   int64_t* counters, cudaStream_t stream);

// boxes.cu; boxes (N, 5) or (N, 7), see cuda_ops/boxes.py
void iou_bev(const double* boxes_a, int64_t num_a, int64_t columns_a, const double* boxes_b, int64_t num_b, int64_t columns_b, double* iou,
             cudaStream_t stream);
void iou_3d(const double* boxes_a, int64_t num_a, const double* boxes_b, int64_t num_b, double* iou, cudaStream_t stream);
// groups: both null, or one of each point and one of each box
void points_in_boxes(const float* points, int64_t num_points, int64_t columns, const int32_t* point_group, const double* boxes,
                     int64_t num_boxes, const int32_t* box_group, int32_t* index, int32_t* counts, cudaStream_t stream);

// nms.cu; group may be null, max_out -1 means no limit; num_kept: one zero
void nms_bev(const double* boxes, int64_t num, int64_t columns, const double* scores, const int64_t* group, double iou_threshold,
             int64_t max_out, int64_t* keep, int64_t* num_kept, cudaStream_t stream);
void nms_circle(const double* centers, int64_t num, int64_t columns, const double* scores, const int64_t* group, double radius,
                double squared_radius, int64_t max_out, int64_t* keep, int64_t* num_kept, cudaStream_t stream);

// sparse_indices.cu; the arguments of the CPU bodies
void sparse_outputs(const int32_t* coords, int64_t num, int64_t columns, CONV_GRID_ARGUMENTS, int64_t capacity, int64_t* cells,
                    int64_t* counters, cudaStream_t stream);
void sparse_table(const int32_t* coords, int64_t num, int64_t columns, CONV_GRID_ARGUMENTS, const int64_t* cells, int64_t num_outputs,
                  int32_t* out_coords, int32_t* table, int64_t* counters, cudaStream_t stream);

// scatter.cu, for float and double; values: num_rows x columns, grad and argmax: size x columns, counts: size
template <class T>
void scatter_max(const T* values, int64_t num_rows, int64_t columns, const int32_t* index, int64_t size, T* best, int32_t* argmax,
                 cudaStream_t stream);
template <class T>
void scatter_mean(const T* values, int64_t num_rows, int64_t columns, const int32_t* index, int64_t size, T* mean, int32_t* counts,
                  cudaStream_t stream);
template <class T>
void scatter_max_grad(const T* grad, int64_t size, int64_t columns, const int32_t* index, int64_t num_rows, const int32_t* argmax,
                      T* grad_values, cudaStream_t stream);
template <class T>
void scatter_mean_grad(const T* grad, int64_t size, int64_t columns, const int32_t* index, int64_t num_rows, const int32_t* counts,
                       T* grad_values, cudaStream_t stream);

// nearest.cu
void nearest_in_group(const double* queries, const int64_t* query_group, int64_t num_queries, const double* points,
                      const int64_t* point_group, int64_t num_points, int32_t* index, double* squared_distance, cudaStream_t stream);

// gather.cu; T is float, double, Half or BFloat16
template <class T>
void gather_bilinear(const T* values, MAP_LAYOUT_ARGUMENTS, const Real<T>* xy, const int32_t* batch, int64_t num_points, T* out,
                     cudaStream_t stream);
template <class T>
void gather_bilinear_gradient(const T* gradients, const T* values, MAP_LAYOUT_ARGUMENTS, const Real<T>* xy, const int32_t* batch,
                              int64_t num_points, T* map_gradient, GRADIENT_STRIDES_ARGUMENTS, Real<T>* xy_gradient, cudaStream_t stream);

// sparse_conv.cu; the sums themselves are Triton kernels, see cuda_ops/sparse_triton.py
void transpose_table(const int32_t* table, int64_t rows, int64_t offsets, int64_t num_others, int32_t* transposed, cudaStream_t stream);

// rays.cu; see the CPU body; there is no tree here: ray_tree writes zeros, and cast_rays does not look at them
void ray_tree(const int32_t* kind, const float* center, const float* size, const float* yaw, const float* taper, const float* normal,
              const float* pass_chance, const float* extinction, const int64_t* field, int64_t num_primitives, const float* heights,
              int64_t num_heights, int32_t* tree, cudaStream_t stream);
void cast_rays(const float* origins, const float* directions, int64_t num_rays, const int32_t* kind, const float* center, const float* size,
               const float* yaw, const float* taper, const float* normal, const float* pass_chance, const float* extinction,
               const int64_t* field, int64_t num_primitives, const float* heights, int64_t num_heights, const int32_t* tree,
               const float* farthest, int64_t seed, double min_range, double max_range, bool culled, float* distance, float* normals,
               int32_t* primitive, cudaStream_t stream);

}  // namespace ops::cuda
