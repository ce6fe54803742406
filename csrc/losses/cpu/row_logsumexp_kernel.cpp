#include "losses/cpu/row_logsumexp_kernel.h"

#include <type_traits>

#include "cpu/aligned.h"

#define SMORE_KERNEL_FILE "losses/cpu/row_logsumexp_kernel.inl"
#include "cpu/simd/foreach_level.h"

namespace smore {

template <typename T>
void lse_rows(const T* x, const T* weight, int64_t n, int64_t d, T* rows, T* norm, int64_t begin, int64_t end) {
  SMORE_DISPATCH(lse_rows_at<T>)(x, weight, n, d, rows, norm, begin, end);
}

template <typename T>
void lse_forward(const LseForward<T>& job, int64_t begin, int64_t end) {
  SMORE_DISPATCH(lse_forward_at<T>)(job, begin, end);
}

template <typename T>
void lse_backward(const LseBackward<T>& job, int64_t begin, int64_t end) {
  SMORE_DISPATCH(lse_backward_at<T>)(job, begin, end);
}

template <typename T>
void lse_finish(const LseBackward<T>& job, int64_t begin, int64_t end) {
  SMORE_DISPATCH(lse_finish_at<T>)(job, begin, end);
}

#define SMORE_INSTANTIATE(T)                                                                 \
  template void lse_rows<T>(const T*, const T*, int64_t, int64_t, T*, T*, int64_t, int64_t); \
  template void lse_forward<T>(const LseForward<T>&, int64_t, int64_t);                      \
  template void lse_backward<T>(const LseBackward<T>&, int64_t, int64_t);                    \
  template void lse_finish<T>(const LseBackward<T>&, int64_t, int64_t);
SMORE_INSTANTIATE(float)
SMORE_INSTANTIATE(double)
#undef SMORE_INSTANTIATE

}  // namespace smore
