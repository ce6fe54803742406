// Dot products of the rows at the two ends of each edge, on the device, as the CPU has it. No torch here.
#pragma once

#include "cuda/device.cuh"
#include "cuda/row_lengths.h"
#include "sparse/edge_dot_job.h"

namespace smore::cuda {

// All edges. Pointers are on the device. The sum of an edge is made in an order that depends on the width alone.
// Without memory errors whatever the indices are: an edge that names no row or column is NaN. lengths.fixed may not be
// wrong.
template <typename M, typename I>
void edge_dot(const EdgeDot<M, I>& job, const RowLengths& lengths, cudaStream_t stream);

}  // namespace smore::cuda
