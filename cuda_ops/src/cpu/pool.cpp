// The pool behind take_block: blocks come back when a result is garbage-collected or a buffer goes out of scope.
#include <sys/mman.h>

#include <cstdlib>
#include <map>
#include <mutex>
#include <new>
#include <unordered_map>

#include "parallel.hpp"

namespace ops::cpu {
namespace {

constexpr std::size_t kSmallest = 4096;
constexpr std::size_t kHuge = std::size_t{2} << 20;        // one huge page
constexpr std::size_t kMostKept = std::size_t{256} << 20;  // what the pool keeps for later, in bytes

struct Pool {
  std::mutex lock;
  std::multimap<std::size_t, void*> free;          // by size
  std::unordered_map<void*, std::size_t> lent;     // sizes of what is in use
  std::size_t kept = 0;
};

[[maybe_unused]] Pool& pool() {
  static Pool* instance = new Pool;  // never destroyed: results may be collected after the module's end
  return *instance;
}

}  // namespace

#ifdef __SANITIZE_ADDRESS__  // every block alone and of the exact size, so that a step over its end is seen

void* take_block(std::size_t bytes) { return ::operator new(bytes); }
void give_block(void* block) noexcept { ::operator delete(block); }

#else

void* take_block(std::size_t bytes) {
  const std::size_t step = bytes > kHuge ? kHuge : kSmallest;
  const std::size_t size = (std::max(bytes, kSmallest) + step - 1) / step * step;
  if (size < bytes) throw std::bad_alloc();
  Pool& p = pool();
  std::lock_guard<std::mutex> guard(p.lock);
  const auto found = p.free.lower_bound(size);
  if (found != p.free.end() && found->first <= 2 * size) {  // not a block much larger than what was asked for
    void* block = found->second;
    p.lent.emplace(block, found->first);
    p.kept -= found->first;
    p.free.erase(found);
    return block;
  }
  void* block = std::aligned_alloc(step, size);
  if (block == nullptr) throw std::bad_alloc();
  if (step == kHuge) madvise(block, size, MADV_HUGEPAGE);
  p.lent.emplace(block, size);
  return block;
}

void give_block(void* block) noexcept {
  Pool& p = pool();
  std::lock_guard<std::mutex> guard(p.lock);
  const auto found = p.lent.find(block);
  if (found == p.lent.end()) return;
  const std::size_t size = found->second;
  p.lent.erase(found);
  if (p.kept + size > kMostKept) {
    std::free(block);
    return;
  }
  p.free.emplace(size, block);
  p.kept += size;
}

#endif

}  // namespace ops::cpu
