// Voxelization on the GPU: the stable sort by cell of the CPU body, with counts that stay on the device.
#include "voxelize.hpp"

#include "launch.cuh"
#include "ops.cuh"

namespace ops::cuda {
namespace {

/// Cell of each point; points left out get cell `cells`, which sorts last, and are counted.
template <class Key>
__global__ void keys_kernel(VoxelGrid grid, const float* points, int64_t count, int64_t columns, const int32_t* batch, Key* keys,
                            int32_t* indices, int64_t* counters) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  int64_t num_outside = 0, num_not_finite = 0;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    const int64_t cell = cell_of_point(grid, points + i * columns, batch ? batch[i] : 0);
    num_outside += cell == kOutside;
    num_not_finite += cell == kNotFinite;
    keys[i] = static_cast<Key>(cell < 0 ? grid.cells() : cell);
    indices[i] = static_cast<int32_t>(i);
  }
  add_of_warp(num_outside, counters + kNumOutside);
  add_of_warp(num_not_finite, counters + kNumNotFinite);
}

template <class Key>
struct MarkHeads {
  const Key* keys;
  Key nothing;
  int32_t* is_head;
  __device__ void operator()(int64_t i) const { is_head[i] = keys[i] != nothing && (i == 0 || keys[i] != keys[i - 1]); }
};

/// Where each voxel's points begin among the sorted ones; the last voxel's end behind it. begins[0] must be 0 where there is no voxel.
template <class Key>
struct WriteBegins {
  const Key* keys;
  Key nothing;
  const int32_t *is_head, *rank;  // rank: voxels up to and including this point
  int64_t count;
  int32_t* begins;
  int64_t* num_voxels;
  __device__ void operator()(int64_t i) const {
    if (keys[i] == nothing) return;
    if (is_head[i]) begins[rank[i] - 1] = static_cast<int32_t>(i);
    if (i == count - 1 || keys[i + 1] == nothing) {
      begins[rank[i]] = static_cast<int32_t>(i + 1);
      *num_voxels = rank[i];
    }
  }
};

/// The points sorted by cell: what both voxelizations stand on.
template <class Key>
struct SortedPoints {
  DeviceBuffer<Key> keys;
  DeviceBuffer<int32_t> order, rank, begins;
  DeviceBuffer<int64_t> num_voxels;

  SortedPoints(const VoxelGrid& grid, const float* points, int64_t count, int64_t columns, const int32_t* batch, int64_t* counters,
               cudaStream_t stream)
      : keys(count, stream), order(count, stream), rank(count, stream), begins(count + 1, stream), num_voxels(1, stream) {
    const Key nothing = static_cast<Key>(grid.cells());
    OPS_CHECK(cudaMemsetAsync(begins.get(), 0, sizeof(int32_t), stream));
    OPS_CHECK(cudaMemsetAsync(num_voxels.get(), 0, sizeof(int64_t), stream));
    if (count == 0) return;
    DeviceBuffer<Key> unsorted(count, stream);
    DeviceBuffer<int32_t> indices(count, stream);  // afterwards the marks of heads
    OPS_LAUNCH(keys_kernel, blocks_for(count), kThreads, 0, stream, grid, points, count, columns, batch, unsorted.get(), indices.get(),
               counters);
    sort_pairs(unsorted.get(), keys.get(), indices.get(), order.get(), count, bits_of(static_cast<uint64_t>(grid.cells())), stream);
    for_each(count, stream, MarkHeads<Key>{keys.get(), nothing, indices.get()});
    inclusive_sum(indices.get(), rank.get(), count, stream);
    for_each(count, stream,
             WriteBegins<Key>{keys.get(), nothing, indices.get(), rank.get(), count, begins.get(), num_voxels.get()});
  }
};

struct CountMean {
  const int64_t* num_voxels;
  const int32_t* begins;
  int64_t max_voxels;
  int64_t* counters;
  __device__ void operator()(int64_t) const {
    const int64_t all = *num_voxels, kept = all < max_voxels ? all : max_voxels;
    counters[kNumVoxels] = kept;
    counters[kNumVoxelsOver] = all - kept;
    counters[kNumPointsOver] = begins[all] - begins[kept];
  }
};

/// One thread per voxel and column; sums in the order of the points, as on the CPU.
template <class Key>
struct MeanOfVoxels {
  VoxelGrid grid;
  const float* points;
  int64_t columns;
  const Key* keys;
  const int32_t *order, *begins;
  const int64_t* counters;
  int32_t coord_columns;
  float* features;
  int32_t *coords, *counts;
  __device__ void operator()(int64_t i) const {
    const int64_t voxel = i / columns, column = i - voxel * columns;
    if (voxel >= counters[kNumVoxels]) return;
    const int32_t first = begins[voxel], stop = begins[voxel + 1];
    float sum = points[order[first] * columns + column];
    for (int32_t k = first + 1; k < stop; ++k) sum += points[order[k] * columns + column];
    features[i] = stop - first == 1 ? sum : sum / static_cast<float>(stop - first);
    if (column == 0) {
      counts[voxel] = stop - first;
      grid.write_coords(static_cast<int64_t>(keys[first]), coord_columns, coords + voxel * coord_columns);
    }
  }
};

template <class Key>
struct WriteVoxelOfPoint {
  const Key* keys;
  Key nothing;
  const int32_t *order, *rank;
  const int64_t* counters;
  int32_t* voxel_of_point;
  __device__ void operator()(int64_t i) const {
    const bool is_kept = keys[i] != nothing && rank[i] <= counters[kNumVoxels];
    voxel_of_point[order[i]] = is_kept ? rank[i] - 1 : -1;
  }
};

template <class Key>
void mean(const VoxelGrid& grid, const float* points, int64_t count, int64_t columns, const int32_t* batch, int64_t max_voxels,
          int64_t coord_columns, float* features, int32_t* coords, int32_t* counts, int32_t* voxel_of_point, int64_t* counters,
          cudaStream_t stream) {
  SortedPoints<Key> sorted(grid, points, count, columns, batch, counters, stream);
  for_each(1, stream, CountMean{sorted.num_voxels.get(), sorted.begins.get(), max_voxels, counters});
  const int64_t rows = std::min(count, max_voxels);
  for_each(rows * columns, stream,
           MeanOfVoxels<Key>{grid, points, columns, sorted.keys.get(), sorted.order.get(), sorted.begins.get(), counters,
                             static_cast<int32_t>(coord_columns), features, coords, counts});
  if (voxel_of_point) {
    for_each(count, stream,
             WriteVoxelOfPoint<Key>{sorted.keys.get(), static_cast<Key>(grid.cells()), sorted.order.get(), sorted.rank.get(), counters,
                                    voxel_of_point});
  }
}

/// A mark at the point that opens each voxel: their running sum is the order in which voxels appear.
struct MarkOpeners {
  const int64_t* num_voxels;
  const int32_t *order, *begins;
  int32_t* opens;
  __device__ void operator()(int64_t voxel) const {
    if (voxel < *num_voxels) opens[order[begins[voxel]]] = 1;
  }
};

struct WriteOrderOfVoxels {
  const int64_t* num_voxels;
  const int32_t *order, *begins, *appearance;
  int32_t* voxel_at;
  __device__ void operator()(int64_t voxel) const {
    if (voxel < *num_voxels) voxel_at[appearance[order[begins[voxel]]] - 1] = static_cast<int32_t>(voxel);
  }
};

/// Counters of the hard voxelization; points in kept voxels but over their limit, and all points of voxels that are not kept.
__global__ void count_hard_kernel(const int64_t* num_voxels, const int32_t* begins, const int32_t* voxel_at, int64_t max_points,
                                  int64_t max_voxels, int64_t rows, int64_t* counters) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x, all = *num_voxels;
  int64_t over = 0;
  for (int64_t rank = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; rank < rows; rank += step) {
    if (rank >= all) continue;
    const int32_t voxel = voxel_at[rank];
    const int64_t n = begins[voxel + 1] - begins[voxel];
    over += rank >= max_voxels ? n : n > max_points ? n - max_points : 0;
  }
  add_of_warp(over, counters + kNumPointsOver);
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    counters[kNumVoxels] = all < max_voxels ? all : max_voxels;
    counters[kNumVoxelsOver] = all < max_voxels ? 0 : all - max_voxels;
  }
}

/// One thread per value of the padded result.
template <class Key>
struct FillVoxels {
  VoxelGrid grid;
  const float* points;
  int64_t columns, max_points;
  const Key* keys;
  const int32_t *order, *begins, *voxel_at;
  const int64_t* counters;
  int32_t coord_columns;
  float* voxels;
  int32_t *coords, *counts;
  __device__ void operator()(int64_t i) const {
    const int64_t slot_of_all = i / columns, column = i - slot_of_all * columns;
    const int64_t rank = slot_of_all / max_points, slot = slot_of_all - rank * max_points;
    if (rank >= counters[kNumVoxels]) return;
    const int32_t voxel = voxel_at[rank], first = begins[voxel];
    const int64_t n = begins[voxel + 1] - first;
    voxels[i] = slot < n ? points[order[first + slot] * columns + column] : 0.0f;
    if (slot == 0 && column == 0) {
      counts[rank] = static_cast<int32_t>(n < max_points ? n : max_points);
      grid.write_coords(static_cast<int64_t>(keys[first]), coord_columns, coords + rank * coord_columns);
    }
  }
};

template <class Key>
struct WriteHardVoxelOfPoint {
  const Key* keys;
  Key nothing;
  const int32_t *order, *rank, *begins, *appearance;
  int64_t max_points, max_voxels;
  int32_t* voxel_of_point;
  __device__ void operator()(int64_t i) const {
    int32_t row = -1;
    if (keys[i] != nothing) {
      const int32_t first = begins[rank[i] - 1];
      row = appearance[order[first]] - 1;
      if (row >= max_voxels || i - first >= max_points) row = -1;
    }
    voxel_of_point[order[i]] = row;
  }
};

template <class Key>
void hard(const VoxelGrid& grid, const float* points, int64_t count, int64_t columns, const int32_t* batch, int64_t max_points,
          int64_t max_voxels, int64_t coord_columns, float* voxels, int32_t* coords, int32_t* counts, int32_t* voxel_of_point,
          int64_t* counters, cudaStream_t stream) {
  SortedPoints<Key> sorted(grid, points, count, columns, batch, counters, stream);
  DeviceBuffer<int32_t> opens(count, stream), appearance(count, stream), voxel_at(count, stream);
  OPS_CHECK(cudaMemsetAsync(opens.get(), 0, sizeof(int32_t) * static_cast<size_t>(std::max<int64_t>(count, 1)), stream));
  const int64_t* num_voxels = sorted.num_voxels.get();
  for_each(count, stream, MarkOpeners{num_voxels, sorted.order.get(), sorted.begins.get(), opens.get()});
  inclusive_sum(opens.get(), appearance.get(), count, stream);
  for_each(count, stream, WriteOrderOfVoxels{num_voxels, sorted.order.get(), sorted.begins.get(), appearance.get(), voxel_at.get()});
  OPS_LAUNCH(count_hard_kernel, blocks_for(count), kThreads, 0, stream, num_voxels, sorted.begins.get(), voxel_at.get(), max_points,
             max_voxels, count, counters);
  for_each(std::min(count, max_voxels) * max_points * columns, stream,
           FillVoxels<Key>{grid, points, columns, max_points, sorted.keys.get(), sorted.order.get(), sorted.begins.get(), voxel_at.get(),
                           counters, static_cast<int32_t>(coord_columns), voxels, coords, counts});
  if (voxel_of_point) {
    for_each(count, stream,
             WriteHardVoxelOfPoint<Key>{sorted.keys.get(), static_cast<Key>(grid.cells()), sorted.order.get(), sorted.rank.get(),
                                        sorted.begins.get(), appearance.get(), max_points, max_voxels, voxel_of_point});
  }
}

}  // namespace

void voxelize_mean(const float* points, int64_t num_points, int64_t columns, const int32_t* batch, VOXEL_GRID_ARGUMENTS, int64_t max_voxels,
                   int64_t coord_columns, float* features, int32_t* coords, int32_t* counts, int32_t* voxel_of_point, int64_t* counters,
                   cudaStream_t stream) {
  const VoxelGrid grid = VOXEL_GRID;
  const auto run = grid.cells() <= 0xffffffff ? mean<uint32_t> : mean<uint64_t>;
  run(grid, points, num_points, columns, batch, max_voxels, coord_columns, features, coords, counts, voxel_of_point, counters, stream);
}

void voxelize_hard(const float* points, int64_t num_points, int64_t columns, const int32_t* batch, VOXEL_GRID_ARGUMENTS, int64_t max_points,
                   int64_t max_voxels, int64_t coord_columns, float* voxels, int32_t* coords, int32_t* counts, int32_t* voxel_of_point,
                   int64_t* counters, cudaStream_t stream) {
  const VoxelGrid grid = VOXEL_GRID;
  const auto run = grid.cells() <= 0xffffffff ? hard<uint32_t> : hard<uint64_t>;
  run(grid, points, num_points, columns, batch, max_points, max_voxels, coord_columns, voxels, coords, counts, voxel_of_point, counters,
      stream);
}

}  // namespace ops::cuda
