#include <mutex>
#include <vector>

#include "launch.cuh"

namespace ops::cuda {
namespace {

constexpr uint64_t kMostKept = uint64_t{256} << 20;  // bytes that stay with a pool while nobody uses them

/// The default pool gives its memory back to the system whenever the host waits for the device, and gets it anew at the next call, page by
/// page: so each device has a pool of ours that keeps some.
cudaMemPool_t make_pool(int device) {
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;  // a graph may be recording what is queued: this is not part of it
  OPS_CHECK(cudaThreadExchangeStreamCaptureMode(&mode));
  cudaMemPoolProps properties{};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location.type = cudaMemLocationTypeDevice;
  properties.location.id = device;
  cudaMemPool_t pool = nullptr;
  uint64_t kept = kMostKept;
  cudaError_t status = cudaMemPoolCreate(&pool, &properties);
  if (status == cudaSuccess) status = cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &kept);
  cudaThreadExchangeStreamCaptureMode(&mode);
  check(status, "cudaMemPoolCreate");
  return pool;
}

}  // namespace

cudaError_t allocate(void** block, size_t bytes, cudaStream_t stream) {
  static std::mutex lock;
  static std::vector<cudaMemPool_t> pools;  // by device; never destroyed, because the runtime may be gone by then
  int device = 0;
  OPS_CHECK(cudaGetDevice(&device));
  cudaMemPool_t pool = nullptr;
  {
    const std::lock_guard<std::mutex> guard(lock);
    if (pools.size() <= static_cast<size_t>(device)) pools.resize(static_cast<size_t>(device) + 1, nullptr);
    if (pools[static_cast<size_t>(device)] == nullptr) pools[static_cast<size_t>(device)] = make_pool(device);
    pool = pools[static_cast<size_t>(device)];
  }
  return cudaMallocFromPoolAsync(block, bytes, pool, stream);
}

}  // namespace ops::cuda
