// The operators' CPU bodies, as they are offered to Python. Arguments are described in cuda_ops/*.py; sizes have been checked there.
#pragma once

#include <cstdint>

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
void points_in_boxes(const float* points, int64_t num_points, int64_t columns, const double* boxes, int64_t num_boxes, int32_t* index,
                     int32_t* counts, int num_threads);

// nms.cpp; group may be null; max_out is for each group, below 0 without a limit; keep has num rows, num_kept one
void nms_bev(const double* boxes, int64_t num, int64_t columns, const double* scores, const int64_t* group, double iou_threshold,
             int64_t max_out, int64_t* keep, int64_t* num_kept, int num_threads);
void nms_circle(const double* centers, int64_t num, int64_t columns, const double* scores, const int64_t* group, double radius,
                double squared_radius, int64_t max_out, int64_t* keep, int64_t* num_kept, int num_threads);

// rays.cpp; the columns of cuda_ops.Primitives, their outputs for each ray; culled: false tests every primitive
void cast_rays(const float* origins, const float* directions, int64_t num_rays, const int32_t* kind, const float* center, const float* size,
               const float* yaw, const float* taper, const float* normal, const float* pass_chance, const float* extinction,
               const int64_t* field, int64_t num_primitives, const float* heights, int64_t num_heights, int64_t seed, double min_range,
               double max_range, bool culled, float* distance, float* normals, int32_t* primitive, int num_threads);

}  // namespace ops::cpu
