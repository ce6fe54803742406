// Runs a kernel over the rows of a CSR matrix on torch's threads.
#pragma once

#include <ATen/Parallel.h>

#include <atomic>

#include "common/check.h"
#include "cpu/parallel.h"
#include "sparse/cpu/balanced_row.h"

namespace smore {

// kernel(first, last) on ranges that cover all rows, about equally much work each; false if one returned false. `work`:
// steps in all, to tell whether threads are worth it.
template <typename I, typename F>
bool parallel_rows(const char* op, const I* rowptr, int64_t n_rows, int64_t n_edges, int64_t work, const F& kernel) {
  check_row_ends(op, rowptr[0], rowptr[n_rows], n_edges);
  const int64_t parts = work < (1 << 15) ? 1 : at::get_num_threads();
  std::atomic<bool> valid{true};
  parallel_ranges(parts, 1, [&](int64_t begin, int64_t end) {
    const int64_t first = balanced_row(rowptr, n_rows, begin, parts), last = balanced_row(rowptr, n_rows, end, parts);
    if (first < last && !kernel(first, last)) valid = false;
  });
  return valid;
}

}  // namespace smore
