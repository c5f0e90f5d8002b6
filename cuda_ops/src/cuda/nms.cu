// Non-maximum suppression on the GPU. Items are sorted by score, then by group; for pieces of rows one kernel writes which later items of
// the group each row would drop (64 to a word), another walks through each group with one block. Nothing waits for the host.
#include "boxes.hpp"
#include "launch.cuh"
#include "ops.cuh"

namespace ops::cuda {
namespace {

constexpr int64_t kRowsOfPiece = 8192;          // rows whose bits are held at a time
constexpr int64_t kMostItems = 47 * 1024 * 8;   // as many bits as one block's shared memory holds without asking for more

/// Bits whose ascending order is the descending order of the scores; NaN comes last.
__device__ uint64_t descending_bits(double score) {
  if (score != score) return ~uint64_t{0};
  const uint64_t bits = static_cast<uint64_t>(__double_as_longlong(score + 0.0));  // -0 and 0 are the same score
  return bits >> 63 ? bits : ~bits & ~(uint64_t{1} << 63);
}

struct WriteScoreKeys {
  const double* scores;
  uint64_t* keys;
  int32_t* rows;
  __device__ void operator()(int64_t i) const {
    keys[i] = descending_bits(scores[i]);
    rows[i] = static_cast<int32_t>(i);
  }
};

/// Groups in the order of the scores; what has no score becomes a group of its own behind all others, by its mark in is_valid.
struct WriteGroupKeys {
  const int64_t* group;
  const int32_t* by_score;
  uint64_t* keys;
  int32_t* ranks;
  __device__ void operator()(int64_t rank) const {
    keys[rank] = group ? static_cast<uint64_t>(group[by_score[rank]]) : 0;
    ranks[rank] = static_cast<int32_t>(rank);
  }
};

struct MarkGroupHeads {
  const uint64_t* keys;
  int32_t* is_head;
  __device__ void operator()(int64_t i) const { is_head[i] = i == 0 || keys[i] != keys[i - 1]; }
};

struct WriteGroupBegins {
  const int32_t *is_head, *number;  // number: groups up to and including this item
  int64_t count;
  int32_t *begins, *num_groups;
  __device__ void operator()(int64_t i) const {
    if (is_head[i]) begins[number[i] - 1] = static_cast<int32_t>(i);
    if (i == count - 1) {
      begins[number[i]] = static_cast<int32_t>(count);
      *num_groups = number[i];
    }
  }
};

struct BevItems {
  SuppressByIou rule;
  BevBox* boxes;  // in the order of work: by group, then by score
  __device__ bool drops(int64_t kept, int64_t later) const { return rule(boxes[kept], boxes[later]); }
};

struct MakeSortedBoxes {
  const double* rows;
  int64_t columns;
  const int32_t *by_score, *rank_at;
  BevBox* boxes;
  __device__ void operator()(int64_t i) const { boxes[i] = make_bev_box(rows + by_score[rank_at[i]] * columns, columns); }
};

struct CircleItems {
  SuppressByDistance rule;
  const double* centers;
  int64_t columns;
  const int32_t *by_score, *rank_at;
  __device__ const double* row(int64_t i) const { return centers + by_score[rank_at[i]] * columns; }
  __device__ bool drops(int64_t kept, int64_t later) const { return rule(row(kept)[0], row(kept)[1], row(later)[0], row(later)[1]); }
};

/// bits[(i - first) * words + w], bit j: item i drops item 64 w + j, which comes later in its group. One block per 64 x 64 items.
template <class Items>
__global__ void drop_bits_kernel(Items items, const int32_t* number, int64_t first, int64_t last, int64_t count, int64_t words,
                                 uint64_t* bits) {
  const int64_t word = blockIdx.x, i = first + static_cast<int64_t>(blockIdx.y) * 64 + threadIdx.x;
  const int64_t row_begin = first + static_cast<int64_t>(blockIdx.y) * 64, row_end = min(row_begin + 64, last);
  if (64 * word + 63 < row_begin || 64 * word >= count) return;      // only earlier items: never read
  if (number[row_end - 1] < number[min(64 * word, count - 1)]) {     // only later groups: read by none of these rows' groups
    return;
  }
  if (i >= last) return;
  uint64_t mine = 0;
  for (int64_t j = max(64 * word, i + 1); j < min(64 * word + 64, count) && number[j] <= number[i]; ++j) {
    if (items.drops(i, j)) mine |= uint64_t{1} << (j & 63);
  }
  bits[(i - first) * words + word] = mine;
}

/// Walk through the rows [first, last) of each group, one block per group; `dropped` carries the state from piece to piece.
__global__ void keep_best_kernel(const uint64_t* bits, const int32_t* begins, const int32_t* num_groups, const int32_t* rank_at,
                                 const uint64_t* score_keys, int64_t first, int64_t last, int64_t words, int64_t max_out,
                                 uint64_t* dropped, int64_t* num_kept_of_group, int32_t* is_kept) {
  OPS_DYNAMIC_SHARED(uint64_t, gone);  // of the words of this group
  __shared__ uint64_t diagonal[64], kept_bits;
  __shared__ int64_t num_kept;
  for (int32_t group = blockIdx.x; group < *num_groups; group += gridDim.x) {
    const int64_t begin = begins[group], end = begins[group + 1];
    const int64_t row_begin = max(begin, first), row_end = min(end, last);
    if (row_begin >= row_end) continue;  // the same for all threads
    const int64_t first_word = row_begin / 64, last_word = (end - 1) / 64;
    for (int64_t w = first_word + threadIdx.x; w <= last_word; w += blockDim.x) gone[w - first_word] = dropped[w];
    if (threadIdx.x == 0) num_kept = num_kept_of_group[group];
    __syncthreads();
    for (int64_t word = first_word; word <= (row_end - 1) / 64; ++word) {
      const int64_t from = max(64 * word, row_begin), to = min(64 * word + 64, row_end);
      for (int64_t i = from + threadIdx.x; i < to; i += blockDim.x) diagonal[i & 63] = bits[(i - first) * words + word];
      __syncthreads();
      if (threadIdx.x == 0) {
        uint64_t here = gone[word - first_word], kept = 0;
        for (int64_t i = from; i < to && (max_out < 0 || num_kept < max_out); ++i) {
          if (here >> (i & 63) & 1 || score_keys[rank_at[i]] == ~uint64_t{0}) continue;  // dropped, or without a score
          kept |= uint64_t{1} << (i & 63);
          here |= diagonal[i & 63];
          is_kept[rank_at[i]] = 1;
          ++num_kept;
        }
        kept_bits = kept;
      }
      __syncthreads();
      for (int64_t w = word + 1 + threadIdx.x; w <= last_word; w += blockDim.x) {
        uint64_t more = 0;
        for (int64_t i = from; i < to; ++i) {
          if (kept_bits >> (i & 63) & 1) more |= bits[(i - first) * words + w];
        }
        gone[w - first_word] |= more;
      }
      __syncthreads();
    }
    if (row_end < end) {  // the next piece goes on; words at a group's border are shared with its neighbour, whose bits are added, not lost
      for (int64_t w = row_end / 64 + threadIdx.x; w <= last_word; w += blockDim.x) {
        atomicOr(reinterpret_cast<unsigned long long*>(dropped + w), static_cast<unsigned long long>(gone[w - first_word]));
      }
    }
    if (threadIdx.x == 0) num_kept_of_group[group] = num_kept;
    __syncthreads();
  }
}

struct WriteKept {
  const int32_t *is_kept, *place, *by_score;
  int64_t count;
  int64_t *keep, *num_kept;
  __device__ void operator()(int64_t rank) const {
    if (is_kept[rank]) keep[place[rank] - 1] = by_score[rank];
    if (rank == count - 1) *num_kept = place[rank];
  }
};

/// What both kinds share; make_items(by_score, rank_at) gives the items in the order of work.
template <class MakeItems>
void keep_best(int64_t count, const double* scores, const int64_t* group, int64_t max_out, int64_t* keep, int64_t* num_kept,
               cudaStream_t stream, MakeItems&& make_items) {
  if (count == 0) return;
  if (count > kMostItems) throw std::runtime_error("nms: expected at most " + std::to_string(kMostItems) + " items on a GPU, got " + std::to_string(count));
  DeviceBuffer<uint64_t> score_keys(count, stream), group_keys(count, stream), spare(count, stream);
  DeviceBuffer<int32_t> by_score(count, stream), rank_at(count, stream), number(count, stream), marks(count, stream);
  DeviceBuffer<int32_t> begins(count + 1, stream), num_groups(1, stream), is_kept(count, stream);
  for_each(count, stream, WriteScoreKeys{scores, spare.get(), marks.get()});
  sort_pairs(spare.get(), score_keys.get(), marks.get(), by_score.get(), count, 64, stream);
  for_each(count, stream, WriteGroupKeys{group, by_score.get(), spare.get(), marks.get()});
  sort_pairs(spare.get(), group_keys.get(), marks.get(), rank_at.get(), count, group ? 64 : 1, stream);
  for_each(count, stream, MarkGroupHeads{group_keys.get(), marks.get()});
  inclusive_sum(marks.get(), number.get(), count, stream);
  for_each(count, stream, WriteGroupBegins{marks.get(), number.get(), count, begins.get(), num_groups.get()});
  const auto items = make_items(by_score.get(), rank_at.get());

  const int64_t words = (count + 63) / 64, rows = std::min(count, kRowsOfPiece);
  DeviceBuffer<uint64_t> bits(rows * words, stream), dropped(words, stream);
  DeviceBuffer<int64_t> num_kept_of_group(count, stream);
  OPS_CHECK(cudaMemsetAsync(dropped.get(), 0, sizeof(uint64_t) * static_cast<size_t>(words), stream));
  OPS_CHECK(cudaMemsetAsync(num_kept_of_group.get(), 0, sizeof(int64_t) * static_cast<size_t>(count), stream));
  OPS_CHECK(cudaMemsetAsync(is_kept.get(), 0, sizeof(int32_t) * static_cast<size_t>(count), stream));
  for (int64_t first = 0; first < count; first += kRowsOfPiece) {
    const int64_t last = std::min(first + kRowsOfPiece, count);
    const dim3 tiles(static_cast<unsigned>(words), static_cast<unsigned>((last - first + 63) / 64));
    OPS_LAUNCH(drop_bits_kernel, tiles, 64, 0, stream, items, number.get(), first, last, count, words, bits.get());
    const unsigned blocks = static_cast<unsigned>(group ? std::min<int64_t>(count, 1024) : 1);
    OPS_LAUNCH(keep_best_kernel, blocks, kThreads, sizeof(uint64_t) * static_cast<size_t>(words), stream, bits.get(), begins.get(),
               num_groups.get(), rank_at.get(), score_keys.get(), first, last, words, max_out, dropped.get(), num_kept_of_group.get(),
               is_kept.get());
  }
  inclusive_sum(is_kept.get(), number.get(), count, stream);
  for_each(count, stream, WriteKept{is_kept.get(), number.get(), by_score.get(), count, keep, num_kept});
}

}  // namespace

void nms_bev(const double* boxes, int64_t num, int64_t columns, const double* scores, const int64_t* group, double iou_threshold,
             int64_t max_out, int64_t* keep, int64_t* num_kept, cudaStream_t stream) {
  DeviceBuffer<BevBox> sorted(num, stream);
  keep_best(num, scores, group, max_out, keep, num_kept, stream, [&](const int32_t* by_score, const int32_t* rank_at) {
    for_each(num, stream, MakeSortedBoxes{boxes, columns, by_score, rank_at, sorted.get()});
    return BevItems{{iou_threshold}, sorted.get()};
  });
}

void nms_circle(const double* centers, int64_t num, int64_t columns, const double* scores, const int64_t* group, double,
                double squared_radius, int64_t max_out, int64_t* keep, int64_t* num_kept, cudaStream_t stream) {
  keep_best(num, scores, group, max_out, keep, num_kept, stream, [&](const int32_t* by_score, const int32_t* rank_at) {
    return CircleItems{{squared_radius}, centers, columns, by_score, rank_at};
  });
}

}  // namespace ops::cuda
