#include "neighbours/cpu/dot_double.inl"

namespace smore::SMORE_LEVEL {

template <typename T>
void cosine_at_at(const CosinePairs<T>& pairs, T* similarity, int64_t begin, int64_t end) {
  constexpr int J = 4;
  const int64_t k = pairs.k, d = pairs.d;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t* index = pairs.index + i * k;
    for (int64_t p = 0; p < k; p += J) {
      const T* rows[J];
      for (int l = 0; l < J; ++l) rows[l] = pairs.base + index[std::min(p + l, k - 1)] * d;
      double dots[J];
      dot_double<T, J>(pairs.features + i * d, rows, d, dots);
      for (int64_t l = 0; l < std::min<int64_t>(J, k - p); ++l) {
        const int64_t j = index[p + l];
        similarity[i * k + p + l] = cosine<T>(dots[l], pairs.square[i], pairs.base_square[j], pairs.self && i == j);
      }
    }
  }
}

// A row of a gradient, N times eight elements of it from `at` on: the sum of slope times partner over the row's pairs,
// less along times the row itself. each(f) calls f(slope, partner) for the pairs in order. Every product and sum is
// rounded on its own, so that every instruction level, and a GPU, gives the same bits.
template <int N, typename T, typename F>
SMORE_INLINE void gradient_piece(const F& each, double along, const T* own, int64_t at, T* to) {
  typedef double Sums __attribute__((vector_size(64)));
  typedef T Eight __attribute__((vector_size(8 * sizeof(T)), aligned(alignof(T)), may_alias));
  Sums sum[N] = {};
  each([&](double slope, const T* partner) {
    const Eight* from = reinterpret_cast<const Eight*>(partner + at);
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) sum[i] += slope * __builtin_convertvector(from[i], Sums);
  });
  const Eight* itself = reinterpret_cast<const Eight*>(own + at);
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) {
    sum[i] -= along * __builtin_convertvector(itself[i], Sums);
    reinterpret_cast<Eight*>(to + at)[i] = __builtin_convertvector(sum[i], Eight);
  }
}

template <typename T, typename F>
SMORE_INLINE void gradient_row(const F& each, double along, const T* own, int64_t d, T* to) {
  int64_t at = 0;
  for (; at + 64 <= d; at += 64) gradient_piece<8>(each, along, own, at, to);
  for (; at + 8 <= d; at += 8) gradient_piece<1>(each, along, own, at, to);
  for (; at < d; ++at) {
    double sum = 0;
    each([&](double slope, const T* partner) { sum += slope * static_cast<double>(partner[at]); });
    to[at] = static_cast<T>(sum - along * static_cast<double>(own[at]));
  }
}

template <typename T>
void cosine_feature_gradient_at(const CosinePairs<T>& pairs, const CosineSlope* slope, const int64_t* start,
                                const CosinePair* order, T* grad_features, int64_t begin, int64_t end) {
  const int64_t k = pairs.k, d = pairs.d;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t first = start == nullptr ? 0 : start[i], last = start == nullptr ? 0 : start[i + 1];
    double shares = 0;
    for (int64_t e = i * k; e < (i + 1) * k; ++e) shares += slope[e].share;
    for (int64_t o = first; o < last; ++o) shares += slope[order[o].pair].share;
    const auto each = [&](const auto& f) {
      for (int64_t e = i * k; e < (i + 1) * k; ++e) f(slope[e].slope, pairs.base + pairs.index[e] * d);
      for (int64_t o = first; o < last; ++o) f(slope[order[o].pair].slope, pairs.features + order[o].row * d);
    };
    gradient_row(each, cosine_along(shares, pairs.square[i]), pairs.features + i * d, d, grad_features + i * d);
  }
}

template <typename T>
void cosine_base_gradient_at(const CosinePairs<T>& pairs, const CosineSlope* slope, const int64_t* start,
                             const CosinePair* order, T* grad_base, int64_t begin, int64_t end) {
  const int64_t d = pairs.d;
  for (int64_t j = begin; j < end; ++j) {
    double shares = 0;
    for (int64_t o = start[j]; o < start[j + 1]; ++o) shares += slope[order[o].pair].share;
    const auto each = [&](const auto& f) {
      for (int64_t o = start[j]; o < start[j + 1]; ++o) {
        f(slope[order[o].pair].slope, pairs.features + order[o].row * d);
      }
    };
    gradient_row(each, cosine_along(shares, pairs.base_square[j]), pairs.base + j * d, d, grad_base + j * d);
  }
}

}  // namespace smore::SMORE_LEVEL
