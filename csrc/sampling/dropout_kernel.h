// What dropout reads and writes, and its kernels on each device. No torch here.
//
// Elements come in groups of 64. Element e of group g has word e / 16 of the counter 16 g + e % 16, so that neighbours
// have the same word of neighbouring counters.
#pragma once

#include <cstdint>

#include "common/bfloat16.h"
#include "common/philox.h"
#include "common/place.h"

namespace smore {

inline constexpr int64_t kDropoutGroup = 64;
inline constexpr int kDropoutLanes = 16;
// Set in every counter: sample_negatives draws from others for the same seed and offset.
inline constexpr uint64_t kDropoutCounters = uint64_t{1} << 63;

template <typename S>
struct Dropout {
  const S* x;  // [size]
  int64_t size;
  uint32_t threshold;  // words below it drop their element
  Accumulator<S> scale;
  uint64_t seed, offset;
  const int64_t* step;  // null, or one element on the device of x that is the offset instead
  S* y;                 // [size]

  int64_t groups() const { return (size + kDropoutGroup - 1) / kDropoutGroup; }
};

// A Range is one of groups.
template <typename S>
void dropout(const Dropout<S>& job, Range groups);
template <typename S>
void dropout(const Dropout<S>& job, CudaStream stream);

}  // namespace smore
