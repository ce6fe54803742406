// Weights of a graph's edges in the order of another list of the same edges, on the device. No torch here.
#pragma once

#include "cuda/device.cuh"

namespace smore::cuda {

// out[e] = weight[order[e]] for e < n_edges; NaN for an entry of order that is not in 0..n_edges-1.
template <typename T, typename I>
void gather_weights(const T* weight, const I* order, int64_t n_edges, T* out, cudaStream_t stream);

}  // namespace smore::cuda
