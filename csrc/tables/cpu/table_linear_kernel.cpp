#include "tables/cpu/table_linear_kernel.h"

#include "cpu/aligned.h"

#define SMORE_KERNEL_FILE "tables/cpu/table_linear_kernel.inl"
#include "cpu/simd/foreach_level.h"

namespace smore {

int64_t table_depth_blocks(int64_t width) { return SMORE_DISPATCH(table_depth_blocks_at)(width); }

template <typename T>
int64_t table_packed_elements(int64_t width, int64_t d) {
  return SMORE_DISPATCH(table_packed_elements_at<T>)(width, d);
}

template <typename T>
void table_pack(const T* weight, int64_t width, int64_t d, T* panels, int64_t begin, int64_t end) {
  SMORE_DISPATCH(table_pack_at<T>)(weight, width, d, panels, begin, end);
}

template <typename T>
void table_forward(const TableForward<T>& job, int64_t begin, int64_t end) {
  SMORE_DISPATCH(table_forward_at<T>)(job, begin, end);
}

template <typename T>
int64_t table_panels(int64_t width) {
  return SMORE_DISPATCH(table_panels_at<T>)(width);
}

template <typename T>
void table_weight_gradient(const TableWeightGradient<T>& job, int64_t begin, int64_t end) {
  SMORE_DISPATCH(table_weight_gradient_at<T>)(job, begin, end);
}

#define SMORE_INSTANTIATE(T)                                                     \
  template int64_t table_packed_elements<T>(int64_t, int64_t);                   \
  template void table_pack<T>(const T*, int64_t, int64_t, T*, int64_t, int64_t); \
  template void table_forward<T>(const TableForward<T>&, int64_t, int64_t);      \
  template int64_t table_panels<T>(int64_t);                                     \
  template void table_weight_gradient<T>(const TableWeightGradient<T>&, int64_t, int64_t);
SMORE_INSTANTIATE(float)
SMORE_INSTANTIATE(double)
#undef SMORE_INSTANTIATE

}  // namespace smore
