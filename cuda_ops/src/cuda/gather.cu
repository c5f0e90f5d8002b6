// Bilinear samples of a map and their gradients on the GPU.
#include "gather.hpp"

#include "launch.cuh"
#include "ops.cuh"

namespace ops::cuda {
namespace {

/// One thread per value: those of a point side by side.
template <class T>
struct GatherValues {
  const T* values;
  MapLayout map;
  const Real<T>* xy;
  const int32_t* batch;
  T* out;
  __device__ void operator()(int64_t i) const {
    const int64_t point = i / map.channels, c = i - point * map.channels;
    const auto corners = corners_of(map, xy[2 * point], xy[2 * point + 1], batch ? batch[point] : 0);
    Real<T> value = 0;
    if (corners.is_inside()) {
      const T* place = values + corners.offset(map, 0) + c * map.channel_stride;
      value = blend(load(place[0]), load(place[map.row_stride]), load(place[map.column_stride]),
                    load(place[map.row_stride + map.column_stride]), corners.weight);
    }
    store(value, out + i);
  }
};

/// One warp per point, a strand of channels per lane.
template <class T>
__global__ void slopes_kernel(const T* gradients, const T* values, MapLayout map, const Real<T>* xy, const int32_t* batch, int64_t count,
                              Real<T>* xy_gradient) {
  static_assert(kStrands == 32, "a warp");
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x / 32;
  const int64_t lane = threadIdx.x & 31;
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / 32; i < count; i += step) {
    const auto corners = corners_of(map, xy[2 * i], xy[2 * i + 1], batch ? batch[i] : 0);
    double x = 0, y = 0;
    for (int64_t c = lane; corners.is_inside() && c < map.channels; c += 32) {
      const T* place = values + corners.offset(map, 0) + c * map.channel_stride;
      const Slopes part = slopes(load(place[0]), load(place[map.row_stride]), load(place[map.column_stride]),
                                 load(place[map.row_stride + map.column_stride]), corners, load(gradients[i * map.channels + c]));
      x += part.x, y += part.y;
    }
    for (int offset = 16; offset > 0; offset /= 2) x += down_of_warp(x, offset), y += down_of_warp(y, offset);
    if (lane == 0) xy_gradient[2 * i] = static_cast<Real<T>>(x), xy_gradient[2 * i + 1] = static_cast<Real<T>>(y);
  }
}

/// The cell of each (point, corner) pair; points that read nothing get one behind the last.
template <class Number>
struct WriteCells {
  MapLayout map;
  const Number* xy;
  const int32_t* batch;
  uint32_t* cells;
  int32_t* pairs;
  __device__ void operator()(int64_t i) const {
    const int64_t point = i / 4;
    const auto corners = corners_of(map, xy[2 * point], xy[2 * point + 1], batch ? batch[point] : 0);
    cells[i] = static_cast<uint32_t>(corners.cell(map, static_cast<int>(i % 4)));
    pairs[i] = static_cast<int32_t>(i);
  }
};

/// One thread per sorted pair and channel; the first pair of a cell adds up all of them, in the order of the points.
template <class T>
struct SumOfCells {
  const T* gradients;
  MapLayout map;
  const Real<T>* xy;
  const int32_t* batch;
  int64_t num_pairs;
  const uint32_t* cells;
  const int32_t* pairs;
  T* map_gradient;
  __device__ void operator()(int64_t i) const {
    const int64_t first = i / map.channels, c = i - first * map.channels;
    const uint32_t cell = cells[first];
    if (cell >= map.cells() || (first > 0 && cells[first - 1] == cell)) return;
    Real<T> sum = 0;
    for (int64_t k = first; k < num_pairs && cells[k] == cell; ++k) {
      const int64_t point = pairs[k] / 4;
      const auto corners = corners_of(map, xy[2 * point], xy[2 * point + 1], batch ? batch[point] : 0);
      const Real<T> part = load(gradients[point * map.channels + c]) * corners.weight[pairs[k] % 4];
      sum = k == first ? part : sum + part;
      if (k + 1 == num_pairs || cells[k + 1] != cell) {
        store(sum, map_gradient + corners.offset(map, pairs[k] % 4) + c * map.channel_stride);
      }
    }
  }
};

}  // namespace

template <class T>
void gather_bilinear(const T* values, MAP_LAYOUT_ARGUMENTS, const Real<T>* xy, const int32_t* batch, int64_t num_points, T* out,
                     cudaStream_t stream) {
  for_each(num_points * channels, stream, GatherValues<T>{values, MAP_LAYOUT, xy, batch, out});
}

template <class T>
void gather_bilinear_gradient(const T* gradients, const T* values, MAP_LAYOUT_ARGUMENTS, const Real<T>* xy, const int32_t* batch,
                              int64_t num_points, T* map_gradient, GRADIENT_STRIDES_ARGUMENTS, Real<T>* xy_gradient, cudaStream_t stream) {
  const MapLayout map = MAP_LAYOUT, gradient_map = GRADIENT_LAYOUT;
  if (num_points <= 0) return;
  if (xy_gradient) {
    OPS_LAUNCH(slopes_kernel<T>, blocks_for(num_points * 32), kThreads, 0, stream, gradients, values, map, xy, batch, num_points,
               xy_gradient);
  }
  if (!map_gradient) return;
  const int64_t num_pairs = 4 * num_points;
  int bits = 0;
  for (int64_t cells = map.cells(); cells; cells >>= 1) ++bits;
  DeviceBuffer<uint32_t> unsorted(num_pairs, stream), cells(num_pairs, stream);
  DeviceBuffer<int32_t> pairs(num_pairs, stream), order(num_pairs, stream);
  for_each(num_pairs, stream, WriteCells<Real<T>>{map, xy, batch, unsorted.get(), pairs.get()});
  sort_pairs(unsorted.get(), cells.get(), pairs.get(), order.get(), num_pairs, std::max(bits, 1), stream);
  for_each(num_pairs * channels, stream,
           SumOfCells<T>{gradients, gradient_map, xy, batch, num_pairs, cells.get(), order.get(), map_gradient});
}

#define OPS_GATHER(T)                                                                                                                    \
  template void gather_bilinear<T>(const T*, MAP_LAYOUT_ARGUMENTS, const Real<T>*, const int32_t*, int64_t, T*, cudaStream_t);           \
  template void gather_bilinear_gradient<T>(const T*, const T*, MAP_LAYOUT_ARGUMENTS, const Real<T>*, const int32_t*, int64_t, T*,       \
                                            GRADIENT_STRIDES_ARGUMENTS, Real<T>*, cudaStream_t);
OPS_GATHER(float)
OPS_GATHER(double)
OPS_GATHER(Half)
OPS_GATHER(BFloat16)

}  // namespace ops::cuda
