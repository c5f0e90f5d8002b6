// What the emulated module offers beside the operators: its mark, its orders, and kernels that test the emulation itself.
#pragma once

#include <nanobind/nanobind.h>

namespace ops::cuda::emulation {

void offer(nanobind::module_& m);

}  // namespace ops::cuda::emulation
