// Checks of index lists on the device. No torch here.
//
// Verdicts begin with every byte 0x7f, more than kNothing, and only fall.
#pragma once

#include <cstdint>
#include <limits>

#include "cuda/device.cuh"

namespace smore::cuda {

inline constexpr int64_t kNothing = std::numeric_limits<int64_t>::max() / 2;  // more than this: nothing was found

struct CsrVerdict {
  int64_t bad_row;        // the first row whose bounds or columns are wrong; 0 if rowptr does not run from 0 to n_edges
  int64_t shortest;       // row length
  int64_t minus_longest;  // minus a row length
};

// *first: the position of the first id that is not in 0..limit-1.
void find_bad_id(const int64_t* ids, int64_t n, int64_t limit, int64_t* first, cudaStream_t stream);

// Rows must tile 0..n_edges with columns in 0..n_cols-1, which must ascend strictly in each row if `sorted`.
template <typename I>
void check_rows(const I* rowptr, int64_t n_rows, const I* col, int64_t n_edges, int64_t n_cols, bool sorted,
                CsrVerdict* verdict, cudaStream_t stream);

}  // namespace smore::cuda
