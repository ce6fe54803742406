#include "neighbours/cpu/cosine_at_kernel.h"

#define SMORE_KERNEL_FILE "neighbours/cpu/cosine_at_kernel.inl"
#include "cpu/simd/foreach_level.h"

namespace smore {

template <typename T>
void cosine_at(const CosinePairs<T>& pairs, T* similarity, int64_t begin, int64_t end) {
  SMORE_DISPATCH(cosine_at_at<T>)(pairs, similarity, begin, end);
}

template <typename T>
void cosine_slopes(const CosinePairs<T>& pairs, const T* grad, const T* similarity, CosineSlope* slope, int64_t begin,
                   int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    for (int64_t e = i * pairs.k; e < (i + 1) * pairs.k; ++e) {
      const int64_t j = pairs.index[e];
      slope[e] = cosine_slope(grad[e], similarity[e], pairs.square[i], pairs.base_square[j], pairs.self && i == j);
    }
  }
}

void pairs_by_base(const int64_t* index, int64_t n, int64_t k, int64_t m, int64_t* start, CosinePair* order) {
  std::fill(start, start + m + 1, int64_t{0});
  for (int64_t e = 0; e < n * k; ++e) ++start[index[e] + 1];
  for (int64_t j = 0; j < m; ++j) start[j + 1] += start[j];
  // start[j] runs ahead to where row j + 1 begins, and is put back.
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t e = i * k; e < (i + 1) * k; ++e) order[start[index[e]]++] = {i, e};
  }
  for (int64_t j = m; j > 0; --j) start[j] = start[j - 1];
  start[0] = 0;
}

template <typename T>
void cosine_feature_gradient(const CosinePairs<T>& pairs, const CosineSlope* slope, const int64_t* start,
                             const CosinePair* order, T* grad_features, int64_t begin, int64_t end) {
  SMORE_DISPATCH(cosine_feature_gradient_at<T>)(pairs, slope, start, order, grad_features, begin, end);
}

template <typename T>
void cosine_base_gradient(const CosinePairs<T>& pairs, const CosineSlope* slope, const int64_t* start,
                          const CosinePair* order, T* grad_base, int64_t begin, int64_t end) {
  SMORE_DISPATCH(cosine_base_gradient_at<T>)(pairs, slope, start, order, grad_base, begin, end);
}

#define SMORE_INSTANTIATE(T)                                                                                          \
  template void cosine_at<T>(const CosinePairs<T>&, T*, int64_t, int64_t);                                            \
  template void cosine_slopes<T>(const CosinePairs<T>&, const T*, const T*, CosineSlope*, int64_t, int64_t);          \
  template void cosine_feature_gradient<T>(const CosinePairs<T>&, const CosineSlope*, const int64_t*,                 \
                                           const CosinePair*, T*, int64_t, int64_t);                                  \
  template void cosine_base_gradient<T>(const CosinePairs<T>&, const CosineSlope*, const int64_t*, const CosinePair*, \
                                        T*, int64_t, int64_t);
SMORE_INSTANTIATE(float)
SMORE_INSTANTIATE(double)
#undef SMORE_INSTANTIATE

}  // namespace smore
