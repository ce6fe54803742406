// Rows of y = A x for a CSR matrix A and a dense, row-major x. No torch here.
#pragma once

#include <cstdint>

#include "sparse/csr_matrix.h"

namespace smore {

// Computes rows [begin, end). A row is summed in stored order (a long one: its even edges, then its odd ones), whatever
// the range: the result does not depend on how rows are shared out. Returns false (rows touched by it undefined) if a
// row pointer or a column is out of range. Sums are of the accumulator's type.
template <typename S, typename I>
bool spmm_rows(const CsrMatrix<Accumulator<S>, I>& a, const S* x, int64_t width, const SpmmOutput<S>& out,
               int64_t begin, int64_t end);

}  // namespace smore
