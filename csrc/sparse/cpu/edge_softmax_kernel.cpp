#include "sparse/cpu/edge_softmax_kernel.h"

#define SMORE_KERNEL_FILE "sparse/cpu/edge_softmax_kernel.inl"
#include "cpu/simd/foreach_level.h"

namespace smore {

template <typename T, typename I>
bool edge_softmax_rows(const I* rowptr, int64_t n_edges, const T* logits, T* y, int64_t begin, int64_t end) {
  return SMORE_DISPATCH(edge_softmax_rows_at<T, I>)(rowptr, n_edges, logits, y, begin, end);
}

template <typename T, typename I>
bool edge_softmax_backward_rows(const I* rowptr, int64_t n_edges, const T* y, const T* grad, T* grad_logits,
                                int64_t begin, int64_t end) {
  return SMORE_DISPATCH(edge_softmax_backward_rows_at<T, I>)(rowptr, n_edges, y, grad, grad_logits, begin, end);
}

#define SMORE_INSTANTIATE(T, I)                                                             \
  template bool edge_softmax_rows<T, I>(const I*, int64_t, const T*, T*, int64_t, int64_t); \
  template bool edge_softmax_backward_rows<T, I>(const I*, int64_t, const T*, const T*, T*, int64_t, int64_t);
SMORE_INSTANTIATE(float, int32_t)
SMORE_INSTANTIATE(float, int64_t)
SMORE_INSTANTIATE(double, int32_t)
SMORE_INSTANTIATE(double, int64_t)
#undef SMORE_INSTANTIATE

}  // namespace smore
