// bfloat16 as memory holds it: a float32 without its lower 16 bits. Sums are made in float32. Host and device.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/host_device.h"

namespace smore {

struct BFloat16 {
  uint16_t bits;
};

// What numbers in memory of type S are summed in.
template <typename S>
struct AccumulatorOf {
  typedef S type;
};
template <>
struct AccumulatorOf<BFloat16> {
  typedef float type;
};
template <typename S>
using Accumulator = typename AccumulatorOf<S>::type;

SMORE_HOST_DEVICE inline float widened(float value) { return value; }
SMORE_HOST_DEVICE inline double widened(double value) { return value; }
SMORE_HOST_DEVICE inline float widened(BFloat16 value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float wide;
  std::memcpy(&wide, &bits, sizeof wide);
  return wide;
}

// narrowed<S>(value): to the nearest, ties to even, as torch rounds.
template <typename S>
SMORE_HOST_DEVICE inline S narrowed(Accumulator<S> value) {
  if constexpr (sizeof(S) == sizeof value) {
    return value;
  } else {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    if (value != value) return {0x7fc0};
    return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
  }
}

}  // namespace smore
