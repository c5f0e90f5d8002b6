// The operators' CUDA bodies, as they are offered to Python: the arguments of the CPU bodies (src/cpu/ops.hpp), with the stream last.
#pragma once

#include <cuda_runtime_api.h>

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

}  // namespace ops::cuda
