// Numbers of 16 bits in memory; arithmetic is float. In integers, because not every compiler knows them, and the same for both.
#pragma once

#include <cstring>

#include "common.hpp"

namespace ops {

/// IEEE 754 binary16.
struct Half {
  uint16_t bits;
};

/// The upper half of a float.
struct BFloat16 {
  uint16_t bits;
};

OPS_HOST_DEVICE uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

OPS_HOST_DEVICE float float_of(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/// What arithmetic on a T is done in.
template <class T>
struct RealOf {
  using Type = float;
};
template <>
struct RealOf<double> {
  using Type = double;
};
template <class T>
using Real = typename RealOf<T>::Type;

OPS_HOST_DEVICE float load(float value) { return value; }
OPS_HOST_DEVICE double load(double value) { return value; }
OPS_HOST_DEVICE float load(BFloat16 value) { return float_of(static_cast<uint32_t>(value.bits) << 16); }
OPS_HOST_DEVICE float load(Half value) {
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000) << 16, rest = value.bits & 0x7fff;
  // The exponent is moved by a product, which is exact also for the denormal ones: 2^112.
  const float magnitude = rest >= 0x7c00 ? float_of(0x7f800000u | rest << 13) : float_of(rest << 13) * 5.192296858534828e33f;
  return float_of(bits_of(magnitude) | sign);
}

/// Rounded to the nearest, ties to even.
OPS_HOST_DEVICE void store(float value, float* place) { *place = value; }
OPS_HOST_DEVICE void store(double value, double* place) { *place = value; }
OPS_HOST_DEVICE void store(float value, BFloat16* place) {
  const uint32_t bits = bits_of(value);
  place->bits = static_cast<uint16_t>(value != value ? 0x7fc0 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
OPS_HOST_DEVICE void store(float value, Half* place) {
  const uint32_t bits = bits_of(value), rest = bits & 0x7fffffff;
  uint32_t half;
  if (rest > 0x7f800000) {
    half = 0x7e00;  // NaN
  } else if (rest >= 0x477ff000) {
    half = 0x7c00;  // 65520 and more: infinite
  } else if (rest >= 0x38800000) {
    half = (rest - 0x38000000 + 0xfff + (rest >> 13 & 1)) >> 13;
  } else {
    half = static_cast<uint32_t>(rintf(float_of(rest) * 16777216.f));  // denormal: a multiple of 2^-24
  }
  place->bits = static_cast<uint16_t>(half | (bits >> 16 & 0x8000));
}

}  // namespace ops
