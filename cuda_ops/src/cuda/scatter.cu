// Rows reduced by voxel on the GPU: the stable sort of the CPU body, one thread per voxel and column.
#include "scatter.hpp"

#include "launch.cuh"
#include "ops.cuh"

namespace ops::cuda {
namespace {

/// Voxel of each row; rows left out get voxel `size`, which sorts last.
struct WriteScatterKeys {
  const int32_t* index;
  int64_t size;
  uint32_t* keys;
  int32_t* rows;
  __device__ void operator()(int64_t i) const {
    keys[i] = static_cast<uint32_t>(is_voxel(index[i], size) ? index[i] : size);
    rows[i] = static_cast<int32_t>(i);
  }
};

/// Where each voxel's rows begin among the sorted ones, by halving: the same work whether voxels are full or empty.
struct FindBegins {
  const uint32_t* keys;
  int64_t count;
  int32_t* begins;
  __device__ void operator()(int64_t voxel) const {
    int64_t low = 0, high = count;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (keys[middle] < voxel) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    begins[voxel] = static_cast<int32_t>(low);
  }
};

/// The rows of each voxel in their order.
struct RowsOfVoxels {
  DeviceBuffer<int32_t> rows, begins;

  RowsOfVoxels(const int32_t* index, int64_t count, int64_t size, cudaStream_t stream) : rows(count, stream), begins(size + 1, stream) {
    DeviceBuffer<uint32_t> unsorted(count, stream), keys(count, stream);
    DeviceBuffer<int32_t> unsorted_rows(count, stream);
    for_each(count, stream, WriteScatterKeys{index, size, unsorted.get(), unsorted_rows.get()});
    sort_pairs(unsorted.get(), keys.get(), unsorted_rows.get(), rows.get(), count, bits_of(static_cast<uint64_t>(size)), stream);
    for_each(size + 1, stream, FindBegins{keys.get(), count, begins.get()});
  }
};

template <class T>
struct MaxOfRows {
  const T* values;
  int64_t columns;
  const int32_t *rows, *begins;
  T* best;
  int32_t* argmax;
  __device__ void operator()(int64_t i) const {
    const int64_t voxel = i / columns, column = i - voxel * columns;
    const int32_t first = begins[voxel], stop = begins[voxel + 1];
    T largest = 0;
    int32_t at = -1;
    for (int32_t k = first; k < stop; ++k) {
      const int32_t row = rows[k];
      const T value = values[row * columns + column];
      const bool is_new = k == first || replaces(value, largest);
      largest = is_new ? value : largest;
      at = is_new ? row : at;
    }
    best[i] = largest;
    argmax[i] = at;
  }
};

/// Sums in the order of the rows, as on the CPU.
template <class T>
struct MeanOfRows {
  const T* values;
  int64_t columns;
  const int32_t *rows, *begins;
  T* mean;
  __device__ void operator()(int64_t i) const {
    const int64_t voxel = i / columns, column = i - voxel * columns;
    const int32_t first = begins[voxel], stop = begins[voxel + 1];
    T sum = first < stop ? values[rows[first] * columns + column] : T{0};
    for (int32_t k = first + 1; k < stop; ++k) sum += values[rows[k] * columns + column];
    mean[i] = stop - first > 1 ? mean_of(sum, stop - first) : sum;
  }
};

struct CountRows {
  const int32_t* begins;
  int32_t* counts;
  __device__ void operator()(int64_t voxel) const { counts[voxel] = begins[voxel + 1] - begins[voxel]; }
};

template <class T>
struct GradOfMax {
  const T* grad;
  int64_t size, columns;
  const int32_t *index, *argmax;
  T* grad_values;
  __device__ void operator()(int64_t i) const {
    const int64_t row = i / columns, column = i - row * columns;
    const int64_t from = index[row] * columns + column;
    grad_values[i] = is_voxel(index[row], size) ? grad_of_max(grad[from], argmax[from], static_cast<int32_t>(row)) : T{0};
  }
};

template <class T>
struct GradOfMean {
  const T* grad;
  int64_t size, columns;
  const int32_t *index, *counts;
  T* grad_values;
  __device__ void operator()(int64_t i) const {
    const int64_t row = i / columns, column = i - row * columns;
    const int32_t voxel = index[row];
    grad_values[i] = is_voxel(voxel, size) ? mean_of(grad[voxel * columns + column], counts[voxel]) : T{0};
  }
};

}  // namespace

template <class T>
void scatter_max(const T* values, int64_t num_rows, int64_t columns, const int32_t* index, int64_t size, T* best, int32_t* argmax,
                 cudaStream_t stream) {
  const RowsOfVoxels of(index, num_rows, size, stream);
  for_each(size * columns, stream, MaxOfRows<T>{values, columns, of.rows.get(), of.begins.get(), best, argmax});
}

template <class T>
void scatter_mean(const T* values, int64_t num_rows, int64_t columns, const int32_t* index, int64_t size, T* mean, int32_t* counts,
                  cudaStream_t stream) {
  const RowsOfVoxels of(index, num_rows, size, stream);
  for_each(size * columns, stream, MeanOfRows<T>{values, columns, of.rows.get(), of.begins.get(), mean});
  for_each(size, stream, CountRows{of.begins.get(), counts});
}

template <class T>
void scatter_max_grad(const T* grad, int64_t size, int64_t columns, const int32_t* index, int64_t num_rows, const int32_t* argmax,
                      T* grad_values, cudaStream_t stream) {
  for_each(num_rows * columns, stream, GradOfMax<T>{grad, size, columns, index, argmax, grad_values});
}

template <class T>
void scatter_mean_grad(const T* grad, int64_t size, int64_t columns, const int32_t* index, int64_t num_rows, const int32_t* counts,
                       T* grad_values, cudaStream_t stream) {
  for_each(num_rows * columns, stream, GradOfMean<T>{grad, size, columns, index, counts, grad_values});
}

#define OPS_INSTANCES(T)                                                                                                       \
  template void scatter_max(const T*, int64_t, int64_t, const int32_t*, int64_t, T*, int32_t*, cudaStream_t);                  \
  template void scatter_mean(const T*, int64_t, int64_t, const int32_t*, int64_t, T*, int32_t*, cudaStream_t);                 \
  template void scatter_max_grad(const T*, int64_t, int64_t, const int32_t*, int64_t, const int32_t*, T*, cudaStream_t);       \
  template void scatter_mean_grad(const T*, int64_t, int64_t, const int32_t*, int64_t, const int32_t*, T*, cudaStream_t);
OPS_INSTANCES(float)
OPS_INSTANCES(double)

}  // namespace ops::cuda
