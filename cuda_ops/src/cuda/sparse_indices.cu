// Sites and tables of sparse convolutions on the GPU. A bit for each cell of the batch says whether there is a site; with the number of bits
// before each word, the rank of a site among all of them is two loads from tables that mostly stay in the second-level cache. Ranks are the
// rows of outputs, in order without a sort, and lead to the rows of inputs in any order.
#include "sparse_indices.hpp"

#include "launch.cuh"
#include "ops.cuh"

namespace ops::cuda {
namespace {

using Word = unsigned long long;

struct CountBits {
  const Word* words;
  int32_t* counts;
  __device__ void operator()(int64_t i) const { counts[i] = __popcll(words[i]); }
};

/// Which cells are taken, as a kernel sees it.
struct SiteSet {
  const Word* words;
  const int32_t* upto;  // bits in the words up to and including this one

  /// How many sites lie before `cell`, or -1 where it is not one.
  __device__ int64_t rank(int64_t cell) const {
    const Word word = words[cell >> 6], bit = Word{1} << (cell & 63);
    return word & bit ? upto[cell >> 6] - __popcll(word & ~(bit - 1)) : -1;
  }
};

/// The memory behind a SiteSet.
class SiteBits {
 public:
  SiteBits(int64_t cells, cudaStream_t stream) : num_words_((cells + 63) / 64), words_(num_words_, stream), upto_(num_words_, stream) {
    OPS_CHECK(cudaMemsetAsync(words_.get(), 0, sizeof(Word) * static_cast<size_t>(num_words_), stream));
  }
  Word* words() const { return words_.get(); }
  int64_t num_words() const { return num_words_; }
  const int32_t* total() const { return upto_.get() + num_words_ - 1; }

  /// After all bits are set.
  SiteSet count(cudaStream_t stream) {
    DeviceBuffer<int32_t> counts(num_words_, stream);
    for_each(num_words_, stream, CountBits{words_.get(), counts.get()});
    inclusive_sum(counts.get(), upto_.get(), num_words_, stream);
    return {words_.get(), upto_.get()};
  }

 private:
  int64_t num_words_;
  DeviceBuffer<Word> words_;
  DeviceBuffer<int32_t> upto_;
};

__device__ __forceinline__ int64_t in_cell(const ConvGrid& grid, const Site& s) { return grid.in_line(s.batch, s.z, s.y) * grid.x.in + s.x; }

struct MarkOutputs {
  ConvGrid grid;
  const int32_t* coords;
  int64_t columns;
  Word* words;
  __device__ void operator()(int64_t i) const {
    const Site s = grid.site(coords + i * columns, columns);
    if (s.batch < 0) return;
    for (int64_t kz = 0; kz < grid.z.kernel; ++kz) {
      const int64_t z = grid.z.output(s.z, kz);
      for (int64_t ky = 0; z >= 0 && ky < grid.y.kernel; ++ky) {
        const int64_t y = grid.y.output(s.y, ky);
        for (int64_t kx = 0; y >= 0 && kx < grid.x.kernel; ++kx) {
          const int64_t x = grid.x.output(s.x, kx);
          if (x < 0) continue;
          const int64_t cell = grid.out_line(s.batch, z, y) * grid.x.out() + x;
          const Word bit = Word{1} << (cell & 63);
          if (!(words[cell >> 6] & bit)) atomicOr(words + (cell >> 6), bit);  // an old read only costs an atomic operation that was not needed
        }
      }
    }
  }
};

struct WriteCells {
  const Word* words;
  const int32_t* upto;
  int64_t capacity;
  int64_t* cells;
  __device__ void operator()(int64_t i) const {
    Word word = words[i];
    for (int64_t row = upto[i] - __popcll(word); word && row < capacity; ++row, word &= word - 1) cells[row] = i * 64 + __ffsll(word) - 1;
  }
};

struct CountOutputs {
  const int32_t* total;  // null: as many as the capacity
  int64_t capacity;
  int64_t* counters;
  __device__ void operator()(int64_t) const {
    const int64_t all = total ? *total : capacity, kept = all < capacity ? all : capacity;
    counters[kNumOutputs] = kept;
    counters[kNumOutputsOver] = all - kept;
  }
};

/// Sets the bits of the inputs and counts those outside, and those that are sites (repeated ones each time).
__global__ void mark_inputs_kernel(ConvGrid grid, const int32_t* coords, int64_t num, int64_t columns, Word* words, int64_t* num_outside,
                                   int64_t* num_sites) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  int64_t outside = 0, inside = 0;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < num; i += step) {
    const Site s = grid.site(coords + i * columns, columns);
    outside += s.batch == kNoSite;
    inside += s.batch >= 0;
    if (s.batch < 0) continue;
    const int64_t cell = in_cell(grid, s);
    atomicOr(words + (cell >> 6), Word{1} << (cell & 63));
  }
  add_of_warp(outside, num_outside);
  add_of_warp(inside, num_sites);
}

/// The lowest row at each site.
struct WriteRowOfRank {
  ConvGrid grid;
  const int32_t* coords;
  int64_t columns;
  SiteSet sites;
  int32_t* row_of_rank;
  __device__ void operator()(int64_t i) const {
    const Site s = grid.site(coords + i * columns, columns);
    if (s.batch >= 0) atomicMin(row_of_rank + sites.rank(in_cell(grid, s)), static_cast<int32_t>(i));
  }
};

struct CountDuplicates {
  const int32_t* total;
  const int64_t *num_sites, *num_outside;
  int64_t* counters;
  __device__ void operator()(int64_t) const {
    counters[kNumSitesOutside] = *num_outside;
    counters[kNumDuplicates] = *num_sites - *total;
  }
};

struct WriteCoords {
  ConvGrid grid;
  const int64_t *cells, *counters;
  int64_t columns;
  int32_t* coords;
  __device__ void operator()(int64_t i) const { grid.write_coords(i < counters[kNumOutputs] ? cells[i] : -1, columns, coords + i * columns); }
};

/// One thread for each output and taps (kz, ky, *) of it. coords: of the outputs, which are the inputs where is_submanifold.
struct FillTable {
  ConvGrid grid;
  const int32_t* coords;
  int64_t columns;
  bool is_submanifold;
  SiteSet sites;
  const int32_t* row_of_rank;
  int32_t* table;

  __device__ void operator()(int64_t i) const {
    const int64_t lines = int64_t{grid.z.kernel} * grid.y.kernel, output = i / lines;
    const int32_t line_of_taps = static_cast<int32_t>(i - output * lines), kz = line_of_taps / grid.y.kernel;
    const int32_t* row = coords + output * columns;
    const int64_t batch = columns == 4 ? row[0] : 0;
    const int32_t* zyx = row + (columns - 3);
    bool is_site = zyx[0] >= 0;
    if (is_submanifold) {
      const Site s = grid.site(row, columns);
      is_site = s.batch >= 0 && row_of_rank[sites.rank(in_cell(grid, s))] == output;
    }
    const int64_t z = is_site ? grid.z.input(zyx[0], kz) : -1, y = is_site ? grid.y.input(zyx[1], line_of_taps - kz * grid.y.kernel) : -1;
    for (int32_t kx = 0; kx < grid.x.kernel; ++kx) {
      const int64_t x = z >= 0 && y >= 0 ? grid.x.input(zyx[2], kx) : -1;
      const int64_t rank = x >= 0 ? sites.rank(grid.in_line(batch, z, y) * grid.x.in + x) : -1;
      table[i * grid.x.kernel + kx] = rank >= 0 ? row_of_rank[rank] : -1;
    }
  }
};

void expect_cells(int64_t cells) {
  if (cells >= int64_t{1} << 34) throw std::invalid_argument("sparse_indices: grid: expected fewer than 2^34 cells in the batch on a GPU");
}

}  // namespace

void sparse_outputs(const int32_t* coords, int64_t num, int64_t columns, CONV_GRID_ARGUMENTS, int64_t capacity, int64_t* cells,
                    int64_t* counters, cudaStream_t stream) {
  const ConvGrid grid = CONV_GRID;
  const int64_t num_cells = grid.out_lines() * grid.x.out();
  expect_cells(num_cells);
  SiteBits bits(num_cells, stream);
  for_each(num, stream, MarkOutputs{grid, coords, columns, bits.words()});
  const SiteSet outputs = bits.count(stream);
  for_each(bits.num_words(), stream, WriteCells{outputs.words, outputs.upto, capacity, cells});
  for_each(1, stream, CountOutputs{bits.total(), capacity, counters});
}

void sparse_table(const int32_t* coords, int64_t num, int64_t columns, CONV_GRID_ARGUMENTS, const int64_t* cells, int64_t num_outputs,
                  int32_t* out_coords, int32_t* table, int64_t* counters, cudaStream_t stream) {
  const ConvGrid grid = CONV_GRID;
  const int64_t num_cells = grid.in_lines() * grid.x.in;
  expect_cells(num_cells);
  SiteBits bits(num_cells, stream);
  DeviceBuffer<int64_t> counts(2, stream);
  DeviceBuffer<int32_t> row_of_rank(num, stream);
  OPS_CHECK(cudaMemsetAsync(counts.get(), 0, 2 * sizeof(int64_t), stream));
  if (num > 0x7f7f7f7f) throw std::invalid_argument("sparse_indices: coords: expected at most 2139062143 rows on a GPU");  // see the next line
  OPS_CHECK(cudaMemsetAsync(row_of_rank.get(), 0x7f, sizeof(int32_t) * static_cast<size_t>(std::max<int64_t>(num, 1)), stream));
  if (num > 0) {
    OPS_LAUNCH(mark_inputs_kernel, blocks_for(num), kThreads, 0, stream, grid, coords, num, columns, bits.words(), counts.get(),
               counts.get() + 1);
  }
  const SiteSet sites = bits.count(stream);
  for_each(num, stream, WriteRowOfRank{grid, coords, columns, sites, row_of_rank.get()});
  for_each(1, stream, CountDuplicates{bits.total(), counts.get() + 1, counts.get(), counters});
  if (cells) {
    for_each(num_outputs, stream, WriteCoords{grid, cells, counters, columns, out_coords});
  } else {
    for_each(1, stream, CountOutputs{nullptr, num_outputs, counters});
  }
  for_each(num_outputs * grid.z.kernel * grid.y.kernel, stream,
           FillTable{grid, cells ? out_coords : coords, columns, cells == nullptr, sites, row_of_rank.get(), table});
}

}  // namespace ops::cuda
