// Full check of index lists that a kernel is about to follow. One pass over the indices.
#pragma once

#include <atomic>
#include <cstdint>

#include "common/check.h"
#include "cpu/parallel.h"

namespace smore {

// Rows of (rowptr, col) must tile 0..edges and their columns ascend strictly within 0..n_cols-1.
template <typename I>
void check_sorted_rows(const char* op, const char* name, const I* rowptr, int64_t n_rows, const I* col, int64_t edges,
                       int64_t n_cols) {
  SMORE_CHECK_INDEX(rowptr[0] == 0 && static_cast<int64_t>(rowptr[n_rows]) == edges, op, name,
                    "_rowptr must run from 0 to the number of entries (", edges, "), got ",
                    static_cast<int64_t>(rowptr[0]), " to ", static_cast<int64_t>(rowptr[n_rows]));
  // First whether anything is wrong, on all threads; only then what, in order, for one message whatever the threads.
  std::atomic<bool> sound{true};
  parallel_ranges(n_rows, 1024, [&](int64_t first, int64_t last) {
    bool good = true;
    for (int64_t row = first; row < last && good; ++row) {
      const int64_t begin = rowptr[row], end = rowptr[row + 1];
      good = begin >= 0 && begin <= end && end <= edges;
      int64_t previous = -1;
      for (int64_t e = begin; good && e < end; ++e) {
        const int64_t c = col[e];
        good = c > previous && c < n_cols;
        previous = c;
      }
    }
    if (!good) sound = false;
  });
  if (sound) return;
  for (int64_t row = 0; row < n_rows; ++row) {
    const int64_t begin = rowptr[row], end = rowptr[row + 1];
    SMORE_CHECK_INDEX(begin <= end && end <= edges, op, name, "_rowptr must not decrease, got ", begin, " then ", end,
                      " at row ", row);
    int64_t previous = -1;
    for (int64_t e = begin; e < end; ++e) {
      const int64_t c = col[e];
      SMORE_CHECK_INDEX(c < n_cols && c > previous, op, name, "_col must ascend strictly within 0..", n_cols - 1,
                        " in each row, got ", c, " after ", previous, " in row ", row);
      previous = c;
    }
  }
}

}  // namespace smore
