// Rows of y = A x for a CSR matrix A and a dense, row-major x. No torch here.
#pragma once

#include <cstdint>

namespace smore {

template <typename T, typename I>
struct CsrMatrix {
  const I* rowptr;  // [n_rows + 1]
  const I* col;     // [n_edges]
  const T* weight;  // [n_edges]
  int64_t n_rows;
  int64_t n_cols;
  int64_t n_edges;
};

// Where a row of the product goes. Every pointer is [n_rows, width], row-major, and may be null where not
// needed.
template <typename T>
struct SpmmOutput {
  T* product;       // A x
  const T* addend;  // with sum: sum = (addend + A x) * scale
  T* sum;
  T scale;
};

// Computes rows [begin, end). A row is summed in stored order (a long one: its even edges, then its odd ones), whatever
// the range: the result does not depend on how rows are shared out. Returns false (rows touched by it undefined) if a
// row pointer or a column is out of range.
template <typename T, typename I>
bool spmm_rows(const CsrMatrix<T, I>& a, const T* x, int64_t width, const SpmmOutput<T>& out, int64_t begin,
               int64_t end);

// First row of part `part` of `parts`, so that parts hold about equally many edges plus rows. Needs a valid
// rowptr.
template <typename I>
int64_t balanced_row(const I* rowptr, int64_t n_rows, int64_t part, int64_t parts);

}  // namespace smore
