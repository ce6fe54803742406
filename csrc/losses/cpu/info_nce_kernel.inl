#include "cpu/exponential.inl"
#include "cpu/gemm_tile.inl"

namespace smore::SMORE_LEVEL {

// Columns whose probabilities are kept at a time: kTileRows x kNceColumns lie in the first-level cache.
inline constexpr int64_t kNceColumns = 256;

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
void nce_pack_at(const T* unit, int64_t n, int64_t d, T* panels, int64_t begin, int64_t end) {
  constexpr int64_t C = kTileColumns<T>;
  const int64_t stride = nce_padded(d), rows = nce_padded(n);
  for (int64_t row = begin * kNceBlock; row < std::min(rows, end * kNceBlock); ++row) {
    T* to = panels + row / C * C * d + row % C;
    for (int64_t k = 0; k < d; ++k) to[k * C] = unit[row * stride + k];
  }
}

template <typename T>
T dot(const T* a, const T* b, int64_t d) {
  double sum = 0;
  for (int64_t j = 0; j < d; ++j) sum += static_cast<double>(a[j]) * static_cast<double>(b[j]);
  return static_cast<T>(sum);
}

// Scores of kTileRows rows against one panel, divided by the temperature.
template <typename T>
SMORE_INLINE void scores(const T* rows, int64_t stride, const T* panel, int64_t d, T inverse_temperature,
                         Vec<T> (&s)[kTileRows][kTileVectors]) {
  clear<T>(s);
  gemm_tile<T>(rows, stride, 1, panel, kTileColumns<T>, d, s);
  for (int r = 0; r < kTileRows; ++r) {
    for (int v = 0; v < kTileVectors; ++v) s[r][v] *= broadcast(inverse_temperature);
  }
}

// Lane l of register v is a real column.
template <typename T>
SMORE_INLINE typename VecOf<T>::mask inside(int64_t first, int64_t n) {
  typename VecOf<T>::mask index{};
  for (int l = 0; l < kWidth<T>; ++l) index[l] = l;
  const auto limit = static_cast<std::remove_reference_t<decltype(index[0])>>(std::min<int64_t>(n - first, kWidth<T>));
  return index < limit;
}

template <typename T>
void nce_forward_at(const NceForward<T>& job, int64_t begin, int64_t end) {
  constexpr int64_t C = kTileColumns<T>;
  constexpr int W = kWidth<T>;
  const int64_t stride = nce_padded(job.d), panels = (job.n + C - 1) / C;
  const T inverse = static_cast<T>(1.0 / job.temperature);
  // Scores lie in +-1/temperature. While the whole range fits the exponential, 1/temperature is a safe shift;
  // below that, each row's largest score is found first.
  const bool fixed_shift = 2.0 / job.temperature <= 80.0;
  for (int64_t i0 = begin * kNceBlock; i0 < std::min(job.n, end * kNceBlock); i0 += kTileRows) {
    const T* rows = job.x + i0 * stride;
    Vec<T> s[kTileRows][kTileVectors];
    T shift[kTileRows];
    for (int r = 0; r < kTileRows; ++r) shift[r] = inverse;
    if (!fixed_shift) {
      Vec<T> best[kTileRows];
      for (int r = 0; r < kTileRows; ++r) best[r] = broadcast(-std::numeric_limits<T>::infinity());
      for (int64_t p = 0; p < panels; ++p) {
        scores<T>(rows, stride, job.y_panels + p * C * job.d, job.d, inverse, s);
        for (int v = 0; v < kTileVectors; ++v) {
          const auto real = inside<T>(p * C + v * W, job.n);
          for (int r = 0; r < kTileRows; ++r) best[r] = (real & (s[r][v] > best[r])) ? s[r][v] : best[r];
        }
      }
      for (int r = 0; r < kTileRows; ++r) {
        shift[r] = best[r][0];
        for (int l = 1; l < W; ++l) shift[r] = std::max<T>(shift[r], best[r][l]);
      }
    }
    Vec<T> sum[kTileRows];
    for (int r = 0; r < kTileRows; ++r) sum[r] = Vec<T>{};
    for (int64_t p = 0; p < panels; ++p) {
      scores<T>(rows, stride, job.y_panels + p * C * job.d, job.d, inverse, s);
      const bool whole = (p + 1) * C <= job.n;
      for (int v = 0; v < kTileVectors; ++v) {
        for (int r = 0; r < kTileRows; ++r) {
          Vec<T> e = exponential(s[r][v] - broadcast(shift[r]));
          if (!whole) e = inside<T>(p * C + v * W, job.n) ? e : Vec<T>{};
          sum[r] += e;
        }
      }
    }
    for (int r = 0; r < kTileRows; ++r) {
      const int64_t i = i0 + r;
      job.lse[i] = i < job.n ? shift[r] + std::log(lane_sum<T>(sum[r])) : T(0);
      if (i < job.n) job.loss[i] = job.lse[i] - dot(job.x + i * stride, job.y + i * stride, job.d) * inverse;
    }
  }
}

// p_ij - [i = j] of kTileRows rows from i0 on and of the columns [j0, j0 + columns); zero outside the batch.
template <typename T>
void nce_probabilities(const NceBackward<T>& job, int64_t i0, int64_t j0, int64_t columns, T* probability) {
  constexpr int64_t C = kTileColumns<T>;
  constexpr int W = kWidth<T>;
  const int64_t stride = nce_padded(job.d);
  const T inverse = static_cast<T>(1.0 / job.temperature);
  for (int64_t c = 0; c < columns; c += C) {
    Vec<T> s[kTileRows][kTileVectors];
    scores<T>(job.x + i0 * stride, stride, job.y_panels + (j0 + c) * job.d, job.d, inverse, s);
    for (int v = 0; v < kTileVectors; ++v) {
      const int64_t first = j0 + c + v * W;
      const bool whole = first + W <= job.n;
      for (int r = 0; r < kTileRows; ++r) {
        Vec<T> e = exponential(s[r][v] - broadcast(job.lse[i0 + r]));
        if (!whole) e = inside<T>(first, job.n) ? e : Vec<T>{};
        store(probability + r * kNceColumns + c + v * W, e);
      }
    }
  }
  for (int r = 0; r < kTileRows; ++r) {
    if (i0 + r >= job.n) {
      std::fill(probability + r * kNceColumns, probability + r * kNceColumns + columns, T(0));
      continue;
    }
    const int64_t own = i0 + r - j0;
    if (own >= 0 && own < columns) probability[r * kNceColumns + own] -= T(1);
  }
}

// to[r][0..d) += sum_k a[r * row_step + k * k_step] * b[k][0..d) for kTileRows rows.
template <typename T>
void nce_accumulate(const T* a, int64_t row_step, int64_t k_step, const T* b, int64_t stride, int64_t depth, int64_t d,
                    T* to) {
  constexpr int W = kWidth<T>;
  for (int64_t c = 0; c < d; c += kTileColumns<T>) {
    Vec<T> acc[kTileRows][kTileVectors];
    for (int r = 0; r < kTileRows; ++r) {
      for (int v = 0; v < kTileVectors; ++v) acc[r][v] = load(to + r * stride + c + v * W);
    }
    gemm_tile<T>(a, row_step, k_step, b + c, stride, depth, acc);
    for (int r = 0; r < kTileRows; ++r) {
      for (int v = 0; v < kTileVectors; ++v) store(to + r * stride + c + v * W, acc[r][v]);
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
  static_assert(kNceBlock % kTileRows == 0 && kNceColumns % kTileRows == 0);
  const int64_t stride = nce_padded(job.d), padded = nce_padded(job.n), d = job.d;
  const int64_t blocks = padded / kNceBlock, stripes = nce_stripes(job.n);
  const T scale = static_cast<T>(job.scale);
  const AlignedBuffer<T> probability(kNceBlock * kNceColumns), gradient(kNceBlock * stride);
  for (int64_t stripe = begin; stripe < end; ++stripe) {
    T* partial = job.partial + stripe * padded * stride;
    std::fill(partial, partial + padded * stride, T(0));
    for (int64_t block = stripe * blocks / stripes; block < (stripe + 1) * blocks / stripes; ++block) {
      const int64_t first = block * kNceBlock;
      std::fill(gradient.get(), gradient.get() + kNceBlock * stride, T(0));
      // All rows of the block meet a group of columns while these lie in the second-level cache.
      for (int64_t j0 = 0; j0 < padded; j0 += kNceColumns) {
        const int64_t columns = std::min(kNceColumns, padded - j0);
        for (int64_t i = 0; i < kNceBlock; i += kTileRows) {
          T* rows = probability.get() + i * kNceColumns;
          nce_probabilities(job, first + i, j0, columns, rows);
          nce_accumulate(rows, kNceColumns, 1, job.y + j0 * stride, stride, columns, d, gradient.get() + i * stride);
        }
        for (int64_t j = 0; j < columns; j += kTileRows) {
          nce_accumulate(probability.get() + j, 1, kNceColumns, job.x + first * stride, stride, kNceBlock, d,
                         partial + (j0 + j) * stride);
        }
      }
      for (int64_t i = first; i < std::min(job.n, first + kNceBlock); ++i) {
        nce_unnormalise(gradient.get() + (i - first) * stride, job.x + i * stride, job.x_norm[i], scale, d,
                        job.grad_x + i * d);
      }
    }
  }
}

template <typename T>
void nce_finish_at(const NceFinish<T>& job, int64_t begin, int64_t end) {
  const int64_t stride = nce_padded(job.d), size = nce_padded(job.n) * stride, stripes = nce_stripes(job.n);
  const AlignedBuffer<T> sum(stride);
  for (int64_t i = begin; i < end; ++i) {
    std::fill(sum.get(), sum.get() + stride, T(0));
    for (int64_t s = 0; s < stripes; ++s) {  // in order
      const T* from = job.partial + s * size + i * stride;
      for (int64_t j = 0; j < job.d; ++j) sum.get()[j] += from[j];
    }
    nce_unnormalise(sum.get(), job.y + i * stride, job.y_norm[i], static_cast<T>(job.scale), job.d,
                    job.grad_y + i * job.d);
  }
}

}  // namespace smore::SMORE_LEVEL
