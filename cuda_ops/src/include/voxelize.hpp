// Cells of points: the arithmetic and the limits of voxelization, once, for both compilers.
#pragma once

#include "common.hpp"

namespace ops {

/// Cell of a coordinate along one axis; out of range gives -1. The lower limit belongs to the grid, the upper one does not.
struct CellIndex {
  float low, size;  // metres
  int32_t count;
  OPS_HOST_DEVICE int32_t operator()(float x) const {
    // Divide: multiplying by 1/size rounds differently and moves points that lie on a cell's border. Compared as float: NaN, infinity and
    // huge x fail both tests.
    const float cell = floorf((x - low) / size);
    return cell >= 0.0f && cell < static_cast<float>(count) ? static_cast<int32_t>(cell) : -1;
  }
};

/// A batch of grids with cells numbered ((batch * depth + z) * height + y) * width + x.
struct VoxelGrid {
  CellIndex x, y, z;
  int64_t num_batches;

  OPS_HOST_DEVICE int64_t cells_of_one() const { return static_cast<int64_t>(x.count) * y.count * z.count; }
  OPS_HOST_DEVICE int64_t cells() const { return num_batches * cells_of_one(); }

  OPS_HOST_DEVICE int64_t number(int64_t batch, int32_t cx, int32_t cy, int32_t cz) const {
    return ((batch * z.count + cz) * y.count + cy) * x.count + cx;
  }

  /// The cell's place as batch, z, y, x; without the batch where columns is 3.
  OPS_HOST_DEVICE void write_coords(int64_t cell, int32_t columns, int32_t* out) const {
    const int64_t row = cell / x.count, plane = row / y.count, batch = plane / z.count;
    int32_t* zyx = out + (columns - 3);
    zyx[2] = static_cast<int32_t>(cell - row * x.count);
    zyx[1] = static_cast<int32_t>(row - plane * y.count);
    zyx[0] = static_cast<int32_t>(plane - batch * z.count);
    if (columns == 4) out[0] = static_cast<int32_t>(batch);
  }
};

/// What becomes of a point. kOutside includes a batch index that does not exist.
enum PointState : int64_t { kInside = 0, kOutside = -1, kNotFinite = -2 };

/// The cell's number, or kOutside or kNotFinite.
OPS_HOST_DEVICE int64_t cell_of_point(const VoxelGrid& grid, const float* xyz, int64_t batch) {
  const float sum = (xyz[0] - xyz[0]) + (xyz[1] - xyz[1]) + (xyz[2] - xyz[2]);  // 0 where all three are finite, else NaN
  if (!(sum == 0.0f)) return kNotFinite;
  const int32_t cx = grid.x(xyz[0]), cy = grid.y(xyz[1]), cz = grid.z(xyz[2]);
  if ((cx | cy | cz) < 0 || batch < 0 || batch >= grid.num_batches) return kOutside;
  return grid.number(batch, cx, cy, cz);
}

// A grid as its numbers, the way it comes from Python.
#define VOXEL_GRID_ARGUMENTS                                                                                                              \
  float low_x, float low_y, float low_z, float size_x, float size_y, float size_z, int32_t cells_x, int32_t cells_y, int32_t cells_z,     \
      int64_t num_batches
#define VOXEL_GRID \
  VoxelGrid { {low_x, size_x, cells_x}, {low_y, size_y, cells_y}, {low_z, size_z, cells_z}, num_batches }

/// Places of the counters that voxelization returns, all int64.
enum VoxelCounter { kNumVoxels, kNumOutside, kNumNotFinite, kNumVoxelsOver, kNumPointsOver, kNumVoxelCounters };

}  // namespace ops
