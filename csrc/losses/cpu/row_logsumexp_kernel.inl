#include "losses/cpu/score_tiles.inl"

namespace smore::SMORE_LEVEL {

template <typename T>
void lse_rows_at(const T* x, const T* weight, int64_t n, int64_t d, T* rows, T* norm, int64_t begin, int64_t end) {
  const int64_t stride = nce_padded(d);
  for (int64_t i = begin; i < end; ++i) {
    const T* from = x + i * d;
    T* to = rows + i * stride;
    const T factor = i < n && weight != nullptr ? weight[i] : T(1);
    double square = 0;
    for (int64_t j = 0; j < stride; ++j) to[j] = i < n && j < d ? from[j] * factor : T(0);
    if (norm == nullptr) continue;
    for (int64_t j = 0; i < n && j < d; ++j) square += static_cast<double>(from[j]) * static_cast<double>(from[j]);
    norm[i] = static_cast<T>(std::sqrt(square));
  }
}

template <typename T>
void lse_forward_at(const LseForward<T>& job, int64_t begin, int64_t end) {
  const int64_t stride = nce_padded(job.d);
  for (int64_t i0 = begin * kNceBlock; i0 < std::min(job.n, end * kNceBlock); i0 += kTileRows) {
    // |a_i . b_j| is at most |a_i| max |b_j| (Cauchy, Schwarz). While twice that fits the exponential, it is a shift.
    bool fits = true;
    T shift[kTileRows], log_sum[kTileRows];
    for (int r = 0; r < kTileRows; ++r) {
      const double bound = static_cast<double>(job.a_norm[i0 + r]) * job.b_norm;
      shift[r] = static_cast<T>(bound);
      fits &= 2 * bound <= kNceRange;
    }
    log_sums<T>(job.a + i0 * stride, stride, job.b_panels, job.m, job.d, T(1), fits, shift, log_sum);
    for (int r = 0; r < kTileRows && i0 + r < job.n; ++r) job.log_sum[i0 + r] = log_sum[r];
  }
}

template <typename T>
void lse_backward_at(const LseBackward<T>& job, int64_t begin, int64_t end) {
  const int64_t d = job.d;
  if (job.stripes_of_a()) {
    const ScoreGradient<T> tiles{job.a, job.weighted, job.panels, job.b, job.log_sum,
                                 job.n, job.m,        d,          T(1),  job.partial};
    gradient_stripes<LogSums::own>(tiles, begin, end, [&](int64_t i, const T* sum) {
      for (int64_t j = 0; j < d; ++j) job.grad_a[i * d + j] = sum[j] * job.weight[i];
    });
  } else {
    const ScoreGradient<T> tiles{job.b, job.b, job.panels, job.weighted, job.log_sum,
                                 job.m, job.n, d,          T(1),         job.partial};
    gradient_stripes<LogSums::others>(tiles, begin, end, [&](int64_t i, const T* sum) {
      for (int64_t j = 0; j < d; ++j) job.grad_b[i * d + j] = sum[j];
    });
  }
}

template <typename T>
void lse_finish_at(const LseBackward<T>& job, int64_t begin, int64_t end) {
  const int64_t d = job.d;
  for (int64_t i = begin; i < end; ++i) {
    T* to = (job.stripes_of_a() ? job.grad_b : job.grad_a) + i * d;
    add_stripes(job.partial, job.stripes(), job.shorter(), d, i, to);
    for (int64_t j = 0; !job.stripes_of_a() && j < d; ++j) to[j] *= job.weight[i];
  }
}

}  // namespace smore::SMORE_LEVEL
