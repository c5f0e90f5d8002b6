// Bilinear samples of a map and their gradients on the CPU.
#include "gather.hpp"

#include <algorithm>
#include <vector>

#include "ops.hpp"
#include "parallel.hpp"
#include "sort.hpp"

namespace ops::cpu {
namespace {

template <class Number>
Corners<Number> corners_at(const MapLayout& map, const Number* xy, const int32_t* batch, int64_t i) {
  return corners_of(map, xy[2 * i], xy[2 * i + 1], batch ? batch[i] : 0);
}

/// Threads for points with so many channels each.
int threads_for_points(int64_t count, int64_t channels, int num_threads) {
  constexpr int64_t kValuesPerThread = 1 << 14;
  return threads_for(count * std::max<int64_t>(channels, 1), num_threads, kValuesPerThread);
}

/// One point after the other, where the channels of a cell lie side by side.
template <class T>
void gather_rows(const T* values, const MapLayout& map, const Real<T>* xy, const int32_t* batch, int64_t begin, int64_t end, T* out) {
  for (int64_t i = begin; i < end; ++i) {
    const auto corners = corners_at(map, xy, batch, i);
    T* row = out + i * map.channels;
    if (!corners.is_inside()) {
      for (int64_t c = 0; c < map.channels; ++c) store(Real<T>(0), row + c);
      continue;
    }
    const T *p0 = values + corners.offset(map, 0), *p1 = values + corners.offset(map, 1);
    const T *p2 = values + corners.offset(map, 2), *p3 = values + corners.offset(map, 3);
    for (int64_t c = 0; c < map.channels; ++c) store(blend(load(p0[c]), load(p1[c]), load(p2[c]), load(p3[c]), corners.weight), row + c);
  }
}

/// A few points that read something, as rows for vectors.
template <class Number>
struct Tile {
  static constexpr int64_t kPoints = 32;
  int64_t count = 0;
  int64_t place[kPoints], point[kPoints];
  Number weight[4][kPoints];

  void add(const MapLayout& map, const Corners<Number>& corners, int64_t i) {
    place[count] = corners.offset(map, 0), point[count] = i;
    for (int k = 0; k < 4; ++k) weight[k][count] = corners.weight[k];
    ++count;
  }
};

/// Tile by tile, in a tile channel by channel: each channel is a map of its own, far from the next.
template <class T>
void gather_planes(const T* values, const MapLayout& map, const Real<T>* xy, const int32_t* batch, int64_t begin, int64_t end, T* out) {
  using Number = Real<T>;
  Tile<Number> tile;
  Number blended[Tile<Number>::kPoints];
  for (int64_t first = begin; first < end; first += Tile<Number>::kPoints) {
    const int64_t last = std::min(first + Tile<Number>::kPoints, end);
    tile.count = 0;
    for (int64_t i = first; i < last; ++i) {
      const auto corners = corners_at(map, xy, batch, i);
      if (corners.is_inside()) {
        tile.add(map, corners, i);
      } else {
        for (int64_t c = 0; c < map.channels; ++c) store(Number(0), out + i * map.channels + c);
      }
    }
    for (int64_t c = 0; c < map.channels; ++c) {
      const T *p0 = values + c * map.channel_stride, *p1 = p0 + map.row_stride, *p2 = p0 + map.column_stride, *p3 = p1 + map.column_stride;
      for (int64_t i = 0; i < tile.count; ++i) {
        const int64_t place = tile.place[i];
        const Number weight[4] = {tile.weight[0][i], tile.weight[1][i], tile.weight[2][i], tile.weight[3][i]};
        blended[i] = blend(load(p0[place]), load(p1[place]), load(p2[place]), load(p3[place]), weight);
      }
      for (int64_t i = 0; i < tile.count; ++i) store(blended[i], out + tile.point[i] * map.channels + c);
    }
  }
}

/// The gradient of one point: the sum over the channels in the strands of a warp.
template <class T>
Slopes slopes_of_point(const T* values, const MapLayout& map, const Corners<Real<T>>& corners, const T* gradient) {
  double x[kStrands] = {}, y[kStrands] = {};
  if (!corners.is_inside()) return {0, 0};
  const T* place = values + corners.offset(map, 0);
  for (int64_t c = 0; c < map.channels; ++c, place += map.channel_stride) {
    const Slopes part = slopes(load(place[0]), load(place[map.row_stride]), load(place[map.column_stride]),
                               load(place[map.row_stride + map.column_stride]), corners, load(gradient[c]));
    x[c % kStrands] += part.x, y[c % kStrands] += part.y;
  }
  for (int half = kStrands / 2; half > 0; half /= 2) {
    for (int s = 0; s < half; ++s) x[s] += x[s + half], y[s] += y[s + half];
  }
  return {x[0], y[0]};
}

/// What each cell gets from the points round it, in the order of the points: the (point, corner) pairs sorted by cell. Cells that get
/// nothing are left alone.
template <class T>
void scatter_gradients(const T* gradients, const MapLayout& map, const Corners<Real<T>>* corners, int64_t count, T* map_gradient,
                       int num_threads) {
  const int threads = threads_for_points(count, map.channels, num_threads);
  int bits = 0;
  for (int64_t cells = map.cells(); cells; cells >>= 1) ++bits;
  StableSort sorted(4 * count);
  sorted.sort([&](int64_t i) { return static_cast<uint64_t>(corners[i / 4].cell(map, static_cast<int>(i % 4))); }, bits, threads);
  const auto cell_at = [&](int64_t i) { return static_cast<int64_t>(sorted.words()[i] >> 32); };
  parallel_ranges(4 * count, threads, [&](int, int64_t begin, int64_t end) {
    std::vector<Real<T>> sum(static_cast<std::size_t>(map.channels));
    while (begin > 0 && begin < end && cell_at(begin) == cell_at(begin - 1)) ++begin;  // the range before has it
    while (begin < end && cell_at(begin) < map.cells()) {
      const int64_t cell = cell_at(begin);
      T* place = nullptr;
      for (bool is_first = true; begin < 4 * count && cell_at(begin) == cell; ++begin, is_first = false) {
        const int64_t point = sorted.index(begin) / 4, corner = sorted.index(begin) % 4;
        const T* gradient = gradients + point * map.channels;
        const Real<T> weight = corners[point].weight[corner];
        if (is_first) {
          place = map_gradient + corners[point].offset(map, static_cast<int>(corner));
          for (int64_t c = 0; c < map.channels; ++c) sum[static_cast<std::size_t>(c)] = load(gradient[c]) * weight;
        } else {
          for (int64_t c = 0; c < map.channels; ++c) sum[static_cast<std::size_t>(c)] += load(gradient[c]) * weight;
        }
      }
      for (int64_t c = 0; c < map.channels; ++c) store(sum[static_cast<std::size_t>(c)], place + c * map.channel_stride);
    }
  });
}

}  // namespace

template <class T>
void gather_bilinear(const T* values, MAP_LAYOUT_ARGUMENTS, const Real<T>* xy, const int32_t* batch, int64_t num_points, T* out,
                     int num_threads) {
  const MapLayout map = MAP_LAYOUT;
  parallel_ranges(num_points, threads_for_points(num_points, channels, num_threads), [&](int, int64_t begin, int64_t end) {
    (channel_stride == 1 ? gather_rows<T> : gather_planes<T>)(values, map, xy, batch, begin, end, out);
  });
}

template <class T>
void gather_bilinear_gradient(const T* gradients, const T* values, MAP_LAYOUT_ARGUMENTS, const Real<T>* xy, const int32_t* batch,
                              int64_t num_points, T* map_gradient, GRADIENT_STRIDES_ARGUMENTS, Real<T>* xy_gradient, int num_threads) {
  const MapLayout map = MAP_LAYOUT, gradient_map = GRADIENT_LAYOUT;
  Buffer<Corners<Real<T>>> corners(num_points);
  parallel_ranges(num_points, threads_for_points(num_points, channels, num_threads), [&](int, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      corners[i] = corners_at(map, xy, batch, i);
      if (!xy_gradient) continue;
      const Slopes sum = slopes_of_point(values, map, corners[i], gradients + i * channels);
      xy_gradient[2 * i] = static_cast<Real<T>>(sum.x), xy_gradient[2 * i + 1] = static_cast<Real<T>>(sum.y);
    }
  });
  if (map_gradient) scatter_gradients(gradients, gradient_map, corners.get(), num_points, map_gradient, num_threads);
}

#define OPS_GATHER(T)                                                                                                                    \
  template void gather_bilinear<T>(const T*, MAP_LAYOUT_ARGUMENTS, const Real<T>*, const int32_t*, int64_t, T*, int);                    \
  template void gather_bilinear_gradient<T>(const T*, const T*, MAP_LAYOUT_ARGUMENTS, const Real<T>*, const int32_t*, int64_t, T*,       \
                                            GRADIENT_STRIDES_ARGUMENTS, Real<T>*, int);
OPS_GATHER(float)
OPS_GATHER(double)
OPS_GATHER(Half)
OPS_GATHER(BFloat16)

}  // namespace ops::cpu
