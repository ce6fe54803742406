// Negative sampling on the CPU. No torch here.
#pragma once

#include <cstdint>

#include "sampling/sample_job.h"

namespace smore {

// Positions [begin, end). Returns -1, or the first position whose user has seen every candidate.
template <typename I>
int64_t sample_range(const SampleJob<I>& job, int64_t begin, int64_t end);

}  // namespace smore
