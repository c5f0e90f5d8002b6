// The module cuda_ops._cuda.
#include "ops.cuh"
#include "wire.hpp"

NB_MODULE(_cuda, m) {
  m.doc() = "Bodies of the operators for NVIDIA GPUs; called through cuda_ops, which checks the arguments.";
  ops::offer(m, "voxelize_mean", &ops::cuda::voxelize_mean);
  ops::offer(m, "voxelize_hard", &ops::cuda::voxelize_hard);
}
