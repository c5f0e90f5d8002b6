// The operators' CPU bodies, as they are offered to Python. Arguments are described in cuda_ops/*.py; sizes have been checked there.
#pragma once

#include <cstdint>

#include "voxelize.hpp"

namespace ops::cpu {

// voxelize.cpp; voxel_of_point may be null; counters: five zeros
void voxelize_mean(const float* points, int64_t num_points, int64_t columns, const int32_t* batch, VOXEL_GRID_ARGUMENTS, int64_t max_voxels,
                   int64_t coord_columns, float* features, int32_t* coords, int32_t* counts, int32_t* voxel_of_point, int64_t* counters,
                   int num_threads);
void voxelize_hard(const float* points, int64_t num_points, int64_t columns, const int32_t* batch, VOXEL_GRID_ARGUMENTS, int64_t max_points,
                   int64_t max_voxels, int64_t coord_columns, float* voxels, int32_t* coords, int32_t* counts, int32_t* voxel_of_point,
                   int64_t* counters, int num_threads);

}  // namespace ops::cpu
