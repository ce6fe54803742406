// Softmax over the edges of each row, and its backward, on the device, as the CPU has it. No torch here.
#pragma once

#include "cuda/device.cuh"
#include "cuda/row_lengths.h"

namespace smore::cuda {

// The edges of a CSR matrix, row by row.
template <typename I>
struct EdgeRows {
  const I* rowptr;  // [n_rows + 1]
  int64_t n_rows;
  int64_t n_edges;
};

// Device memory that either needs besides its arguments.
template <typename T>
int64_t edge_softmax_scratch_bytes(int64_t n_edges, const RowLengths& lengths);

// All rows. Pointers are on the device; `scratch` is aligned to 16 bytes. A long row is worked on in pieces that are
// put together in order: the same bits at every run. Without memory errors whatever the row pointers are.
// lengths.longest may be wrong (the result is right, if slow), lengths.fixed may not.
template <typename T, typename I>
void edge_softmax(const EdgeRows<I>& rows, const T* logits, T* y, const RowLengths& lengths, void* scratch,
                  cudaStream_t stream);
template <typename T, typename I>
void edge_softmax_backward(const EdgeRows<I>& rows, const T* y, const T* grad, T* grad_logits,
                           const RowLengths& lengths, void* scratch, cudaStream_t stream);

}  // namespace smore::cuda
