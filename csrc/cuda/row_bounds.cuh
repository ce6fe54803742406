// The entries of a row of a CSR matrix that nothing may have checked: in a capture nothing is, and a verdict that is
// remembered knows nothing of writes that raise no version.
#pragma once

#include "cuda/device.cuh"

namespace smore::cuda {

struct Range {
  int64_t begin, end;
};

// Within 0..n_entries whatever the pointers hold.
template <typename I>
__device__ __forceinline__ Range row_bounds(const I* rowptr, int64_t row, int64_t n_entries) {
  const int64_t begin = min(max(int64_t{rowptr[row]}, int64_t{0}), n_entries);
  return {begin, max(min(int64_t{rowptr[row + 1]}, n_entries), begin)};
}

}  // namespace smore::cuda
