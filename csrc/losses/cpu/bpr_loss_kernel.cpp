#include "losses/cpu/bpr_loss_kernel.h"

#define SMORE_KERNEL_FILE "losses/cpu/bpr_loss_kernel.inl"
#include "cpu/simd/foreach_level.h"

namespace smore {

double bpr_softplus(double margin) { return std::max(-margin, 0.0) + std::log1p(std::exp(-std::abs(margin))); }

template <typename T>
void bpr_scores(const BprBatch<T>& batch, T* margin, T* square, int64_t begin, int64_t end) {
  SMORE_DISPATCH(bpr_scores_at<T>)(batch, margin, square, begin, end);
}

template <typename T>
void bpr_scores_apart(const BprBatch<T>& batch, T* margin, T* square, int64_t begin, int64_t end) {
  SMORE_DISPATCH(bpr_scores_apart_at<T>)(batch, margin, square, begin, end);
}

template <typename T>
void bpr_user_gradient(const BprBatch<T>& batch, const T* margin, const BprGradient& grad, T* grad_user, int64_t begin,
                       int64_t end) {
  SMORE_DISPATCH(bpr_user_gradient_at<T>)(batch, margin, grad, grad_user, begin, end);
}

template <typename T>
void bpr_item_gradient(const BprBatch<T>& batch, const T* margin, const BprGradient& grad, T* grad_item, int64_t begin,
                       int64_t end) {
  SMORE_DISPATCH(bpr_item_gradient_at<T>)(batch, margin, grad, grad_item, begin, end);
}

#define SMORE_INSTANTIATE(T)                                                                                  \
  template void bpr_scores<T>(const BprBatch<T>&, T*, T*, int64_t, int64_t);                                  \
  template void bpr_scores_apart<T>(const BprBatch<T>&, T*, T*, int64_t, int64_t);                            \
  template void bpr_user_gradient<T>(const BprBatch<T>&, const T*, const BprGradient&, T*, int64_t, int64_t); \
  template void bpr_item_gradient<T>(const BprBatch<T>&, const T*, const BprGradient&, T*, int64_t, int64_t);
SMORE_INSTANTIATE(float)
SMORE_INSTANTIATE(double)
#undef SMORE_INSTANTIATE

}  // namespace smore
