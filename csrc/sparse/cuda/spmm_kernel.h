// y = A x on the device for a CSR matrix A, as the CPU has it. No torch here.
#pragma once

#include "cuda/device.cuh"
#include "cuda/row_lengths.h"
#include "sparse/csr_matrix.h"

namespace smore::cuda {

// Device memory that a product needs besides its arguments. M is the type in memory of x and of the output.
template <typename M>
int64_t spmm_scratch_bytes(int64_t n_edges, int64_t width, const RowLengths& lengths);

// All rows. Pointers are on the device; nothing that is read may overlap what is written; `scratch` is aligned to 16
// bytes. A row is summed in stored order, a long one in pieces that are added in order: the same bits at every run.
// Without memory errors whatever the indices are: an entry outside makes its row NaN. lengths.longest may be wrong (the
// result is right, if slow), lengths.fixed may not.
template <typename M, typename I>
void spmm(const CsrMatrix<Accumulator<M>, I>& a, const M* x, int64_t width, const SpmmOutput<M>& out,
          const RowLengths& lengths, void* scratch, cudaStream_t stream);

}  // namespace smore::cuda
