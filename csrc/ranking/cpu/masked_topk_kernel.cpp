#include "ranking/cpu/masked_topk_kernel.h"

#include "cpu/aligned.h"
#include "ranking/cpu/topk_list.h"

#define SMORE_KERNEL_FILE "ranking/cpu/masked_topk_kernel.inl"
#include "cpu/simd/foreach_level.h"

namespace smore {

template <typename T>
int64_t topk_panels(int64_t n_items) {
  const int64_t columns = SMORE_DISPATCH(topk_columns_at<T>)();
  return (n_items + columns - 1) / columns;
}

template <typename T>
int64_t topk_panel_elements(int64_t d) {
  return SMORE_DISPATCH(topk_columns_at<T>)() * d;
}

template <typename T>
void topk_pack(const T* items, int64_t n_items, int64_t d, T* panels, int64_t first_panel, int64_t last_panel) {
  SMORE_DISPATCH(pack_panels<T>)(items, n_items, d, panels, first_panel, last_panel);
}

template <typename T, typename I>
void topk_users(const TopkJob<T, I>& job, int64_t begin, int64_t end) {
  SMORE_DISPATCH(topk_users_at<T, I>)(job, begin, end);
}

#define SMORE_INSTANTIATE(T)                                                          \
  template int64_t topk_panels<T>(int64_t);                                           \
  template int64_t topk_panel_elements<T>(int64_t);                                   \
  template void topk_pack<T>(const T*, int64_t, int64_t, T*, int64_t, int64_t);       \
  template void topk_users<T, int32_t>(const TopkJob<T, int32_t>&, int64_t, int64_t); \
  template void topk_users<T, int64_t>(const TopkJob<T, int64_t>&, int64_t, int64_t);
SMORE_INSTANTIATE(float)
SMORE_INSTANTIATE(double)
#undef SMORE_INSTANTIATE

}  // namespace smore
