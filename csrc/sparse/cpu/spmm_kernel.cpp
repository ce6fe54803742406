#include "sparse/cpu/spmm_kernel.h"

#define SMORE_KERNEL_FILE "sparse/cpu/spmm_kernel.inl"
#include "cpu/simd/foreach_level.h"

namespace smore {

template <typename S, typename I>
bool spmm_rows(const CsrMatrix<Accumulator<S>, I>& a, const S* x, int64_t width, const SpmmOutput<S>& out,
               int64_t begin, int64_t end) {
  return SMORE_DISPATCH(spmm_rows_at<S, I>)(a, x, width, out, begin, end);
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

}  // namespace smore
