// Which random word decides whether dropout keeps an element, for host and device. No torch here.
//
// Elements come in groups of 64. Element e of group g has word e / 16 of the counter 16 g + e % 16, so that neighbours
// have the same word of neighbouring counters.
#pragma once

#include <cstdint>

#include "common/philox.h"

namespace smore {

inline constexpr int64_t kDropoutGroup = 64;
inline constexpr int kDropoutLanes = 16;
// Set in every counter: sample_negatives draws from others for the same seed and offset.
inline constexpr uint64_t kDropoutCounters = uint64_t{1} << 63;

// What an op that drops elements by the way is told.
template <typename T>
struct DropoutRule {
  uint32_t threshold = 0;  // words below it drop their element
  T scale = 1;             // of those that are kept
  uint64_t seed = 0, offset = 0;
  const int64_t* step = nullptr;  // null, or one element on the device of the data that is the offset instead

  static DropoutRule of(double p, int64_t seed, int64_t offset, const int64_t* step) {
    return {static_cast<uint32_t>(p * 4294967296.0), static_cast<T>(1 / (1 - p)), static_cast<uint64_t>(seed),
            static_cast<uint64_t>(offset), step};
  }
  SMORE_HOST_DEVICE uint64_t offset_now() const { return step != nullptr ? static_cast<uint64_t>(*step) : offset; }

  // 0 or the scale, of one element: a call of the generator for it alone.
  SMORE_HOST_DEVICE T factor(int64_t element, uint64_t offset_of_call) const {
    const int64_t in_group = element % kDropoutGroup;
    const uint64_t counter =
        static_cast<uint64_t>(element / kDropoutGroup * kDropoutLanes + in_group % kDropoutLanes) | kDropoutCounters;
    return philox(seed, counter, offset_of_call).out[in_group / kDropoutLanes] < threshold ? T(0) : scale;
  }
};

}  // namespace smore
