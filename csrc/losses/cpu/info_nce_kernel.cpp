#include "losses/cpu/info_nce_kernel.h"

#include <type_traits>

#include "cpu/aligned.h"

#define SMORE_KERNEL_FILE "losses/cpu/info_nce_kernel.inl"
#include "cpu/simd/foreach_level.h"

namespace smore {

template <typename T>
void nce_normalise(const T* x, int64_t n, int64_t d, T* unit, T* norm, int64_t begin, int64_t end) {
  SMORE_DISPATCH(nce_normalise_at<T>)(x, n, d, unit, norm, begin, end);
}

template <typename T>
void nce_pack(const T* rows, int64_t n, int64_t d, T* panels, int64_t begin, int64_t end) {
  SMORE_DISPATCH(nce_pack_at<T>)(rows, n, d, panels, begin, end);
}

template <typename T>
void nce_forward(const NceForward<T>& job, int64_t begin, int64_t end) {
  SMORE_DISPATCH(nce_forward_at<T>)(job, begin, end);
}

template <typename T>
void nce_backward(const NceBackward<T>& job, int64_t begin, int64_t end) {
  SMORE_DISPATCH(nce_backward_at<T>)(job, begin, end);
}

template <typename T>
void nce_finish(const NceFinish<T>& job, int64_t begin, int64_t end) {
  SMORE_DISPATCH(nce_finish_at<T>)(job, begin, end);
}

#define SMORE_INSTANTIATE(T)                                                            \
  template void nce_normalise<T>(const T*, int64_t, int64_t, T*, T*, int64_t, int64_t); \
  template void nce_pack<T>(const T*, int64_t, int64_t, T*, int64_t, int64_t);          \
  template void nce_forward<T>(const NceForward<T>&, int64_t, int64_t);                 \
  template void nce_backward<T>(const NceBackward<T>&, int64_t, int64_t);               \
  template void nce_finish<T>(const NceFinish<T>&, int64_t, int64_t);
SMORE_INSTANTIATE(float)
SMORE_INSTANTIATE(double)
#undef SMORE_INSTANTIATE

}  // namespace smore
