// Shares of the rows of a CSR matrix that are about equally much work. No torch here.
#pragma once

#include <cstdint>

namespace smore {

// First row of part `part` of `parts`, so that parts hold about equally many edges plus rows. Of rowptr only its last
// entry needs to be right: whatever the others hold, parts ascend from row 0 to n_rows and leave none out.
template <typename I>
int64_t balanced_row(const I* rowptr, int64_t n_rows, int64_t part, int64_t parts) {
  if (part <= 0) return 0;
  if (part >= parts) return n_rows;
  const int64_t total = static_cast<int64_t>(rowptr[n_rows]) + n_rows;
  const int64_t goal = total / parts * part + total % parts * part / parts;
  int64_t low = 0, high = n_rows;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (static_cast<int64_t>(rowptr[middle]) < goal - middle) {  // no sum that a wrong entry makes overflow
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

}  // namespace smore
