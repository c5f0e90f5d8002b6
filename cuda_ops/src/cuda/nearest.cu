// The nearest point of a group on the GPU: points sorted by group, then one warp per query.
#include "nearest.hpp"

#include "launch.cuh"
#include "ops.cuh"

namespace ops::cuda {
namespace {

struct WriteKeysOfGroups {
  const int64_t* group;
  uint64_t* keys;
  int32_t* rows;
  __device__ void operator()(int64_t i) const {
    keys[i] = key_of_group(group[i]);
    rows[i] = static_cast<int32_t>(i);
  }
};

/// The places in the order of the sort, so that the lanes of a warp read neighbours.
struct GatherPlaces {
  const double* points;
  const int32_t* order;
  Place* places;
  __device__ void operator()(int64_t i) const { places[i] = make_place(points + 2 * order[i]); }
};

__global__ void nearest_kernel(const double* queries, const int64_t* query_group, int64_t num_queries, const uint64_t* keys,
                               const int32_t* order, const Place* places, int64_t num_points, int32_t* index, double* squared) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x / 32;
  const int64_t lane = threadIdx.x & 31;
  for (int64_t q = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / 32; q < num_queries; q += step) {
    const Place query = make_place(queries + 2 * q);
    const uint64_t key = key_of_group(query_group[q]);
    Nearest found;
    for (int64_t j = lower_bound_of(keys, num_points, key) + lane; j < num_points && keys[j] == key; j += 32) {
      found.offer(squared_distance(query, places[j]), order[j]);
    }
    for (int offset = 16; offset > 0; offset /= 2) {  // lanes that found nothing hold -1
      const double other_squared = down_of_warp(found.squared, offset);
      const int32_t other_row = static_cast<int32_t>(__shfl_down_sync(0xffffffffu, static_cast<int64_t>(found.row), offset));
      if (other_row >= 0) found.offer(other_squared, other_row);
    }
    if (lane == 0) {
      index[q] = found.row;
      squared[q] = found.squared;
    }
  }
}

}  // namespace

void nearest_in_group(const double* queries, const int64_t* query_group, int64_t num_queries, const double* points,
                      const int64_t* point_group, int64_t num_points, int32_t* index, double* squared_distance, cudaStream_t stream) {
  if (num_queries <= 0) return;
  DeviceBuffer<uint64_t> unsorted(num_points, stream), keys(num_points, stream);
  DeviceBuffer<int32_t> rows(num_points, stream), order(num_points, stream);
  DeviceBuffer<Place> places(num_points, stream);
  for_each(num_points, stream, WriteKeysOfGroups{point_group, unsorted.get(), rows.get()});
  sort_pairs(unsorted.get(), keys.get(), rows.get(), order.get(), num_points, 64, stream);
  for_each(num_points, stream, GatherPlaces{points, order.get(), places.get()});
  OPS_LAUNCH(nearest_kernel, blocks_for(num_queries * 32), kThreads, 0, stream, queries, query_group, num_queries, keys.get(), order.get(),
             places.get(), num_points, index, squared_distance);
}

}  // namespace ops::cuda
