// Shares of the rows of a CSR matrix that are about equally much work. No torch here.
#pragma once

#include <cstdint>

namespace smore {

// First row of part `part` of `parts`, so that parts hold about equally many edges plus rows. Needs a valid rowptr.
template <typename I>
int64_t balanced_row(const I* rowptr, int64_t n_rows, int64_t part, int64_t parts) {
  if (part >= parts) return n_rows;
  const int64_t total = static_cast<int64_t>(rowptr[n_rows]) + n_rows;
  const int64_t goal = total / parts * part + total % parts * part / parts;
  int64_t low = 0, high = n_rows;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (static_cast<int64_t>(rowptr[middle]) + middle < goal) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

}  // namespace smore
