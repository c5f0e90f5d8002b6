// Overlaps of boxes and points in boxes on the GPU: the header's arithmetic, one thread per pair or per point.
#include "boxes.hpp"

#include "launch.cuh"
#include "ops.cuh"

namespace ops::cuda {
namespace {

struct MakeBevBoxes {
  const double* rows;
  int64_t columns;
  BevBox* boxes;
  __device__ void operator()(int64_t i) const { boxes[i] = make_bev_box(rows + i * columns, columns); }
};

struct IouOfPairs {
  const BevBox *a, *b;
  int64_t num_b;
  double* iou;
  __device__ void operator()(int64_t i) const { iou[i] = ops::iou_bev(a[i / num_b], b[i % num_b]); }
};

struct IouOfVolumes {
  const BevBox *a, *b;
  const double *rows_a, *rows_b;
  int64_t num_b;
  double* iou;
  __device__ void operator()(int64_t i) const {
    const int64_t ia = i / num_b, ib = i % num_b;
    iou[i] = ops::iou_3d(a[ia], make_span(rows_a + 7 * ia), b[ib], make_span(rows_b + 7 * ib));
  }
};

/// What a point is compared with first: a rectangle along the axes round the box, in float with room for its rounding.
struct alignas(16) Reach {
  float x, y, along_x, along_y;
};

/// A middle is off by at most 6e-8 of it in float, and what is worked out from it by as much of that; the rest is for numbers next to 0.
__device__ float reach_of(double center, double extent) {
  if (!(fabs(center) + extent < 1e37)) return HUGE_VALF;  // near the end of float's range only the exact test counts
  return static_cast<float>(extent * (1 + 1e-6) + fabs(center) * 1e-6 + 1e-37);
}

struct MakeSearchBoxes {
  const double* rows;
  BevBox* boxes;
  Span* spans;
  Reach* reaches;
  int32_t* counts;
  __device__ void operator()(int64_t i) const {
    const BevBox box = make_bev_box(rows + 7 * i, 7);
    boxes[i] = box;
    spans[i] = make_span(rows + 7 * i);
    const bool is_box = box.area > 0;
    reaches[i] = {static_cast<float>(box.x), static_cast<float>(box.y), is_box ? reach_of(box.x, box.extent_x()) : -1.0f,
                  is_box ? reach_of(box.y, box.extent_y()) : -1.0f};
    counts[i] = 0;
  }
};

/// One thread per point. The block looks at as many boxes at a time as it has threads, brings in the rectangles of those whose group lies
/// between the lowest and the highest of its points, in any order, and goes through them; few points get to the exact test.
__global__ void __launch_bounds__(kThreads)
    find_boxes_kernel(const float* points, int64_t num_points, int64_t columns, const int32_t* point_group, const BevBox* boxes,
                      const Span* spans, const Reach* reaches, const int32_t* box_group, int64_t num_boxes, int32_t* index,
                      int32_t* counts) {
  __shared__ Reach reach[kThreads];
  __shared__ int32_t number[kThreads], group_of[kThreads], found[kThreads];
  __shared__ int32_t lowest, highest, count;
  const int me = static_cast<int>(threadIdx.x);
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + me;
  const bool is_point = i < num_points;  // the others help with the rectangles, as a point that is in no box
  const float x = is_point ? points[i * columns] : NAN, y = is_point ? points[i * columns + 1] : NAN;
  const float z = is_point ? points[i * columns + 2] : NAN;
  const int32_t group = !is_point ? -1 : point_group != nullptr ? point_group[i] : 0;
  if (me == 0) lowest = INT32_MAX, highest = -1;
  __syncthreads();
  if (group >= 0) {
    atomicMin(&lowest, group);
    atomicMax(&highest, group);
  }
  int32_t first = -1;
  for (int64_t begin = 0; begin < num_boxes; begin += kThreads) {
    if (me == 0) count = 0;
    __syncthreads();
    if (begin + me < num_boxes) {
      const int32_t its_group = box_group != nullptr ? box_group[begin + me] : 0;
      if (its_group >= lowest && its_group <= highest) {
        const int place = atomicAdd(&count, 1);
        reach[place] = reaches[begin + me];
        number[place] = static_cast<int32_t>(begin + me);
        group_of[place] = its_group;
        found[place] = 0;
      }
    }
    __syncthreads();
    const int num_near = count;
    for (int b = 0; b < num_near; ++b) {
      const Reach near = reach[b];
      if (!(fabsf(x - near.x) <= near.along_x && fabsf(y - near.y) <= near.along_y && group == group_of[b])) continue;
      const int32_t box = number[b];
      if (!contains_point(boxes[box], spans[box], x, y, z)) continue;
      first = first < 0 ? box : min(first, box);
      atomicAdd(&found[b], 1);
    }
    __syncthreads();
    if (me < num_near && found[me] != 0) atomicAdd(counts + number[me], found[me]);  // integers: the order does not matter
  }
  if (is_point) index[i] = first;
}

}  // namespace

void iou_bev(const double* boxes_a, int64_t num_a, int64_t columns_a, const double* boxes_b, int64_t num_b, int64_t columns_b, double* iou,
             cudaStream_t stream) {
  DeviceBuffer<BevBox> a(num_a, stream), b(num_b, stream);
  for_each(num_a, stream, MakeBevBoxes{boxes_a, columns_a, a.get()});
  for_each(num_b, stream, MakeBevBoxes{boxes_b, columns_b, b.get()});
  for_each(num_a * num_b, stream, IouOfPairs{a.get(), b.get(), num_b, iou});
}

void iou_3d(const double* boxes_a, int64_t num_a, const double* boxes_b, int64_t num_b, double* iou, cudaStream_t stream) {
  DeviceBuffer<BevBox> a(num_a, stream), b(num_b, stream);
  for_each(num_a, stream, MakeBevBoxes{boxes_a, 7, a.get()});
  for_each(num_b, stream, MakeBevBoxes{boxes_b, 7, b.get()});
  for_each(num_a * num_b, stream, IouOfVolumes{a.get(), b.get(), boxes_a, boxes_b, num_b, iou});
}

void points_in_boxes(const float* points, int64_t num_points, int64_t columns, const int32_t* point_group, const double* boxes,
                     int64_t num_boxes, const int32_t* box_group, int32_t* index, int32_t* counts, cudaStream_t stream) {
  DeviceBuffer<BevBox> box(num_boxes, stream);
  DeviceBuffer<Span> span(num_boxes, stream);
  DeviceBuffer<Reach> reach(num_boxes, stream);
  for_each(num_boxes, stream, MakeSearchBoxes{boxes, box.get(), span.get(), reach.get(), counts});
  if (num_points == 0) return;
  const unsigned blocks = static_cast<unsigned>((num_points + kThreads - 1) / kThreads);  // not blocks_for: kernels with barriers do not stride
  OPS_LAUNCH(find_boxes_kernel, blocks, kThreads, 0, stream, points, num_points, columns, point_group, box.get(), span.get(), reach.get(),
             box_group, num_boxes, index, counts);
}

}  // namespace ops::cuda
