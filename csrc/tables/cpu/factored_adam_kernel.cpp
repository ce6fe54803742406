#include "tables/cpu/factored_adam_kernel.h"

#include "cpu/aligned.h"

#define SMORE_KERNEL_FILE "tables/cpu/factored_adam_kernel.inl"
#include "cpu/simd/foreach_level.h"

namespace smore {

template <typename T>
int64_t adam_panels(int64_t width) {
  return SMORE_DISPATCH(adam_panels_at<T>)(width);
}

template <typename T>
int64_t adam_panel_elements(int64_t d) {
  return SMORE_DISPATCH(adam_panel_elements_at<T>)(d);
}

template <typename T>
void adam_pack(const T* factor, int64_t d, int64_t width, T* panels, int64_t begin, int64_t end) {
  SMORE_DISPATCH(adam_pack_at<T>)(factor, d, width, panels, begin, end);
}

template <typename T>
void factored_adam(const FactoredAdam<T>& job, int64_t begin, int64_t end) {
  SMORE_DISPATCH(factored_adam_at<T>)(job, begin, end);
}

#define SMORE_INSTANTIATE(T)                                                    \
  template int64_t adam_panels<T>(int64_t);                                     \
  template int64_t adam_panel_elements<T>(int64_t);                             \
  template void adam_pack<T>(const T*, int64_t, int64_t, T*, int64_t, int64_t); \
  template void factored_adam<T>(const FactoredAdam<T>&, int64_t, int64_t);
SMORE_INSTANTIATE(float)
SMORE_INSTANTIATE(double)
#undef SMORE_INSTANTIATE

}  // namespace smore
