// The operators' CUDA bodies, as they are offered to Python: the arguments of the CPU bodies (src/cpu/ops.hpp), with the stream last.
#pragma once

#ifdef OPS_EMULATE_CUDA
#include "emulation/emulation.hpp"
#else
#include <cuda_runtime_api.h>
#endif

#include <cstdint>

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
void points_in_boxes(const float* points, int64_t num_points, int64_t columns, const double* boxes, int64_t num_boxes, int32_t* index,
                     int32_t* counts, cudaStream_t stream);

// nms.cu; group may be null, max_out -1 means no limit; num_kept: one zero
void nms_bev(const double* boxes, int64_t num, int64_t columns, const double* scores, const int64_t* group, double iou_threshold,
             int64_t max_out, int64_t* keep, int64_t* num_kept, cudaStream_t stream);
void nms_circle(const double* centers, int64_t num, int64_t columns, const double* scores, const int64_t* group, double radius,
                double squared_radius, int64_t max_out, int64_t* keep, int64_t* num_kept, cudaStream_t stream);

// rays.cu; see the CPU body
void cast_rays(const float* origins, const float* directions, int64_t num_rays, const int32_t* kind, const float* center, const float* size,
               const float* yaw, const float* taper, const float* normal, const float* pass_chance, const float* extinction,
               const int64_t* field, int64_t num_primitives, const float* heights, int64_t num_heights, int64_t seed, double min_range,
               double max_range, bool culled, float* distance, float* normals, int32_t* primitive, cudaStream_t stream);

}  // namespace ops::cuda
