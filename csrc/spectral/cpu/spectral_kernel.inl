#include "cpu/fft.inl"
#include "cpu/tile.inl"

namespace smore::SMORE_LEVEL {

// One factor a row for the rows of a tile: [0] the first W rows (real parts), [1] the next W rows (imaginary parts).
template <typename T>
struct RowScale {
  Vec<T> half[2];
};

template <typename T>
SMORE_INLINE RowScale<T> product(const RowScale<T>& a, const RowScale<T>& b) {
  return {{a.half[0] * b.half[0], a.half[1] * b.half[1]}};
}

// The power of two just below the largest element of each of up to 2 W rows; 0 for a zero row, NaN for a row with NaN
// or infinity. Rows that travel as one complex number must be of one size: rounding errors are relative to the larger.
template <typename T>
RowScale<T> row_scale(const T* rows, int64_t d, int64_t valid) {
  constexpr int W = kWidth<T>;
  typedef typename VecOf<T>::mask Bits;  // sizes of floating numbers, sign aside, sort like their bits
  typedef std::conditional_t<sizeof(T) == 4, int32_t, int64_t> Int;
  constexpr Int magnitude = std::numeric_limits<Int>::max();
  alignas(64) Int largest[2 * W] = {};
  for (int64_t r = 0; r < std::min<int64_t>(valid, 2 * W); ++r) {
    const T* row = rows + r * d;
    Bits top{};
    int64_t j = 0;
    for (; j + W <= d; j += W) {
      const Bits size = (Bits)load(row + j) & magnitude;
      top = size > top ? size : top;
    }
    Int best = 0;
    for (int l = 0; l < W; ++l) best = std::max<Int>(best, top[l]);
    for (; j < d; ++j) {
      Int bits;
      std::memcpy(&bits, row + j, sizeof bits);
      best = std::max<Int>(best, bits & magnitude);
    }
    largest[r] = best;
  }
  const Vec<T> zero{}, tiny = broadcast(std::numeric_limits<T>::min()),
                       huge = broadcast(1 / std::numeric_limits<T>::min());
  const Vec<T> infinity = broadcast(std::numeric_limits<T>::infinity());
  const Vec<T> nan = broadcast(std::numeric_limits<T>::quiet_NaN());
  RowScale<T> scale;
  for (int h = 0; h < 2; ++h) {
    Bits bits;
    std::memcpy(&bits, largest + h * W, sizeof bits);
    const Vec<T> size = (Vec<T>)bits;
    Vec<T> power = (Vec<T>)(bits & (Bits)infinity);
    power = power < tiny ? tiny : power;
    power = power > huge ? huge : power;
    power = size > zero ? power : zero;
    scale.half[h] = size < infinity ? power : nan;
  }
  return scale;
}

// Pairs of rows, each divided by its factor: the first W rows of a tile are the real parts, the next W rows the
// imaginary parts. Rows whose factor is 0 or NaN become zero, so that they leave no trace in their partner.
template <typename T>
void load_pairs(const T* rows, int64_t d, int64_t valid, const RowScale<T>& scale, T* data) {
  constexpr int W = kWidth<T>;
  const Vec<T> zero{}, one = broadcast(T(1));
  for (int h = 0; h < 2; ++h) {
    const auto usable = scale.half[h] > zero;
    const Vec<T> inverse = one / (usable ? scale.half[h] : one);
    load_lanes(
        rows + h * W * d, d, valid - h * W, d, [&](Vec<T> v) { return usable ? v * inverse : zero; }, data + h * W);
  }
}

template <typename T>
void store_pairs(const T* data, const RowScale<T>& scale, int64_t d, T* rows, int64_t valid) {
  constexpr int W = kWidth<T>;
  store_lanes(data, scale.half[0], d, rows, d, valid);
  if (valid > W) store_lanes(data + W, scale.half[1], d, rows + W * d, d, valid - W);
}

// Twice the two spectra that travel in Z, at bin k; `mirror` is Z at bin d - k.
template <typename T>
struct Pair {
  Complex<T> a, b;
};

template <typename T>
SMORE_INLINE Pair<T> unpack(const T* data, int64_t k, int64_t mirror) {
  const Complex<T> z = load_complex<T, false>(data, k), c = load_complex<T, false>(data, mirror);
  return {{z.re + c.re, z.im - c.im}, {z.im + c.im, c.re - z.re}};
}

template <typename T>
SMORE_INLINE Complex<T> packed(const Pair<T>& p) {
  return {p.a.re - p.b.im, p.a.im + p.b.re};
}

template <typename T>
SMORE_INLINE Complex<T> packed_mirror(const Pair<T>& p) {
  return {p.a.re + p.b.im, p.b.re - p.a.im};
}

template <typename T>
SMORE_INLINE Complex<T> multiply(Complex<T> a, Complex<T> b) {
  return {fma(a.re, b.re, -(a.im * b.im)), fma(a.re, b.im, a.im * b.re)};
}

template <typename T>
SMORE_INLINE Complex<T> multiply_conj(Complex<T> a, Complex<T> b) {  // conj(a) * b
  return {fma(a.re, b.re, a.im * b.im), fma(a.re, b.im, -(a.im * b.re))};
}

// The filter over all d bins, times `scale`: out[2k], out[2k+1]; zero at bins that are not kept. Imaginary parts of
// bins 0 and d/2 have no effect.
template <typename T>
void full_filter(const T* weight, int64_t d, int64_t kept, double scale, T* out) {
  for (int64_t k = 0; k <= d / 2; ++k) {
    const int64_t mirror = k == 0 ? 0 : d - k;
    const T re = k < kept ? static_cast<T>(weight[2 * k] * scale) : T(0);
    const T im = k < kept && k != mirror ? static_cast<T>(weight[2 * k + 1] * scale) : T(0);
    out[2 * k] = re;
    out[2 * k + 1] = im;
    out[2 * mirror] = re;
    if (k != mirror) out[2 * mirror + 1] = -im;
  }
}

template <typename T>
class SpectralTile {
 public:
  static constexpr int W = kWidth<T>;

  SpectralTile(const SpectralPlan<T>& plan, int64_t modalities, bool backward, bool fused)
      : plan_(plan),
        size_(2 * W * plan.room()),
        count_((backward ? 2 * modalities : modalities) + (fused ? 1 : 0) + 1),
        memory_(size_ * (count_ + 1) + 4 * W),
        scales_(count_) {
    slots_ = new T*[static_cast<size_t>(count_)];
    for (int64_t i = 0; i < count_; ++i) slots_[i] = memory_.get() + i * size_;
    scratch_ = memory_.get() + count_ * size_;
  }
  ~SpectralTile() { delete[] slots_; }
  SpectralTile(const SpectralTile&) = delete;
  SpectralTile& operator=(const SpectralTile&) = delete;

  T* slot(int64_t i) { return slots_[i]; }
  // How much smaller the rows in slot i are than the true ones.
  RowScale<T>& scale(int64_t i) { return scales_.get()[i]; }

  // Rows into slot i, each divided by its own scale.
  void load(const T* rows, int64_t valid, int64_t i) {
    scale(i) = row_scale(rows, plan_.d, valid);
    load_pairs(rows, plan_.d, valid, scale(i), slots_[i]);
  }

  void forward(int64_t i, const T* filter = nullptr) {
    settle(i, fft<T, false>(plan_, slots_[i], slots_[count_ - 1], scratch_, filter));
  }
  void inverse(int64_t i) { settle(i, fft<T, true>(plan_, slots_[i], slots_[count_ - 1], scratch_)); }

 private:
  void settle(int64_t i, T* result) {
    if (result != slots_[i]) std::swap(slots_[i], slots_[count_ - 1]);
  }

  const SpectralPlan<T>& plan_;
  int64_t size_, count_;
  AlignedBuffer<T> memory_;
  AlignedBuffer<RowScale<T>> scales_;
  T** slots_;
  T* scratch_;
};

// Filters over all bins: M of them (unused where only the fusion is wanted), then the fusion filter.
template <typename T>
struct Filters {
  AlignedBuffer<T> memory;
  int64_t d, modalities;

  Filters(const SpectralPlan<T>& plan, int64_t modalities, const T* const* weight, const T* fusion_weight)
      : memory(2 * plan.d * (modalities + 1)), d(plan.d), modalities(modalities) {
    for (int64_t m = 0; weight != nullptr && m < modalities; ++m)
      full_filter(weight[m], d, plan.kept, 1.0 / static_cast<double>(d), memory.get() + 2 * d * m);
    if (fusion_weight != nullptr) {
      // 2^-M: spectra are taken apart without their factor 1/2.
      const double scale = std::pow(static_cast<double>(d), -0.5 * static_cast<double>(modalities + 1)) *
                           std::pow(0.5, static_cast<double>(modalities));
      full_filter(fusion_weight, d, plan.kept, scale, memory.get() + 2 * d * modalities);
    }
  }
  const T* of(int64_t m) const { return memory.get() + 2 * d * m; }
  const T* fusion() const { return of(modalities); }
};

}  // namespace smore::SMORE_LEVEL

#include "spectral/cpu/spectral_kept.inl"
#if SMORE_VECTOR_BYTES == 64
#include "spectral/cpu/spectral_row64.inl"
#endif

namespace smore::SMORE_LEVEL {

template <typename T>
void forward_tile(const SpectralForward<T>& job, const Filters<T>& filters, SpectralTile<T>& tile, int64_t row) {
  const int64_t d = job.plan->d, M = job.modalities, valid = std::min<int64_t>(job.n - row, 2 * kWidth<T>);
  for (int64_t m = 0; m < M; ++m) {
    tile.load(job.x[m] + row * d, valid, m);
    tile.forward(m, job.fused == nullptr ? filters.of(m) : nullptr);
  }
  if (job.fused != nullptr) {
    RowScale<T> scale = tile.scale(0);
    for (int64_t m = 1; m < M; ++m) scale = product(scale, tile.scale(m));
    T* fused = tile.slot(M);
    for (int64_t k = 0; k <= d / 2; ++k) {
      const int64_t mirror = k == 0 ? 0 : d - k;
      Pair<T> p = unpack(tile.slot(0), k, mirror);
      for (int64_t m = 1; m < M; ++m) {
        const Pair<T> q = unpack(tile.slot(m), k, mirror);
        p = {multiply(p.a, q.a), multiply(p.b, q.b)};
      }
      const T* w = filters.fusion() + 2 * k;
      p = {times(p.a, w[0], w[1]), times(p.b, w[0], w[1])};
      store_complex<T, false>(fused, k, packed(p));
      if (mirror != k) store_complex<T, false>(fused, mirror, packed_mirror(p));
    }
    tile.inverse(M);
    store_pairs(tile.slot(M), scale, d, job.fused + row * d, valid);
  }
  for (int64_t m = 0; job.weight != nullptr && m < M; ++m) {
    T* z = tile.slot(m);
    const T* w = filters.of(m);
    for (int64_t k = 0; job.fused != nullptr && k < d; ++k) {
      store_complex<T, false>(z, k, times(load_complex<T, false>(z, k), w[2 * k], w[2 * k + 1]));
    }
    tile.inverse(m);
    store_pairs(tile.slot(m), tile.scale(m), d, job.y[m] + row * d, valid);
  }
}

template <typename T>
void spectral_forward_at(const SpectralForward<T>& job, int64_t begin, int64_t end) {
  if (job.plan->to_bins != nullptr) return kept_forward_chunks(job, begin, end);
  const Filters<T> filters(*job.plan, job.modalities, job.weight, job.fusion_weight);
#if SMORE_VECTOR_BYTES == 64
  if constexpr (std::is_same_v<T, float>) {
    if (job.plan->d == 64) return row64_forward_chunks(job, filters, begin, end);
  }
#endif
  SpectralTile<T> tile(*job.plan, job.modalities, false, job.fused != nullptr);
  const int64_t last = std::min(job.n, end * kSpectralChunkRows);
  for (int64_t row = begin * kSpectralChunkRows; row < last; row += 2 * kWidth<T>)
    forward_tile(job, filters, tile, row);
}

template <typename T>
SMORE_INLINE void accumulate(T* sums, int64_t at, Complex<T> value) {
  store_complex<T, false>(sums, at, add(load_complex<T, false>(sums, at), value));
}

// conj(x) * g of both rows of a pair, each times its own factor.
template <typename T>
SMORE_INLINE Complex<T> correlate(const Pair<T>& x, const Pair<T>& g, const RowScale<T>& weight) {
  const Complex<T> a = multiply_conj(x.a, g.a), b = multiply_conj(x.b, g.b);
  return {fma(a.re, weight.half[0], b.re * weight.half[1]), fma(a.im, weight.half[0], b.im * weight.half[1])};
}

// The gradient of x_m has two parts: the filtered array's, of size `own`, and the fused array's, of size `other`. Both
// are brought to the larger size, which is left in `own`; returned is what the second part is still to be multiplied
// with.
template <typename T>
RowScale<T> common_scale(RowScale<T>& own, const RowScale<T>& other) {
  const Vec<T> zero{}, one = broadcast(T(1)), nan = broadcast(std::numeric_limits<T>::quiet_NaN());
  const Vec<T> tiny = broadcast(std::numeric_limits<T>::min());  // below it the inverse would be infinite
  RowScale<T> factor;
  for (int h = 0; h < 2; ++h) {
    const Vec<T> a = own.half[h], b = other.half[h], either = a > b ? a : b;
    const Vec<T> larger = (either > zero) & (either < tiny) ? tiny : either;
    const auto usable = (a == a) & (b == b) & (larger > zero);
    factor.half[h] = usable ? b / (usable ? larger : one) : zero;
    own.half[h] = ((a == a) & (b == b)) ? larger : nan;
  }
  return factor;
}

// `sums`: lane sums of the filter gradients of one chunk, [filters][d/2+1] complex registers. Slots: x_m, then the
// gradient of x_m, then grad_fused.
template <typename T>
void backward_tile(const SpectralBackward<T>& job, const Filters<T>& filters, SpectralTile<T>& tile, T* sums,
                   int64_t row) {
  const int64_t d = job.plan->d, M = job.modalities, bins = d / 2 + 1;
  const int64_t valid = std::min<int64_t>(job.n - row, 2 * kWidth<T>);
  const bool fused = job.grad_fused != nullptr, filtered = job.weight != nullptr;
  for (int64_t m = 0; m < M; ++m) {
    tile.load(job.x[m] + row * d, valid, m);
    tile.forward(m);
  }
  if (fused) {
    tile.load(job.grad_fused + row * d, valid, 2 * M);
    tile.forward(2 * M);
  }
  for (int64_t m = 0; m < M; ++m) {
    RowScale<T>& scale = tile.scale(M + m);
    scale = filtered ? row_scale(job.grad_y[m] + row * d, d, valid) : RowScale<T>{};
    RowScale<T> share{};
    if (fused) {
      RowScale<T> other = tile.scale(2 * M);
      for (int64_t j = 0; j < M; ++j) {
        if (j != m) other = product(other, tile.scale(j));
      }
      share = common_scale(scale, other);
    }
    if (filtered) {
      load_pairs(job.grad_y[m] + row * d, d, valid, scale, tile.slot(M + m));
      tile.forward(M + m);
      const RowScale<T> weight = product(tile.scale(m), scale);
      const T *x = tile.slot(m), *w = filters.of(m);
      T* g = tile.slot(M + m);
      for (int64_t k = 0; k < bins; ++k) {
        const int64_t mirror = k == 0 ? 0 : d - k;
        accumulate(sums, m * bins + k, correlate(unpack(x, k, mirror), unpack(g, k, mirror), weight));
      }
      for (int64_t k = 0; k < d; ++k) {
        store_complex<T, false>(g, k, times(load_complex<T, false>(g, k), w[2 * k], -w[2 * k + 1]));
      }
    } else {
      std::fill_n(tile.slot(M + m), 2 * kWidth<T> * d, T(0));
    }
    if (!fused) continue;
    T* g = tile.slot(M + m);
    for (int64_t k = 0; k < bins; ++k) {
      const int64_t mirror = k == 0 ? 0 : d - k;
      Pair<T> p = unpack(tile.slot(2 * M), k, mirror);  // times the conjugates of the filter and of all other spectra
      const T* wf = filters.fusion() + 2 * k;
      p = {times(p.a, wf[0], -wf[1]), times(p.b, wf[0], -wf[1])};
      for (int64_t j = 0; j < M; ++j) {
        if (j == m) continue;
        const Pair<T> q = unpack(tile.slot(j), k, mirror);
        p = {multiply_conj(q.a, p.a), multiply_conj(q.b, p.b)};
      }
      p = {{p.a.re * share.half[0], p.a.im * share.half[0]}, {p.b.re * share.half[1], p.b.im * share.half[1]}};
      accumulate(g, k, packed(p));
      if (mirror != k) accumulate(g, mirror, packed_mirror(p));
    }
  }
  if (fused) {
    const int64_t fusion = spectral_filters(job) - 1;
    RowScale<T> weight = tile.scale(2 * M);
    for (int64_t m = 0; m < M; ++m) weight = product(weight, tile.scale(m));
    for (int64_t k = 0; k < bins; ++k) {
      const int64_t mirror = k == 0 ? 0 : d - k;
      Pair<T> p = unpack(tile.slot(0), k, mirror);
      for (int64_t m = 1; m < M; ++m) {
        const Pair<T> q = unpack(tile.slot(m), k, mirror);
        p = {multiply(p.a, q.a), multiply(p.b, q.b)};
      }
      accumulate(sums, fusion * bins + k, correlate(p, unpack(tile.slot(2 * M), k, mirror), weight));
    }
  }
  for (int64_t m = 0; m < M; ++m) {
    tile.inverse(M + m);
    store_pairs(tile.slot(M + m), tile.scale(M + m), d, job.grad_x[m] + row * d, valid);
  }
}

template <typename T>
void spectral_backward_at(const SpectralBackward<T>& job, int64_t begin, int64_t end) {
  constexpr int W = kWidth<T>;
  const int64_t d = job.plan->d, M = job.modalities, bins = d / 2 + 1;
  const bool fused = job.grad_fused != nullptr;
  const int64_t arrays = spectral_filters(job);
  if (job.plan->to_bins != nullptr) return kept_backward_chunks(job, begin, end);
  const Filters<T> filters(*job.plan, M, job.weight, job.fusion_weight);
  // Spectra come without their factor 1/2: two of them in a filter's gradient, M + 1 in the fusion filter's. An inner
  // bin stands for its mirror too.
  const double fused_scale =
      std::pow(static_cast<double>(d), -0.5 * static_cast<double>(M + 1)) * std::pow(0.5, static_cast<double>(M + 1));
#if SMORE_VECTOR_BYTES == 64
  if constexpr (std::is_same_v<T, float>) {
    if (d == 64) return row64_backward_chunks(job, filters, fused_scale, begin, end);
  }
#endif
  SpectralTile<T> tile(*job.plan, M, true, fused);
  const AlignedBuffer<T> sums(2 * W * bins * arrays);
  for (int64_t chunk = begin; chunk < end; ++chunk) {
    std::fill(sums.get(), sums.get() + 2 * W * bins * arrays, T(0));
    const int64_t last = std::min(job.n, (chunk + 1) * kSpectralChunkRows);
    for (int64_t row = chunk * kSpectralChunkRows; row < last; row += 2 * W) {
      backward_tile(job, filters, tile, sums.get(), row);
    }
    double* partial = job.partial + chunk * arrays * bins * 2;
    for (int64_t a = 0; a < arrays; ++a) {
      for (int64_t k = 0; k < bins; ++k) {
        const bool single = k == 0 || 2 * k == d;
        const double scale =
            (fused && a + 1 == arrays ? fused_scale : 0.25 / static_cast<double>(d)) * (single ? 1.0 : 2.0);
        double re = 0, im = 0;
        for (int lane = 0; lane < W; ++lane) {
          re += static_cast<double>(sums.get()[2 * W * (a * bins + k) + lane]);
          im += static_cast<double>(sums.get()[2 * W * (a * bins + k) + W + lane]);
        }
        partial[2 * (a * bins + k)] = re * scale;
        partial[2 * (a * bins + k) + 1] = single ? 0.0 : im * scale;
      }
    }
  }
}

}  // namespace smore::SMORE_LEVEL
