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

struct MakeSpans {
  const double* rows;
  Span* spans;
  __device__ void operator()(int64_t i) const { spans[i] = make_span(rows + 7 * i); }
};

/// All threads of a warp look at the same box at the same time, so that one load serves them all.
struct FindBoxes {
  const float* points;
  int64_t columns;
  const BevBox* boxes;
  const Span* spans;
  int64_t num_boxes;
  int32_t *index, *counts;
  __device__ void operator()(int64_t i) const {
    const double x = points[i * columns], y = points[i * columns + 1], z = points[i * columns + 2];
    int32_t first = -1;
    for (int64_t b = 0; b < num_boxes; ++b) {
      const double dx = x - boxes[b].x, dy = y - boxes[b].y, reach = search_reach(boxes[b].x, boxes[b].radius);
      if (!(fabs(dx) <= reach && fabs(dy) <= reach)) continue;
      if (!contains_point(boxes[b], spans[b], x, y, z)) continue;
      if (first < 0) first = static_cast<int32_t>(b);
      atomicAdd(counts + b, 1);
    }
    index[i] = first;
  }
};

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

void points_in_boxes(const float* points, int64_t num_points, int64_t columns, const double* boxes, int64_t num_boxes, int32_t* index,
                     int32_t* counts, cudaStream_t stream) {
  DeviceBuffer<BevBox> box(num_boxes, stream);
  DeviceBuffer<Span> span(num_boxes, stream);
  for_each(num_boxes, stream, MakeBevBoxes{boxes, 7, box.get()});
  for_each(num_boxes, stream, MakeSpans{boxes, span.get()});
  if (num_boxes > 0) OPS_CHECK(cudaMemsetAsync(counts, 0, sizeof(int32_t) * static_cast<size_t>(num_boxes), stream));
  for_each(num_points, stream, FindBoxes{points, columns, box.get(), span.get(), num_boxes, index, counts});
}

}  // namespace ops::cuda
