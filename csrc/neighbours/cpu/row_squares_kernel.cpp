#include "neighbours/cpu/row_squares_kernel.h"

#define SMORE_KERNEL_FILE "neighbours/cpu/row_squares_kernel.inl"
#include "cpu/simd/foreach_level.h"

namespace smore {

template <typename T>
void row_squares(const T* x, int64_t d, double* square, int64_t begin, int64_t end) {
  SMORE_DISPATCH(row_squares_at<T>)(x, d, square, begin, end);
}

template void row_squares<float>(const float*, int64_t, double*, int64_t, int64_t);
template void row_squares<double>(const double*, int64_t, double*, int64_t, int64_t);

}  // namespace smore
