#include "cells.hpp"

#include <cstring>

namespace ops::cpu {
namespace {

constexpr int64_t kBlock = 256;

/// x, y, z of a block of points, and from them the cells, in loops that the compiler can vectorise.
OPS_CLONES void cells_of_block(const VoxelGrid& grid, const float* points, int64_t columns, const int32_t* batch, int32_t n,
                               uint32_t* cells, int32_t* num_outside, int32_t* num_not_finite) {
  float x[kBlock], y[kBlock], z[kBlock];
  int32_t sample[kBlock];
  for (int32_t i = 0; i < n; ++i) {
    const float* p = points + i * columns;
    x[i] = p[0], y[i] = p[1], z[i] = p[2];
  }
  for (int32_t i = 0; i < n; ++i) sample[i] = batch ? batch[i] : 0;
  const uint32_t nx = grid.x.count, ny = grid.y.count, nz = grid.z.count, nothing = static_cast<uint32_t>(grid.cells());
  const int32_t samples = static_cast<int32_t>(grid.num_batches);
  int32_t cell_x[kBlock], cell_y[kBlock], cell_z[kBlock];
  for (int32_t i = 0; i < n; ++i) {
    cell_x[i] = grid.x(x[i]);
    cell_y[i] = grid.y(y[i]);
    cell_z[i] = grid.z(z[i]);
  }
  int32_t inside = 0, finite = 0;
  for (int32_t i = 0; i < n; ++i) {
    const int32_t cx = cell_x[i], cy = cell_y[i], cz = cell_z[i], b = sample[i];
    const int32_t is_outside = (cx | cy | cz | b | (samples - 1 - b)) >> 31;  // all ones, or 0
    const uint32_t cell = ((static_cast<uint32_t>(b) * nz + static_cast<uint32_t>(cz)) * ny + static_cast<uint32_t>(cy)) * nx + static_cast<uint32_t>(cx);
    cells[i] = is_outside ? nothing : cell;
    inside += 1 + is_outside;
  }
  for (int32_t i = 0; i < n; ++i) finite += (x[i] - x[i]) + (y[i] - y[i]) + (z[i] - z[i]) == 0.0f;
  *num_outside = finite - inside;
  *num_not_finite = n - finite;
}

}  // namespace

void write_cells(const VoxelGrid& grid, const float* points, int64_t columns, const int32_t* batch, int64_t begin, int64_t end,
                 uint32_t* cells, int64_t* num_outside, int64_t* num_not_finite) {
  for (int64_t i = begin; i < end; i += kBlock) {
    const int32_t n = static_cast<int32_t>(std::min(kBlock, end - i));
    int32_t outside, not_finite;
    cells_of_block(grid, points + i * columns, columns, batch ? batch + i : nullptr, n, cells + i, &outside, &not_finite);
    *num_outside += outside;
    *num_not_finite += not_finite;
  }
}

void write_cells(const VoxelGrid& grid, const float* points, int64_t columns, const int32_t* batch, int64_t begin, int64_t end,
                 uint64_t* cells, int64_t* num_outside, int64_t* num_not_finite) {
  for (int64_t i = begin; i < end; ++i) {
    const int64_t cell = cell_of_point(grid, points + i * columns, batch ? batch[i] : 0);
    *num_outside += cell == kOutside;
    *num_not_finite += cell == kNotFinite;
    cells[i] = static_cast<uint64_t>(cell < 0 ? grid.cells() : cell);
  }
}

OPS_CLONES void write_coords(const VoxelGrid& grid, const uint32_t* cells, int64_t n, int64_t columns, int32_t* coords) {
  // Division in double is exact for integers below 2^32 and, unlike that of integers, there for many at once.
  const double nx = grid.x.count, ny = grid.y.count, nz = grid.z.count;
  for (int64_t i = 0; i < n; ++i) {
    const double cell = cells[i], row = floor(cell / nx), plane = floor(row / ny), batch = floor(plane / nz);
    int32_t* zyx = coords + i * columns + (columns - 3);
    zyx[2] = static_cast<int32_t>(cell - row * nx);
    zyx[1] = static_cast<int32_t>(row - plane * ny);
    zyx[0] = static_cast<int32_t>(plane - batch * nz);
    if (columns == 4) coords[4 * i] = static_cast<int32_t>(batch);
  }
}

void write_coords(const VoxelGrid& grid, const uint64_t* cells, int64_t n, int64_t columns, int32_t* coords) {
  for (int64_t i = 0; i < n; ++i) {
    grid.write_coords(static_cast<int64_t>(cells[i]), static_cast<int32_t>(columns), coords + i * columns);
  }
}

}  // namespace ops::cpu
