// What every operator's functors share: the host/device macro, small arithmetic that gives the same bits on both sides.
// All of it is compiled without fused multiply-add (-ffp-contract=off, --fmad=false), or the bits would differ.
#pragma once

#include <cmath>
#include <cstdint>

#ifdef __CUDACC__
#define OPS_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define OPS_HOST_DEVICE inline
#endif

// Clones of a hot loop for AVX2 and AVX-512, chosen when the module is loaded. Put it on leaf functions over a range [begin, end), not on
// functions with OpenMP regions: what OpenMP outlines is not cloned. Sanitizers start after the resolvers run and would crash in them.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(OPS_NO_CLONES)
#define OPS_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define OPS_CLONES
#endif

namespace ops {

/// Bits that are needed to write `value`.
inline int bits_of(uint64_t value) {
  int bits = 0;
  for (; value; value >>= 1) ++bits;
  return bits;
}

/// Sine and cosine, the same bits on the CPU and the GPU (their libraries differ in the last digit). Error below 2e-16 for |x| <= pi/4,
/// below 1e-15 up to |x| = 1e5. NaN or infinity give NaN.
OPS_HOST_DEVICE void sincos_same(double x, double& sine, double& cosine) {
  constexpr double kHalfPiHigh = 1.57079632673412561417e+00;  // the first 33 bits of pi/2, so that multiples up to 2^20 are exact
  constexpr double kHalfPiLow = 6.07710050650619224932e-11;   // the rest
  const double turns = rint(x * 0.63661977236758134308);      // quarter turns
  const double r = (x - turns * kHalfPiHigh) - turns * kHalfPiLow;
  const double r2 = r * r;
  // Taylor: the first term left out is below 1e-19 at pi/4.
  const double s = r * (1 + r2 * (-1. / 6 + r2 * (1. / 120 + r2 * (-1. / 5040 + r2 * (1. / 362880 + r2 * (-1. / 39916800 +
                   r2 * (1. / 6227020800. + r2 * (-1. / 1307674368000. + r2 * (1. / 355687428096000.)))))))));
  const double c = 1 + r2 * (-0.5 + r2 * (1. / 24 + r2 * (-1. / 720 + r2 * (1. / 40320 + r2 * (-1. / 3628800 + r2 * (1. / 479001600. +
                   r2 * (-1. / 87178291200. + r2 * (1. / 20922789888000. + r2 * (-1. / 6402373705728000.)))))))));
  const int quadrant = static_cast<int>(static_cast<int64_t>(fabs(turns) < 1e15 ? turns : 0) & 3);
  const bool swap = quadrant & 1;
  sine = (swap ? c : s) * (quadrant >= 2 ? -1 : 1);
  cosine = (swap ? s : c) * (quadrant == 1 || quadrant == 2 ? -1 : 1);
}

}  // namespace ops
