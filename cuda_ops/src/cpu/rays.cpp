// First hits of rays on the CPU: rays go through a tree of boxes, nearer ones first, and leave out what begins behind the best hit so far.
#include "rays.hpp"

#include <algorithm>

#include "ops.hpp"
#include "parallel.hpp"
#include "rays_tree.hpp"

namespace ops::cpu {
namespace {

HeightExtent extent_of_heights(const PrimitiveTable& table, int64_t i) {
  HeightExtent extent = HeightExtent::none();
  if (!has_heights(table, i)) return extent;
  const float* heights = table.heights + table.field[3 * i];
  for (int64_t k = 0, count = table.field[3 * i + 1] * table.field[3 * i + 2]; k < count; ++k) extent.add(heights[k]);
  return extent;
}

/// Into memory for as many primitives.
void make_primitives(const PrimitiveTable& table, int64_t count, const HeightExtent* extents, Primitive* primitives) {
  for (int64_t i = 0; i < count; ++i) primitives[i] = make_primitive(table, i, extents ? extents[i] : extent_of_heights(table, i));
}

}  // namespace

void ray_tree(const int32_t* kind, const float* center, const float* size, const float* yaw, const float* taper, const float* normal,
              const float* pass_chance, const float* extinction, const int64_t* field, int64_t num_primitives, const float* heights,
              int64_t num_heights, int32_t* tree, int /*num_threads*/) {
  const PrimitiveTable table{kind, center, size, yaw, taper, normal, pass_chance, extinction, field, heights, num_heights};
  std::fill_n(tree, TreeTable::kHeader + TreeTable::kWordsEach * num_primitives, 0);
  const TreeTable made{tree, num_primitives};
  for (int64_t i = 0; i < num_primitives; ++i) made.extents()[i] = extent_of_heights(table, i);
  Buffer<Primitive> primitives(num_primitives);
  make_primitives(table, num_primitives, made.extents(), primitives.get());
  TreeBuilder(made, primitives.get());
}

void cast_rays(const float* origins, const float* directions, int64_t num_rays, const int32_t* kind, const float* center, const float* size,
               const float* yaw, const float* taper, const float* normal, const float* pass_chance, const float* extinction,
               const int64_t* field, int64_t num_primitives, const float* heights, int64_t num_heights, const int32_t* tree,
               const float* farthest, int64_t seed, double min_range, double max_range, bool culled, float* distance, float* normals,
               int32_t* primitive, int num_threads) {
  constexpr int64_t kRaysPerPiece = 512;
  const PrimitiveTable table{kind, center, size, yaw, taper, normal, pass_chance, extinction, field, heights, num_heights};
  Buffer<int32_t> own(tree ? 0 : TreeTable::kHeader + TreeTable::kWordsEach * num_primitives);
  const TreeTable words{tree ? const_cast<int32_t*>(tree) : own.get(), num_primitives};  // only read below
  Buffer<Primitive> primitives(num_primitives);
  if (tree) {
    Tree::expect_tree(words);
    make_primitives(table, num_primitives, words.extents(), primitives.get());
  } else {
    make_primitives(table, num_primitives, nullptr, primitives.get());
    TreeBuilder(words, primitives.get());
  }
  const Tree search(words, primitives.get());
  const RayLimits limits{static_cast<uint64_t>(seed), static_cast<float>(min_range), static_cast<float>(max_range)};
  const int64_t pieces = (num_rays + kRaysPerPiece - 1) / kRaysPerPiece;
  parallel_dynamic(pieces, threads_for(pieces, num_threads, 1), 1, [&](int64_t piece) {
    for (int64_t i = piece * kRaysPerPiece, end = std::min(num_rays, i + kRaysPerPiece); i < end; ++i) {
      const Ray ray = make_ray(origins + 3 * i, directions + 3 * i);
      const RayLimits mine = limits.of_ray(farthest, i);
      FirstHit hit;
      if (ray.is_ray && culled) search.cast(ray, i, mine, hit);
      if (ray.is_ray && !culled) {
        for (int64_t k = 0; k < num_primitives; ++k) hit.offer(primitives[k], k, ray, i, mine);
      }
      write_hit(primitives.get(), ray, hit, i, distance, normals, primitive);
    }
  });
}

}  // namespace ops::cpu
