#include "losses/cpu/score_tiles.inl"

namespace smore::SMORE_LEVEL {

template <typename T>
void nce_normalise_at(const T* x, int64_t n, int64_t d, T* unit, T* norm, int64_t begin, int64_t end) {
  const int64_t stride = nce_padded(d);
  for (int64_t i = begin; i < end; ++i) {
    T* to = unit + i * stride;
    double square = 0;
    if (i < n) {
      for (int64_t j = 0; j < d; ++j) square += static_cast<double>(x[i * d + j]) * static_cast<double>(x[i * d + j]);
    }
    const T length = static_cast<T>(std::sqrt(square));
    const T divisor = std::max(length, static_cast<T>(1e-12));
    norm[i] = length;
    for (int64_t j = 0; j < d; ++j) to[j] = i < n ? x[i * d + j] / divisor : T(0);
    for (int64_t j = d; j < stride; ++j) to[j] = T(0);
  }
}

template <typename T>
void nce_forward_at(const NceForward<T>& job, int64_t begin, int64_t end) {
  const int64_t stride = nce_padded(job.d);
  const T inverse = static_cast<T>(1.0 / job.temperature);
  // Scores lie in +-1/temperature. While the whole range fits the exponential, 1/temperature is a safe shift.
  const bool fixed_shift = 2.0 / job.temperature <= kNceRange;
  for (int64_t i0 = begin * kNceBlock; i0 < std::min(job.n, end * kNceBlock); i0 += kTileRows) {
    T shift[kTileRows], log_sum[kTileRows];
    for (int r = 0; r < kTileRows; ++r) shift[r] = inverse;
    const T* rows = job.x + i0 * stride;
    if (job.counts == nullptr) {
      log_sums<T>(rows, stride, job.y_panels, job.n, job.d, inverse, fixed_shift, shift, log_sum);
    } else {
      log_sums<T, true>(rows, stride, job.y_panels, job.n, job.d, inverse, fixed_shift, shift, log_sum, job.counts);
    }
    for (int r = 0; r < kTileRows; ++r) {
      const int64_t i = i0 + r;
      job.lse[i] = i < job.n ? log_sum[r] : T(0);
      if (i >= job.n) continue;
      job.loss[i] = job.lse[i] - dot(job.x + i * stride, job.y + i * stride, job.d) * inverse;
      if (job.counts != nullptr) job.loss[i] *= job.counts[i];
    }
  }
}

// Back through u = x / max(|x|, 1e-12), for one row whose gradient in u is g.
template <typename T>
void nce_unnormalise(const T* g, const T* u, T norm, T scale, int64_t d, T* grad) {
  const bool clamped = !(norm > static_cast<T>(1e-12));
  const T along = clamped ? T(0) : dot(g, u, d);
  const T factor = scale / (clamped ? static_cast<T>(1e-12) : norm);
  for (int64_t j = 0; j < d; ++j) grad[j] = factor * (g[j] - along * u[j]);
}

template <typename T>
void nce_backward_at(const NceBackward<T>& job, int64_t begin, int64_t end) {
  const int64_t stride = nce_padded(job.d), d = job.d;
  const T scale = static_cast<T>(job.scale), inverse = static_cast<T>(1.0 / job.temperature);
  const ScoreGradient<T> tiles{job.x, job.x, job.y_panels, job.y,       job.lse,   job.n,
                               job.n, d,     inverse,      job.partial, job.counts};
  const auto finish = [&](int64_t i, const T* sum) {
    nce_unnormalise(sum, job.x + i * stride, job.x_norm[i], scale, d, job.grad_x + i * d);
  };
  if (job.counts == nullptr) {
    gradient_stripes<LogSums::own_and_diagonal>(tiles, begin, end, finish);
  } else {
    gradient_stripes<LogSums::own_counted>(tiles, begin, end, finish);
  }
}

template <typename T>
void nce_finish_at(const NceFinish<T>& job, int64_t begin, int64_t end) {
  const int64_t stride = nce_padded(job.d), stripes = nce_stripes(job.n);
  const AlignedBuffer<T> sum(stride);
  for (int64_t i = begin; i < end; ++i) {
    add_stripes(job.partial, stripes, job.n, job.d, i, sum.get());
    nce_unnormalise(sum.get(), job.y + i * stride, job.y_norm[i], static_cast<T>(job.scale), job.d,
                    job.grad_y + i * job.d);
  }
}

}  // namespace smore::SMORE_LEVEL
