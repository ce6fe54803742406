// Weights of a graph's edges in the order of another list of the same edges. No torch here.
#pragma once

#include <cstdint>

namespace smore {

// out[e] = weight[order[e]] for e in [begin, end). Returns false if an entry of order is not in 0..n_edges-1.
template <typename T, typename I>
bool gather_weights(const T* weight, const I* order, int64_t n_edges, T* out, int64_t begin, int64_t end) {
  for (int64_t e = begin; e < end; ++e) {
    if (static_cast<uint64_t>(order[e]) >= static_cast<uint64_t>(n_edges)) return false;
    out[e] = weight[order[e]];
  }
  return true;
}

}  // namespace smore
