// Negative sampling from a counter-based generator: a draw depends on (seed, offset, position) alone. No
// torch here.
#pragma once

#include <cstdint>

namespace smore {

// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011).
struct Philox {
  uint32_t out[4];
};
inline constexpr int kPhiloxBlock = 16;
struct PhiloxBlock {
  uint32_t out[4][kPhiloxBlock];
};
Philox philox(uint64_t key, uint64_t counter_low, uint64_t counter_high);

// Draws tried before the complement of the user's items is listed and drawn from exactly.
inline constexpr int kSampleTries = 32;

template <typename I>
struct SampleJob {
  const int64_t* users;       // [size]
  const I* seen_rowptr;       // [n_users + 1]
  const I* seen_col;          // ascending within a row
  const int64_t* candidates;  // [n_candidates], ascending
  int64_t n_candidates;
  uint64_t seed, offset;
  int64_t* negatives;  // [size]
};

// Positions [begin, end). Returns -1, or the first position whose user has seen every candidate.
template <typename I>
int64_t sample_range(const SampleJob<I>& job, int64_t begin, int64_t end);

}  // namespace smore
