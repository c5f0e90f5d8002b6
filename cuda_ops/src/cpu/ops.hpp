// The operators' CPU bodies, as they are offered to Python. Arguments are described in cuda_ops/*.py; sizes have been checked there.
#pragma once

#include <cstdint>

#include "sparse_indices.hpp"
#include "gather.hpp"
#include "voxelize.hpp"

namespace ops::cpu {

// voxelize_mean.cpp, voxelize_hard.cpp; voxel_of_point may be null; counters: five zeros
void voxelize_mean(const float* points, int64_t num_points, int64_t columns, const int32_t* batch, VOXEL_GRID_ARGUMENTS, int64_t max_voxels,
                   int64_t coord_columns, float* features, int32_t* coords, int32_t* counts, int32_t* voxel_of_point, int64_t* counters,
                   int num_threads);
void voxelize_hard(const float* points, int64_t num_points, int64_t columns, const int32_t* batch, VOXEL_GRID_ARGUMENTS, int64_t max_points,
                   int64_t max_voxels, int64_t coord_columns, float* voxels, int32_t* coords, int32_t* counts, int32_t* voxel_of_point,
                   int64_t* counters, int num_threads);

// boxes.cpp; boxes are rows of 5 or 7 doubles; iou: num_a x num_b
void iou_bev(const double* boxes_a, int64_t num_a, int64_t columns_a, const double* boxes_b, int64_t num_b, int64_t columns_b, double* iou,
             int num_threads);
void iou_3d(const double* boxes_a, int64_t num_a, const double* boxes_b, int64_t num_b, double* iou, int num_threads);
void points_in_boxes(const float* points, int64_t num_points, int64_t columns, const int32_t* point_group, const double* boxes,
                     int64_t num_boxes, const int32_t* box_group, int32_t* index, int32_t* counts, int num_threads);

// nms.cpp; group may be null; max_out is for each group, below 0 without a limit; keep has num rows, num_kept one
void nms_bev(const double* boxes, int64_t num, int64_t columns, const double* scores, const int64_t* group, double iou_threshold,
             int64_t max_out, int64_t* keep, int64_t* num_kept, int num_threads);
void nms_circle(const double* centers, int64_t num, int64_t columns, const double* scores, const int64_t* group, double radius,
                double squared_radius, int64_t max_out, int64_t* keep, int64_t* num_kept, int num_threads);

// rays.cpp; the columns of cuda_ops.Primitives; tree: 4 + 32 num_primitives words, what the search through them needs, may be null;
// farthest: a largest range for each ray, may be null; culled: false tests every primitive; outputs for each ray
void ray_tree(const int32_t* kind, const float* center, const float* size, const float* yaw, const float* taper, const float* normal,
              const float* pass_chance, const float* extinction, const int64_t* field, int64_t num_primitives, const float* heights,
              int64_t num_heights, int32_t* tree, int num_threads);
void cast_rays(const float* origins, const float* directions, int64_t num_rays, const int32_t* kind, const float* center, const float* size,
               const float* yaw, const float* taper, const float* normal, const float* pass_chance, const float* extinction,
               const int64_t* field, int64_t num_primitives, const float* heights, int64_t num_heights, const int32_t* tree,
               const float* farthest, int64_t seed, double min_range, double max_range, bool culled, float* distance, float* normals,
               int32_t* primitive, int num_threads);

// sparse_indices.cpp; cells: numbers of output cells, ascending, as many as counters[kNumOutputs] says; null: the outputs are the inputs
// (submanifold); counters: kNumSparseCounters
void sparse_outputs(const int32_t* coords, int64_t num, int64_t columns, CONV_GRID_ARGUMENTS, int64_t capacity, int64_t* cells,
                    int64_t* counters, int num_threads);
void sparse_table(const int32_t* coords, int64_t num, int64_t columns, CONV_GRID_ARGUMENTS, const int64_t* cells, int64_t num_outputs,
                  int32_t* out_coords, int32_t* table, int64_t* counters, int num_threads);

// scatter.cpp, for float and double; values: num_rows x columns, grad and argmax: size x columns, counts: size
template <class T>
void scatter_max(const T* values, int64_t num_rows, int64_t columns, const int32_t* index, int64_t size, T* best, int32_t* argmax,
                 int num_threads);
template <class T>
void scatter_mean(const T* values, int64_t num_rows, int64_t columns, const int32_t* index, int64_t size, T* mean, int32_t* counts,
                  int num_threads);
template <class T>
void scatter_max_grad(const T* grad, int64_t size, int64_t columns, const int32_t* index, int64_t num_rows, const int32_t* argmax,
                      T* grad_values, int num_threads);
template <class T>
void scatter_mean_grad(const T* grad, int64_t size, int64_t columns, const int32_t* index, int64_t num_rows, const int32_t* counts,
                       T* grad_values, int num_threads);

// nearest.cpp; places are rows of two doubles
void nearest_in_group(const double* queries, const int64_t* query_group, int64_t num_queries, const double* points,
                      const int64_t* point_group, int64_t num_points, int32_t* index, double* squared_distance, int num_threads);

// gather.cpp; T is float, double, Half or BFloat16; batch may be null, and so may the gradient that is not wanted; map_gradient: zeros
template <class T>
void gather_bilinear(const T* values, MAP_LAYOUT_ARGUMENTS, const Real<T>* xy, const int32_t* batch, int64_t num_points, T* out,
                     int num_threads);
template <class T>
void gather_bilinear_gradient(const T* gradients, const T* values, MAP_LAYOUT_ARGUMENTS, const Real<T>* xy, const int32_t* batch,
                              int64_t num_points, T* map_gradient, GRADIENT_STRIDES_ARGUMENTS, Real<T>* xy_gradient, int num_threads);

// sparse_conv.cpp; T is float or double; tables hold -1 for none; bias, residual and bias_gradient may be null
void transpose_table(const int32_t* table, int64_t rows, int64_t offsets, int64_t num_others, int32_t* transposed, int num_threads);
template <class T>
void sparse_conv(const T* features, int64_t num_inputs, int64_t c_in, const T* weight, int64_t c_out, int64_t offsets, const int32_t* table,
                 int64_t num_outputs, const T* bias, const T* residual, bool relu, T* out, int num_threads);
template <class T>
void sparse_conv_weight_gradient(const T* features, int64_t num_inputs, int64_t c_in, const T* gradient, int64_t c_out, int64_t offsets,
                                 const int32_t* table, int64_t num_outputs, T* weight_gradient, T* bias_gradient, int num_threads);

}  // namespace ops::cpu
