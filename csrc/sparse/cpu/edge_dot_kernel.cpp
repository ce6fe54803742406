#include "sparse/cpu/edge_dot_kernel.h"

#define SMORE_KERNEL_FILE "sparse/cpu/edge_dot_kernel.inl"
#include "cpu/simd/foreach_level.h"

namespace smore {

template <typename S, typename I>
bool edge_dot_rows(const EdgeDot<S, I>& job, int64_t begin, int64_t end) {
  return SMORE_DISPATCH(edge_dot_rows_at<S, I>)(job, begin, end);
}

#define SMORE_INSTANTIATE(S, I) template bool edge_dot_rows<S, I>(const EdgeDot<S, I>&, int64_t, int64_t);
SMORE_INSTANTIATE(float, int32_t)
SMORE_INSTANTIATE(float, int64_t)
SMORE_INSTANTIATE(double, int32_t)
SMORE_INSTANTIATE(double, int64_t)
SMORE_INSTANTIATE(BFloat16, int32_t)
SMORE_INSTANTIATE(BFloat16, int64_t)
#undef SMORE_INSTANTIATE

}  // namespace smore
