// Cells of many points at once.
#pragma once

#include "parallel.hpp"
#include "voxelize.hpp"

namespace ops::cpu {

/// Cells of the points [begin, end), `nothing` = grid.cells() for those outside; adds up how many lie outside and how many are not finite.
/// For grids of fewer than 2^32 cells.
void write_cells(const VoxelGrid& grid, const float* points, int64_t columns, const int32_t* batch, int64_t begin, int64_t end,
                 uint32_t* cells, int64_t* num_outside, int64_t* num_not_finite);
/// The same for grids of any size.
void write_cells(const VoxelGrid& grid, const float* points, int64_t columns, const int32_t* batch, int64_t begin, int64_t end,
                 uint64_t* cells, int64_t* num_outside, int64_t* num_not_finite);

/// The places of cells as z, y, x, or batch, z, y, x where columns is 4: n rows.
void write_coords(const VoxelGrid& grid, const uint32_t* cells, int64_t n, int64_t columns, int32_t* coords);
void write_coords(const VoxelGrid& grid, const uint64_t* cells, int64_t n, int64_t columns, int32_t* coords);

}  // namespace ops::cpu
