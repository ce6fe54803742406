// Rows of y = A x for a CSR matrix A and a dense, row-major x. No torch here.
#pragma once

#include <cstdint>

#include "common/bfloat16.h"

namespace smore {

template <typename T, typename I>
struct CsrMatrix {
  const I* rowptr;  // [n_rows + 1]
  const I* col;     // [n_edges]
  const T* weight;  // [n_edges]; null: all are 1
  int64_t n_rows;
  int64_t n_cols;
  int64_t n_edges;
};

// Where row r of the product goes: value = (addend + A x * inner[r]) * outer[r] * scale. S is the type in memory;
// arrays of S are [n_rows, width], row-major.
template <typename S>
struct SpmmOutput {
  S* y = nullptr;                         // the value; null if only its products are wanted
  const S* addend = nullptr;              // null: nothing is added
  const Accumulator<S>* inner = nullptr;  // [n_rows] each; null: 1
  const Accumulator<S>* outer = nullptr;
  Accumulator<S> scale = 1;
  const S* factor[2] = {};  // factor[i] null: no such product
  S* scaled[2] = {};        // scaled[i] = value * factor[i]
};

// Computes rows [begin, end). A row is summed in stored order (a long one: its even edges, then its odd ones), whatever
// the range: the result does not depend on how rows are shared out. Returns false (rows touched by it undefined) if a
// row pointer or a column is out of range. Sums are of the accumulator's type.
template <typename S, typename I>
bool spmm_rows(const CsrMatrix<Accumulator<S>, I>& a, const S* x, int64_t width, const SpmmOutput<S>& out,
               int64_t begin, int64_t end);

// First row of part `part` of `parts`, so that parts hold about equally many edges plus rows. Needs a valid
// rowptr.
template <typename I>
int64_t balanced_row(const I* rowptr, int64_t n_rows, int64_t part, int64_t parts);

}  // namespace smore
