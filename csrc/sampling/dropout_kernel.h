// What dropout reads and writes, and its kernels on each device. No torch here.
#pragma once

#include <cstdint>

#include "common/bfloat16.h"
#include "common/dropout_words.h"
#include "common/place.h"

namespace smore {

template <typename S>
struct Dropout {
  const S* x;  // [size]
  int64_t size;
  DropoutRule<Accumulator<S>> rule;
  S* y;  // [size]

  int64_t groups() const { return (size + kDropoutGroup - 1) / kDropoutGroup; }
};

// A Range is one of groups.
template <typename S>
void dropout(const Dropout<S>& job, Range groups);
template <typename S>
void dropout(const Dropout<S>& job, CudaStream stream);

}  // namespace smore
