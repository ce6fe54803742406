// Rows gathered, and their gradients added up. No torch here.
#pragma once

#include <cstdint>

#include "common/bfloat16.h"
#include "common/place.h"

namespace smore {

template <typename S>
struct Gather {
  const S* table;  // [n, width]
  const int64_t* index;
  int64_t width;
  S* out;  // [size, width]
};

// A Range is one of places.
template <typename S>
void gather_rows(const Gather<S>& job, Range places);

// Which places of a batch named each row of a range, in their order: chains. next has room for `size` numbers, first
// for those of the range.
struct RowChains {
  Range rows;
  int32_t *first, *next;  // -1 ends a chain

  void make(const int64_t* index, int64_t size) const;
};

template <typename S>
struct GatherBackward {
  const S* grad;  // [size, width]
  int64_t width;
  S* out;  // [n, width]
};

// Writes the rows of the chains, zeros included. sum: scratch of `width`.
template <typename S>
void gather_rows_backward(const GatherBackward<S>& job, const RowChains& chains, Accumulator<S>* sum);

}  // namespace smore
