// Negative sampling from a counter-based generator: a draw depends on (seed, offset, position) alone, and what is
// drawn on the candidates besides. What every device
// shares of it. No torch here.
#pragma once

#include <cstdint>

#include "common/philox.h"

namespace smore {

// Draws tried before the complement of the user's items is listed and drawn from exactly.
inline constexpr int kSampleTries = 32;

// Generator call number `call` of a position. One call gives two draws; the last, number kSampleTries / 2, serves the
// exact draw.
SMORE_HOST_DEVICE inline Philox sample_words(uint64_t seed, uint64_t offset, int64_t position, int call) {
  return philox(seed, static_cast<uint64_t>(position) | static_cast<uint64_t>(call) << 48, offset);
}

template <typename I>
struct SampleJob {
  const int64_t* users;  // [size]
  const I* seen_rowptr;  // [n_users + 1]
  const I* seen_col;     // [n_seen], ascending within a row
  int64_t n_seen;
  const int64_t* candidates;  // [n_candidates]
  int64_t n_candidates;
  uint64_t seed, offset;
  int64_t first;       // position of users[0]
  int64_t* negatives;  // [size]
};

}  // namespace smore
