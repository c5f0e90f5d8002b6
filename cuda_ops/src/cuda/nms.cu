// Non-maximum suppression on the GPU. Items are put in the order of work: by group, then by score. For pieces of rows one kernel writes
// which later items of the group each row would drop (64 to a word), another walks through each group with one block. Nothing waits for the
// host.
#include "boxes.hpp"
#include "launch.cuh"
#include "ops.cuh"

namespace ops::cuda {
namespace {

constexpr int64_t kRowsOfPiece = 8192;         // rows whose bits are held at a time
constexpr int64_t kMostItems = 47 * 1024 * 8;  // as many bits as one block's shared memory holds without asking for more
constexpr int64_t kMostCompared = 16384;       // so many items are put in order by comparing all; more are sorted, in some 40 launches more

/// Bits whose ascending order is the descending order of the scores; NaN comes last.
__device__ uint64_t descending_bits(double score) {
  if (score != score) return ~uint64_t{0};
  const uint64_t bits = static_cast<uint64_t>(__double_as_longlong(score + 0.0));  // -0 and 0 are the same score
  return bits >> 63 ? bits : ~bits & ~(uint64_t{1} << 63);
}

/// The order of work. `begin` and `end` are of the item's group; an item without a score is not valid.
struct Order {
  int32_t *by_score, *rank_at, *begin, *end, *is_valid;  // by_score: rows by rank; the others in the order of work, rank_at as a rank
};

__device__ uint64_t group_key(const int64_t* group, int64_t i) { return group ? static_cast<uint64_t>(group[i]) : 0; }

/// before[i]: items with a better score (an equal one and a lower row), and in the upper half those of lower groups. within[i]: the same
/// among the items of its group, and in the upper half all items of its group. Every item is compared with every other one, kThreads of
/// them at a time; sums of integers, so that the order does not matter.
__global__ void __launch_bounds__(kThreads)
    compare_all_kernel(const double* scores, const int64_t* group, int64_t count, uint64_t* before, uint64_t* within) {
  __shared__ uint64_t keys[kThreads], groups[kThreads];
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const uint64_t key = i < count ? descending_bits(scores[i]) : 0, mine = i < count ? group_key(group, i) : 0;
  uint32_t num_better = 0, num_lower = 0, num_better_within = 0, num_within = 0;
  for (int64_t first = static_cast<int64_t>(blockIdx.y) * kThreads; first < count; first += static_cast<int64_t>(gridDim.y) * kThreads) {
    const int size = static_cast<int>(min(static_cast<int64_t>(kThreads), count - first));
    if (static_cast<int>(threadIdx.x) < size) {
      keys[threadIdx.x] = descending_bits(scores[first + threadIdx.x]);
      groups[threadIdx.x] = group_key(group, first + threadIdx.x);
    }
    __syncthreads();
    for (int k = 0; k < size; ++k) {
      const bool is_better = keys[k] < key || (keys[k] == key && first + k < i), is_within = groups[k] == mine;
      num_better += is_better;
      num_lower += groups[k] < mine;
      num_better_within += is_better && is_within;
      num_within += is_within;
    }
    __syncthreads();
  }
  if (i >= count) return;
  const auto add = [](uint64_t* place, uint32_t low, uint32_t high) {
    atomicAdd(reinterpret_cast<unsigned long long*>(place), static_cast<unsigned long long>(high) << 32 | low);
  };
  add(before + i, num_better, num_lower);
  add(within + i, num_better_within, num_within);
}

struct PlaceItems {
  const double* scores;
  const uint64_t *before, *within;
  Order order;
  __device__ void operator()(int64_t i) const {
    const int32_t rank = static_cast<int32_t>(before[i] & 0xffffffff), begin = static_cast<int32_t>(before[i] >> 32);
    const int32_t at = begin + static_cast<int32_t>(within[i] & 0xffffffff);
    order.by_score[rank] = static_cast<int32_t>(i);
    order.rank_at[at] = rank;
    order.begin[at] = begin;
    order.end[at] = begin + static_cast<int32_t>(within[i] >> 32);
    order.is_valid[at] = scores[i] == scores[i];
  }
};

struct WriteScoreKeys {
  const double* scores;
  uint64_t* keys;
  int32_t* rows;
  __device__ void operator()(int64_t i) const {
    keys[i] = descending_bits(scores[i]);
    rows[i] = static_cast<int32_t>(i);
  }
};

struct WriteGroupKeys {
  const int64_t* group;
  const int32_t* by_score;
  uint64_t* keys;
  int32_t* ranks;
  __device__ void operator()(int64_t rank) const {
    keys[rank] = group_key(group, by_score[rank]);
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
  int32_t* begins;
  __device__ void operator()(int64_t i) const {
    if (is_head[i]) begins[number[i] - 1] = static_cast<int32_t>(i);
    if (i == count - 1) begins[number[i]] = static_cast<int32_t>(count);
  }
};

struct WriteGroups {
  const int32_t *number, *begins;
  const double* scores;
  Order order;
  __device__ void operator()(int64_t at) const {
    order.begin[at] = begins[number[at] - 1];
    order.end[at] = begins[number[at]];
    const double score = scores[order.by_score[order.rank_at[at]]];
    order.is_valid[at] = score == score;
  }
};

void order_by_comparing(const double* scores, const int64_t* group, int64_t count, uint64_t* zeros, const Order& order,
                        cudaStream_t stream) {
  const unsigned tiles = static_cast<unsigned>((count + kThreads - 1) / kThreads);
  const dim3 blocks(tiles, std::clamp(1024 / tiles, 1u, tiles));
  OPS_LAUNCH(compare_all_kernel, blocks, kThreads, 0, stream, scores, group, count, zeros, zeros + count);
  for_each(count, stream, PlaceItems{scores, zeros, zeros + count, order});
}

void order_by_sorting(const double* scores, const int64_t* group, int64_t count, const Order& order, cudaStream_t stream) {
  DeviceBuffer<uint64_t> keys(count, stream), sorted_keys(count, stream);
  DeviceBuffer<int32_t> marks(count, stream), number(count, stream), begins(count + 1, stream);
  for_each(count, stream, WriteScoreKeys{scores, keys.get(), marks.get()});
  sort_pairs(keys.get(), sorted_keys.get(), marks.get(), order.by_score, count, 64, stream);
  for_each(count, stream, WriteGroupKeys{group, order.by_score, keys.get(), marks.get()});
  sort_pairs(keys.get(), sorted_keys.get(), marks.get(), order.rank_at, count, group ? 64 : 1, stream);
  for_each(count, stream, MarkGroupHeads{sorted_keys.get(), marks.get()});
  inclusive_sum(marks.get(), number.get(), count, stream);
  for_each(count, stream, WriteGroupBegins{marks.get(), number.get(), count, begins.get()});
  for_each(count, stream, WriteGroups{number.get(), begins.get(), scores, order});
}

/// An item as a circle: those whose circles stay apart do not drop each other.
struct Circle {
  double x, y, radius;
};

struct BevItems {
  SuppressByIou rule;
  const BevBox* boxes;  // in the order of work
  __device__ Circle circle(int64_t i) const { return {boxes[i].x, boxes[i].y, boxes[i].radius}; }
  __device__ bool may_drop(const Circle& a, const Circle& b) const {
    const double dx = a.x - b.x, dy = a.y - b.y, reach = a.radius + b.radius;
    return dx * dx + dy * dy < reach * reach;  // as intersection_area begins
  }
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
  __device__ Circle circle(int64_t i) const {
    const double* row = centers + by_score[rank_at[i]] * columns;
    return {row[0], row[1], 0};
  }
  __device__ bool may_drop(const Circle& a, const Circle& b) const { return rule(a.x, a.y, b.x, b.y); }
  __device__ bool drops(int64_t, int64_t) const { return true; }
};

/// bits[(i - first) * words + w], bit j: item i drops item 64 w + j, which comes later in its group. A block takes 64 rows and, of the
/// words from their own to the end of their last group, one in gridDim.x. Pairs that are near go to a queue first: the few that need the
/// long arithmetic are then shared by all threads, in place of each holding up its warp.
template <class Items>
__global__ void __launch_bounds__(kThreads) drop_bits_kernel(Items items, const int32_t* begins, const int32_t* ends, int64_t first,
                                                             int64_t last, int64_t count, int64_t words, uint64_t* bits) {
  __shared__ double row_x[64], row_y[64], row_radius[64], x[64], y[64], radius[64];
  __shared__ int32_t row_group[64], group[64];
  __shared__ unsigned long long drops[64];
  __shared__ uint16_t queue[64 * 64];
  __shared__ int32_t num_queued;
  const int me = static_cast<int>(threadIdx.x);
  const int64_t row_begin = first + static_cast<int64_t>(blockIdx.y) * 64, row_end = min(row_begin + 64, last), stop = ends[row_end - 1];
  if (me < 64) {
    const int64_t i = row_begin + me;
    const Circle circle = i < row_end ? items.circle(i) : Circle{0, 0, 0};
    row_x[me] = circle.x, row_y[me] = circle.y, row_radius[me] = circle.radius;
    row_group[me] = i < row_end ? begins[i] : -1;
  }
  for (int64_t word = row_begin / 64 + blockIdx.x; 64 * word < stop; word += gridDim.x) {
    if (me < 64) {
      const int64_t j = 64 * word + me;
      const Circle circle = j < count ? items.circle(j) : Circle{0, 0, 0};
      x[me] = circle.x, y[me] = circle.y, radius[me] = circle.radius;
      group[me] = j < count ? begins[j] : -2;
      drops[me] = 0;
    }
    if (me == 0) num_queued = 0;
    __syncthreads();
    for (int pair = me; pair < 64 * 64; pair += kThreads) {
      const int row = pair / 64, column = pair % 64;
      if (row_group[row] != group[column] || row_begin + row >= 64 * word + column) continue;
      if (!items.may_drop(Circle{row_x[row], row_y[row], row_radius[row]}, Circle{x[column], y[column], radius[column]})) continue;
      queue[atomicAdd(&num_queued, 1)] = static_cast<uint16_t>(pair);
    }
    __syncthreads();
    for (int k = me; k < num_queued; k += kThreads) {
      const int row = queue[k] / 64, column = queue[k] % 64;
      if (items.drops(row_begin + row, 64 * word + column)) atomicOr(&drops[row], 1ull << column);
    }
    __syncthreads();
    if (me < row_end - row_begin) bits[(row_begin + me - first) * words + word] = drops[me];
  }
}

/// Walk through the rows [first, last) of each group, one block per group; `dropped` carries the state from piece to piece.
__global__ void __launch_bounds__(kThreads)
    keep_best_kernel(const uint64_t* bits, Order order, int64_t first, int64_t last, int64_t count, int64_t words, int64_t max_out,
                     uint64_t* dropped, int32_t* num_kept_of_group, int32_t* is_kept) {
  OPS_DYNAMIC_SHARED(unsigned long long, gone);  // of the words of this group
  __shared__ uint64_t diagonal[64], kept_bits;
  __shared__ uint32_t valid[2];
  const int me = static_cast<int>(threadIdx.x);
  for (int64_t begin = blockIdx.x; begin < count; begin += gridDim.x) {  // all of this is the same for all threads of the block
    if (order.begin[begin] != begin) continue;                           // not the first of its group
    const int64_t end = order.end[begin], row_begin = max(begin, first), row_end = min(end, last);
    if (row_begin >= row_end) continue;
    const int64_t first_word = row_begin / 64, last_word = (end - 1) / 64;
    for (int64_t w = first_word + me; w <= last_word; w += kThreads) gone[w - first_word] = dropped[w];
    int64_t num_kept = me == 0 ? num_kept_of_group[begin] : 0;  // only the first thread counts
    for (int64_t word = first_word; word <= (row_end - 1) / 64; ++word) {
      if (me < 64) {  // two whole warps
        const int64_t i = 64 * word + me;
        const bool is_row = i >= row_begin && i < row_end;
        diagonal[me] = is_row ? bits[(i - first) * words + word] : 0;
        const unsigned votes = __ballot_sync(0xffffffffu, is_row && order.is_valid[i]);
        if (me % 32 == 0) valid[me / 32] = votes;
      }
      __syncthreads();
      if (me == 0) {
        uint64_t open = (static_cast<uint64_t>(valid[1]) << 32 | valid[0]) & ~gone[word - first_word], kept = 0;
        while (open != 0 && (max_out < 0 || num_kept < max_out)) {
          const int best = __ffsll(static_cast<long long>(open)) - 1;
          kept |= uint64_t{1} << best;
          open &= ~(diagonal[best] | uint64_t{1} << best);
          ++num_kept;
        }
        kept_bits = kept;
      }
      __syncthreads();
      if (me < 64 && (kept_bits >> me & 1)) is_kept[order.rank_at[64 * word + me]] = 1;
      // Every thread has a later word, and where there are fewer of those than threads, a share of the rows.
      const int later = static_cast<int>(last_word - word), shares = max(1, kThreads / max(later, 1));
      for (int task = me; task < later * shares; task += kThreads) {
        const int64_t w = word + 1 + task % later;
        unsigned long long more = 0;
        for (int bit = task / later; bit < 64; bit += shares) {
          if (kept_bits >> bit & 1) more |= bits[(64 * word + bit - first) * words + w];
        }
        if (more != 0) atomicOr(&gone[w - first_word], more);
      }
    }
    __syncthreads();
    if (row_end < end) {  // the next piece goes on; words at a group's border are shared with its neighbour, whose bits are added, not lost
      for (int64_t w = row_end / 64 + me; w <= last_word; w += kThreads) {
        atomicOr(reinterpret_cast<unsigned long long*>(dropped + w), gone[w - first_word]);
      }
    }
    if (me == 0) num_kept_of_group[begin] = static_cast<int32_t>(num_kept);
    // A block that comes here with rows left to do has no further group in this piece, so nobody writes into gone while others read it.
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

/// What both kinds share; make_items(order) gives the items in the order of work.
template <class MakeItems>
void keep_best(int64_t count, const double* scores, const int64_t* group, int64_t max_out, int64_t* keep, int64_t* num_kept,
               cudaStream_t stream, MakeItems&& make_items) {
  if (count == 0) return;
  if (count > kMostItems) {
    throw std::invalid_argument("nms: expected at most " + std::to_string(kMostItems) + " items on a GPU, got " + std::to_string(count));
  }
  const int64_t words = (count + 63) / 64, rows = std::min(count, kRowsOfPiece);
  const bool is_compared = count <= kMostCompared;
  // Few pieces of memory and one that starts as zeros, because each costs a node of a graph.
  const int64_t num_zeros = words + (is_compared ? 2 * count : 0) + count;
  DeviceBuffer<uint64_t> zeros(num_zeros, stream), bits(rows * words, stream);
  DeviceBuffer<int32_t> parts(6 * count, stream);
  OPS_CHECK(cudaMemsetAsync(zeros.get(), 0, sizeof(uint64_t) * static_cast<size_t>(num_zeros), stream));
  uint64_t* const dropped = zeros.get();
  int32_t *const num_kept_of_group = reinterpret_cast<int32_t*>(dropped + words), *const is_kept = num_kept_of_group + count;
  const auto part = [&](int64_t number) { return parts.get() + number * count; };
  const Order order{part(0), part(1), part(2), part(3), part(4)};
  int32_t* const place = part(5);
  if (is_compared) {
    order_by_comparing(scores, group, count, dropped + words + count, order, stream);
  } else {
    order_by_sorting(scores, group, count, order, stream);
  }
  const auto items = make_items(order);
  for (int64_t first = 0; first < count; first += kRowsOfPiece) {
    const int64_t last = std::min(first + kRowsOfPiece, count);
    const dim3 tiles(static_cast<unsigned>(std::min<int64_t>(words, 32)), static_cast<unsigned>((last - first + 63) / 64));
    OPS_LAUNCH(drop_bits_kernel, tiles, kThreads, 0, stream, items, order.begin, order.end, first, last, count, words, bits.get());
    const unsigned blocks = static_cast<unsigned>(group ? std::min<int64_t>(count, 1024) : 1);
    OPS_LAUNCH(keep_best_kernel, blocks, kThreads, sizeof(uint64_t) * static_cast<size_t>(words), stream, bits.get(), order, first, last,
               count, words, max_out, dropped, num_kept_of_group, is_kept);
  }
  inclusive_sum(is_kept, place, count, stream);
  for_each(count, stream, WriteKept{is_kept, place, order.by_score, count, keep, num_kept});
}

}  // namespace

void nms_bev(const double* boxes, int64_t num, int64_t columns, const double* scores, const int64_t* group, double iou_threshold,
             int64_t max_out, int64_t* keep, int64_t* num_kept, cudaStream_t stream) {
  DeviceBuffer<BevBox> sorted(num, stream);
  keep_best(num, scores, group, max_out, keep, num_kept, stream, [&](const Order& order) {
    for_each(num, stream, MakeSortedBoxes{boxes, columns, order.by_score, order.rank_at, sorted.get()});
    return BevItems{{iou_threshold}, sorted.get()};
  });
}

void nms_circle(const double* centers, int64_t num, int64_t columns, const double* scores, const int64_t* group, double,
                double squared_radius, int64_t max_out, int64_t* keep, int64_t* num_kept, cudaStream_t stream) {
  keep_best(num, scores, group, max_out, keep, num_kept, stream, [&](const Order& order) {
    return CircleItems{{squared_radius}, centers, columns, order.by_score, order.rank_at};
  });
}

}  // namespace ops::cuda
