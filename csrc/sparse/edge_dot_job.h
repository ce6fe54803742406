// What edge_dot reads and writes, as every device sees it. No torch here.
#pragma once

#include <cstdint>

#include "common/bfloat16.h"

namespace smore {

// S is the type in memory of the rows, Accumulator<S> that of the sums.
template <typename S, typename I>
struct EdgeDot {
  const I* rowptr;  // [n_rows + 1]
  const I* col;     // [n_edges]
  int64_t n_rows;
  int64_t n_cols;
  int64_t n_edges;
  const S* u;  // [n_rows, width]
  const S* v;  // [n_cols, width]
  int64_t width;
  Accumulator<S>* out;  // [n_edges]: u[row] . v[col]
};

}  // namespace smore
