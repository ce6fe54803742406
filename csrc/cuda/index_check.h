// Checks of index lists that lie on the device, with the errors of the CPU ops.
//
// A verdict is read back: one synchronisation. While the current stream is being captured into a CUDA graph nothing can
// be read back, and nothing is checked.
#pragma once

#include <ATen/core/Tensor.h>

#include "cuda/row_lengths.h"

namespace smore::cuda {

// Every one of ids (int64, contiguous) must be in 0..limit-1.
void check_ids_cuda(const char* op, const char* name, const at::Tensor& ids, int64_t limit);

// Rows of (rowptr, col), both contiguous, must tile 0..len(col) with columns in 0..n_cols-1, which must ascend strictly
// in each row if `sorted`. name: of the list that (rowptr, col) is; or, if not `sorted`, of an entry of col, "" for
// "col". Once a graph: the verdict is remembered while both tensors live and are not written to. What came to light
// about the rows is returned; so it is, without a check, during a capture, if the graph was checked before: a CUDA
// graph keeps the row lengths that it was captured with, as it keeps sizes.
RowLengths check_csr_cuda(const char* op, const char* name, const at::Tensor& rowptr, const at::Tensor& col,
                          int64_t n_cols, bool sorted);

}  // namespace smore::cuda
