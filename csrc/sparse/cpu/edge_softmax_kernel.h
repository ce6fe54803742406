// Softmax over the edges of each row of a CSR matrix, and its backward. No torch here.
#pragma once

#include <cstdint>

namespace smore {

// y = exp(l - max l) / sum exp(l - max l) over each row, for rows [begin, end); a row's result does not depend on the
// range. Returns false (edges of the range undefined) if a row pointer is out of range.
template <typename T, typename I>
bool edge_softmax_rows(const I* rowptr, int64_t n_edges, const T* logits, T* y, int64_t begin, int64_t end);

// grad_logits = y * (grad - sum y grad) over each row.
template <typename T, typename I>
bool edge_softmax_backward_rows(const I* rowptr, int64_t n_edges, const T* y, const T* grad, T* grad_logits,
                                int64_t begin, int64_t end);

}  // namespace smore
