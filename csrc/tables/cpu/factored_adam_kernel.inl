// The gradient of eight rows is summed up in the cache, panel by panel, and used up there; then each row's stretch of
// the parameter and its two moments passes by once. Stretches are long so that the processor fetches ahead by itself:
// with the update done panel by panel (128 bytes of each row) the same work took twice as long.
#include "cpu/gemm_tile.inl"

namespace smore::SMORE_LEVEL {

// Share of the factor, in bytes, that all rows pass by before the next: it stays in the second-level cache.
inline constexpr int64_t kFactorBytes = int64_t{1} << 20;

template <typename T>
int64_t adam_panels_at(int64_t width) {
  return (width + kTileColumns<T> - 1) / kTileColumns<T>;
}

template <typename T>
int64_t adam_panel_elements_at(int64_t d) {
  return d * kTileColumns<T>;
}

template <typename T>
void adam_pack_at(const T* factor, int64_t d, int64_t width, T* panels, int64_t begin, int64_t end) {
  constexpr int64_t C = kTileColumns<T>;
  for (int64_t p = begin; p < end; ++p) {
    const int64_t count = std::min(C, width - p * C);
    T* panel = panels + p * d * C;
    for (int64_t k = 0; k < d; ++k) {
      for (int64_t c = 0; c < C; ++c) panel[k * C + c] = c < count ? factor[k * width + p * C + c] : T(0);
    }
  }
}

template <typename T>
struct AdamConstants {
  Vec<T> minus_step, one_minus_beta1, beta2, one_minus_beta2, root_correction, eps;

  explicit AdamConstants(const FactoredAdam<T>& job)
      : minus_step(broadcast(static_cast<T>(-job.step_size))),
        one_minus_beta1(broadcast(static_cast<T>(1 - job.beta1))),
        beta2(broadcast(static_cast<T>(job.beta2))),
        one_minus_beta2(broadcast(static_cast<T>(1 - job.beta2))),
        root_correction(broadcast(static_cast<T>(1 / job.root_correction))),
        eps(broadcast(static_cast<T>(job.eps))) {}
};

template <typename T>
SMORE_INLINE void adam_update(const AdamConstants<T>& c, Vec<T> grad, T* param, T* average, T* square) {
  const Vec<T> m = load(average), v = load(square), p = load(param);
  const Vec<T> new_m = fma(grad - m, c.one_minus_beta1, m);
  const Vec<T> new_v = fma(c.one_minus_beta2 * grad, grad, v * c.beta2);
  const Vec<T> size = fma(square_root(new_v), c.root_correction, c.eps);
  store(average, new_m);
  store(square, new_v);
  store(param, fma(c.minus_step, new_m / size, p));
}

// The same for the last columns of a row, through a full register of zeros.
template <typename T>
void adam_update_some(const AdamConstants<T>& c, Vec<T> grad, T* param, T* average, T* square, int64_t count) {
  T p[kWidth<T>] = {}, m[kWidth<T>] = {}, v[kWidth<T>] = {};
  const size_t bytes = static_cast<size_t>(count) * sizeof(T);
  std::memcpy(p, param, bytes);
  std::memcpy(m, average, bytes);
  std::memcpy(v, square, bytes);
  adam_update(c, grad, p, m, v);
  std::memcpy(param, p, bytes);
  std::memcpy(average, m, bytes);
  std::memcpy(square, v, bytes);
}

// One stretch of a row: gradient [count], parameters and moments behind each other in memory.
template <typename T>
void adam_stretch(const AdamConstants<T>& c, const T* grad, T* param, T* average, T* square, int64_t count) {
  constexpr int64_t W = kWidth<T>;
  int64_t i = 0;
  for (; i + W <= count; i += W) adam_update<T>(c, load(grad + i), param + i, average + i, square + i);
  if (i < count) adam_update_some<T>(c, load(grad + i), param + i, average + i, square + i, count - i);
}

template <typename T>
void factored_adam_at(const FactoredAdam<T>& job, int64_t begin, int64_t end) {
  constexpr int64_t C = kTileColumns<T>;
  static_assert(kAdamRows % kTileRows == 0);
  const AdamConstants<T> constants(job);
  const int64_t d = job.d, width = job.width, panels = adam_panels_at<T>(width);
  const int64_t block = std::clamp<int64_t>(kFactorBytes / static_cast<int64_t>(sizeof(T)) / (d * C + 1), 1, panels);
  const AlignedBuffer<T> rows(kTileRows * d), gradient(kTileRows * block * C);
  for (int64_t first = 0; first < panels; first += block) {
    const int64_t last = std::min(panels, first + block), left = first * C;
    const int64_t columns = std::min(width, last * C) - left;
    for (int64_t row = begin * kAdamRows; row < std::min(job.n, end * kAdamRows); row += kTileRows) {
      const int64_t count = std::min<int64_t>(kTileRows, job.n - row);
      std::memcpy(rows.get(), job.grad_rows + row * d, static_cast<size_t>(count * d) * sizeof(T));
      std::fill(rows.get() + count * d, rows.get() + kTileRows * d, T(0));
      for (int64_t p = first; p < last; ++p) {
        Vec<T> grad[kTileRows][kTileVectors] = {};
        gemm_tile<T>(rows.get(), d, 1, job.panels + p * d * C, C, d, grad);
        T* to = gradient.get() + (p - first) * C;
        for (int r = 0; r < kTileRows; ++r) {
          for (int v = 0; v < kTileVectors; ++v) store(to + r * block * C + v * kWidth<T>, grad[r][v]);
        }
      }
      for (int64_t r = 0; r < count; ++r) {
        const int64_t at = (row + r) * width + left;
        adam_stretch<T>(constants, gradient.get() + r * block * C, job.param + at, job.average + at, job.square + at,
                        columns);
      }
    }
  }
}

}  // namespace smore::SMORE_LEVEL
