// Rows gathered, and their gradients added up, on the device. No torch here. The same bits at every run.
#pragma once

#include "common/bfloat16.h"
#include "cuda/device.cuh"

namespace smore::cuda {

// Pointers are on the device. A place whose index is out of range gets zeros, and gives nothing to a gradient.

// table [n, width], index [size], out [size, width].
template <typename S>
void gather_rows(const S* table, int64_t n, int64_t width, const int64_t* index, int64_t size, S* out,
                 cudaStream_t stream);

// Elements of int32 that the lists of a batch need.
int64_t gather_scratch(int64_t n, int64_t size);

// Makes the lists of a batch, in `scratch`: once for all gradients.
void gather_lists(const int64_t* index, int64_t size, int64_t n, int32_t* scratch, cudaStream_t stream);

// grad [size, width], out [n, width], all of it written; scratch as gather_lists left it.
template <typename S>
void gather_rows_backward(const S* grad, const int64_t* index, int64_t size, int64_t n, int64_t width,
                          const int32_t* scratch, S* out, cudaStream_t stream);

}  // namespace smore::cuda
