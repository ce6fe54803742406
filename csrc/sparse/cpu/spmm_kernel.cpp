#include "sparse/cpu/spmm_kernel.h"

#define SMORE_KERNEL_FILE "sparse/cpu/spmm_kernel.inl"
#include "cpu/simd/foreach_level.h"

namespace smore {

template <typename S, typename I>
bool spmm_rows(const CsrMatrix<Accumulator<S>, I>& a, const S* x, int64_t width, const SpmmOutput<S>& out,
               int64_t begin, int64_t end) {
  return SMORE_DISPATCH(spmm_rows_at<S, I>)(a, x, width, out, begin, end);
}

template <typename I>
int64_t balanced_row(const I* rowptr, int64_t n_rows, int64_t part, int64_t parts) {
  if (part >= parts) return n_rows;
  const int64_t total = static_cast<int64_t>(rowptr[n_rows]) + n_rows;
  const int64_t goal = total / parts * part + total % parts * part / parts;
  int64_t low = 0, high = n_rows;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (static_cast<int64_t>(rowptr[middle]) + middle < goal) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

#define SMORE_INSTANTIATE(S, I)                                                                                        \
  template bool spmm_rows<S, I>(const CsrMatrix<Accumulator<S>, I>&, const S*, int64_t, const SpmmOutput<S>&, int64_t, \
                                int64_t);
SMORE_INSTANTIATE(float, int32_t)
SMORE_INSTANTIATE(float, int64_t)
SMORE_INSTANTIATE(double, int32_t)
SMORE_INSTANTIATE(double, int64_t)
SMORE_INSTANTIATE(BFloat16, int32_t)
SMORE_INSTANTIATE(BFloat16, int64_t)
#undef SMORE_INSTANTIATE
template int64_t balanced_row<int32_t>(const int32_t*, int64_t, int64_t, int64_t);
template int64_t balanced_row<int64_t>(const int64_t*, int64_t, int64_t, int64_t);

}  // namespace smore
