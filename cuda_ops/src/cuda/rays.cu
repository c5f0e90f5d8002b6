// First hits of rays on the GPU. One thread per ray looks at the bounding box of every primitive, in float, and tests those that its ray may
// meet, in double. There is no grid to build: a look costs 45 instructions, so 34,688 rays and 1,001 primitives (1,084 warps) take
// 1,084 x 1,001 x 45 = 49 million warp instructions, 0.05 ms of an H100's 528 schedulers at 1.7 GHz. All rays look at the same box at the
// same time, so that one load from the first cache serves a warp. Of a street's 1,001 primitives a warp tests 7 to 18.
#include "rays.hpp"

#include "launch.cuh"
#include "ops.cuh"

namespace ops::cuda {
namespace {

constexpr int64_t kChunk = 1024;  // heights whose extent is worked out once, whatever the number of fields that they belong to

/// What all threads of a block have found; the same for each of them.
__device__ HeightExtent extent_of_block(const HeightExtent& mine) {
  __shared__ HeightExtent found[kThreads];
  found[threadIdx.x] = mine;
  __syncthreads();
  for (unsigned half = kThreads / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) found[threadIdx.x].add(found[threadIdx.x + half]);
    __syncthreads();
  }
  const HeightExtent all = found[0];
  __syncthreads();  // before the next call writes
  return all;
}

/// chunks[c]: of the heights [c kChunk, (c + 1) kChunk). One block per chunk.
__global__ void extents_of_chunks_kernel(const float* heights, int64_t count, HeightExtent* chunks) {
  for (int64_t chunk = blockIdx.x; chunk * kChunk < count; chunk += gridDim.x) {
    HeightExtent extent = HeightExtent::none();
    const int64_t end = min(count, (chunk + 1) * kChunk);
    for (int64_t k = chunk * kChunk + threadIdx.x; k < end; k += blockDim.x) extent.add(heights[k]);
    extent = extent_of_block(extent);
    if (threadIdx.x == 0) chunks[chunk] = extent;
  }
}

/// extents[i] of each height field i: from whole chunks, and from the heights before and behind them. One block per primitive.
__global__ void extents_of_fields_kernel(PrimitiveTable table, int64_t num_primitives, const HeightExtent* chunks, HeightExtent* extents) {
  for (int64_t i = blockIdx.x; i < num_primitives; i += gridDim.x) {
    if (!has_heights(table, i)) continue;  // the same for all threads
    const int64_t begin = table.field[3 * i], end = begin + table.field[3 * i + 1] * table.field[3 * i + 2];
    const int64_t first_chunk = (begin + kChunk - 1) / kChunk, last_chunk = end / kChunk;
    const int64_t head_end = min(first_chunk * kChunk, end), tail_begin = max(last_chunk * kChunk, head_end);
    HeightExtent extent = HeightExtent::none();
    for (int64_t k = begin + threadIdx.x; k < head_end; k += blockDim.x) extent.add(table.heights[k]);
    for (int64_t c = first_chunk + threadIdx.x; c < last_chunk; c += blockDim.x) extent.add(chunks[c]);
    for (int64_t k = tail_begin + threadIdx.x; k < end; k += blockDim.x) extent.add(table.heights[k]);
    extent = extent_of_block(extent);
    if (threadIdx.x == 0) extents[i] = extent;
  }
}

struct MakePrimitives {
  PrimitiveTable table;
  const HeightExtent* extents;
  Primitive* primitives;
  Bounds* bounds;
  __device__ void operator()(int64_t i) const {
    primitives[i] = make_primitive(table, i, extents[i]);
    bounds[i] = bounds_of(primitives[i]);
  }
};

struct CastRays {
  const float *origins, *directions;
  const Primitive* primitives;
  const Bounds* bounds;
  int64_t num_primitives;
  RayLimits all_limits;
  const float* farthest_of_ray;
  bool culled;
  float *distance, *normals;
  int32_t* primitive;
  __device__ void operator()(int64_t i) const {
    const Ray ray = make_ray(origins + 3 * i, directions + 3 * i);
    const RayLimits limits = all_limits.of_ray(farthest_of_ray, i);
    FirstHit hit;
    if (ray.is_ray) {
      const Sight sight(ray);
      float farthest = static_cast<float>(hit.limit(limits));
      for (int64_t k = 0; k < num_primitives; ++k) {
        if (culled && !sight.may_meet(bounds[k], limits.min_range, farthest)) continue;
        hit.offer(primitives[k], k, ray, i, limits);
        farthest = static_cast<float>(hit.limit(limits));
      }
    }
    write_hit(primitives, ray, hit, i, distance, normals, primitive);
  }
};

}  // namespace

void ray_tree(const int32_t* /*kind*/, const float* /*center*/, const float* /*size*/, const float* /*yaw*/, const float* /*taper*/,
              const float* /*normal*/, const float* /*pass_chance*/, const float* /*extinction*/, const int64_t* /*field*/,
              int64_t num_primitives, const float* /*heights*/, int64_t /*num_heights*/, int32_t* tree, cudaStream_t stream) {
  OPS_CHECK(cudaMemsetAsync(tree, 0, sizeof(int32_t) * static_cast<size_t>(4 + 32 * num_primitives), stream));
}

void cast_rays(const float* origins, const float* directions, int64_t num_rays, const int32_t* kind, const float* center, const float* size,
               const float* yaw, const float* taper, const float* normal, const float* pass_chance, const float* extinction,
               const int64_t* field, int64_t num_primitives, const float* heights, int64_t num_heights, const int32_t* /*tree*/,
               const float* farthest, int64_t seed, double min_range, double max_range, bool culled, float* distance, float* normals,
               int32_t* primitive, cudaStream_t stream) {
  if (num_rays == 0) return;
  const PrimitiveTable table{kind, center, size, yaw, taper, normal, pass_chance, extinction, field, heights, num_heights};
  const int64_t num_chunks = (num_heights + kChunk - 1) / kChunk;
  DeviceBuffer<HeightExtent> chunks(num_chunks, stream), extents(num_primitives, stream);
  DeviceBuffer<Primitive> primitives(num_primitives, stream);
  DeviceBuffer<Bounds> bounds(num_primitives, stream);
  if (num_heights > 0 && num_primitives > 0) {
    const auto blocks = [](int64_t count) { return static_cast<unsigned>(std::min<int64_t>(count, 65535)); };
    OPS_LAUNCH(extents_of_chunks_kernel, blocks(num_chunks), kThreads, 0, stream, heights, num_heights, chunks.get());
    OPS_LAUNCH(extents_of_fields_kernel, blocks(num_primitives), kThreads, 0, stream, table, num_primitives, chunks.get(), extents.get());
  }
  for_each(num_primitives, stream, MakePrimitives{table, extents.get(), primitives.get(), bounds.get()});
  const RayLimits limits{static_cast<uint64_t>(seed), static_cast<float>(min_range), static_cast<float>(max_range)};
  for_each(num_rays, stream, CastRays{origins, directions, primitives.get(), bounds.get(), num_primitives, limits, farthest, culled,
                                      distance, normals, primitive});
}

}  // namespace ops::cuda
