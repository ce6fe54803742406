// Dot products of the rows at the two ends of each edge of a CSR matrix. No torch here.
#pragma once

#include <cstdint>

#include "sparse/edge_dot_job.h"

namespace smore {

// The edges of rows [begin, end). The sum of an edge is made in an order that depends on the width alone. Returns false
// (edges of the range undefined) if a row pointer or a column is out of range.
template <typename S, typename I>
bool edge_dot_rows(const EdgeDot<S, I>& job, int64_t begin, int64_t end);

}  // namespace smore
