// Transposed tables of sparse convolutions on the GPU.
#include "sparse_conv.hpp"

#include "launch.cuh"
#include "ops.cuh"

namespace ops::cuda {
namespace {

/// Each place is written once: a table has an input row at most once at an offset.
struct TransposeEntries {
  NeighbourTable table;
  int32_t* transposed;
  __device__ void operator()(int64_t i) const {
    const int64_t row = i / table.offsets, place = table.transposed_place(row, i - row * table.offsets);
    if (place >= 0) transposed[place] = static_cast<int32_t>(row);
  }
};

}  // namespace

void transpose_table(const int32_t* table, int64_t rows, int64_t offsets, int64_t num_others, int32_t* transposed, cudaStream_t stream) {
  const int64_t size = num_others * offsets;
  if (size > 0) OPS_CHECK(cudaMemsetAsync(transposed, 0xff, sizeof(int32_t) * static_cast<size_t>(size), stream));  // every entry -1
  for_each(rows * offsets, stream, TransposeEntries{{table, offsets, num_others}, transposed});
}

}  // namespace ops::cuda
