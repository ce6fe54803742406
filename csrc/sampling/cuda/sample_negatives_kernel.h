// Negative sampling on the device: the draws of the CPU, bit for bit. No torch here.
#pragma once

#include "cuda/device.cuh"
#include "sampling/sample_job.h"

namespace smore::cuda {

// What a launch found wrong: the first position each, or more than INT64_MAX / 2 if there is none.
struct SampleVerdict {
  int64_t unknown_user;   // not in 0..n_users-1
  int64_t bad_candidate;  // negative
  int64_t no_choice;      // its user has seen every candidate
};

// Draws for positions 0..size-1; where that fails, -1 is left. All pointers are on the device. `verdict` may be null:
// nothing is reported then, and candidates are not checked.
template <typename I>
void sample_negatives(const SampleJob<I>& job, int64_t size, int64_t n_users, SampleVerdict* verdict,
                      cudaStream_t stream);

}  // namespace smore::cuda
