#include "cpu/fft.inl"
#include "cpu/tile.inl"

namespace smore::SMORE_LEVEL {

// Pairs of rows: the first W rows of a tile are the real parts, the next W rows the imaginary parts.
template <typename T>
void load_pairs(const T* rows, int64_t d, int64_t valid, T* data) {
  constexpr int W = kWidth<T>;
  load_lanes(rows, d, valid, d, data);
  load_lanes(rows + W * d, d, valid - W, d, data + W);
}

template <typename T>
void store_pairs(const T* data, int64_t d, T* rows, int64_t valid) {
  constexpr int W = kWidth<T>;
  store_lanes(data, d, rows, d, valid);
  if (valid > W) store_lanes(data + W, d, rows + W * d, d, valid - W);
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

// The filter over all d bins, times `scale`: out[2k], out[2k+1]. Imaginary parts of bins 0 and d/2 have no
// effect.
template <typename T>
void full_filter(const T* weight, int64_t d, double scale, T* out) {
  for (int64_t k = 0; k <= d / 2; ++k) {
    const int64_t mirror = k == 0 ? 0 : d - k;
    const T re = static_cast<T>(weight[2 * k] * scale);
    const T im = k == mirror ? T(0) : static_cast<T>(weight[2 * k + 1] * scale);
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
        size_(2 * W * plan.d),
        count_((backward ? 2 * modalities : modalities) + (fused ? 1 : 0) + 1),
        memory_(size_ * (count_ + 1) + 4 * W) {
    slots_ = new T*[static_cast<size_t>(count_)];
    for (int64_t i = 0; i < count_; ++i) slots_[i] = memory_.get() + i * size_;
    scratch_ = memory_.get() + count_ * size_;
  }
  ~SpectralTile() { delete[] slots_; }
  SpectralTile(const SpectralTile&) = delete;
  SpectralTile& operator=(const SpectralTile&) = delete;

  T* slot(int64_t i) { return slots_[i]; }

  void forward(int64_t i) { settle(i, fft<T, false>(plan_, slots_[i], slots_[count_ - 1], scratch_)); }
  void inverse(int64_t i) { settle(i, fft<T, true>(plan_, slots_[i], slots_[count_ - 1], scratch_)); }

 private:
  void settle(int64_t i, T* result) {
    if (result != slots_[i]) std::swap(slots_[i], slots_[count_ - 1]);
  }

  const SpectralPlan<T>& plan_;
  int64_t size_, count_;
  AlignedBuffer<T> memory_;
  T** slots_;
  T* scratch_;
};

template <typename T>
struct Filters {
  AlignedBuffer<T> memory;
  int64_t d, modalities;

  Filters(int64_t d, int64_t modalities, const T* const* weight, const T* fusion_weight)
      : memory(2 * d * (modalities + 1)), d(d), modalities(modalities) {
    for (int64_t m = 0; m < modalities; ++m)
      full_filter(weight[m], d, 1.0 / static_cast<double>(d), memory.get() + 2 * d * m);
    if (fusion_weight != nullptr) {
      // 2^-M: spectra are taken apart without their factor 1/2.
      const double scale = std::pow(static_cast<double>(d), -0.5 * static_cast<double>(modalities + 1)) *
                           std::pow(0.5, static_cast<double>(modalities));
      full_filter(fusion_weight, d, scale, memory.get() + 2 * d * modalities);
    }
  }
  const T* of(int64_t m) const { return memory.get() + 2 * d * m; }
  const T* fusion() const { return of(modalities); }
};

template <typename T>
void forward_tile(const SpectralForward<T>& job, const Filters<T>& filters, SpectralTile<T>& tile, int64_t row) {
  const int64_t d = job.plan->d, M = job.modalities, valid = std::min<int64_t>(job.n - row, 2 * kWidth<T>);
  for (int64_t m = 0; m < M; ++m) {
    load_pairs(job.x[m] + row * d, d, valid, tile.slot(m));
    tile.forward(m);
  }
  if (job.fused != nullptr) {
    T* product = tile.slot(M);
    for (int64_t k = 0; k <= d / 2; ++k) {
      const int64_t mirror = k == 0 ? 0 : d - k;
      Pair<T> p = unpack(tile.slot(0), k, mirror);
      for (int64_t m = 1; m < M; ++m) {
        const Pair<T> q = unpack(tile.slot(m), k, mirror);
        p = {multiply(p.a, q.a), multiply(p.b, q.b)};
      }
      const T* w = filters.fusion() + 2 * k;
      p = {times(p.a, w[0], w[1]), times(p.b, w[0], w[1])};
      store_complex<T, false>(product, k, packed(p));
      if (mirror != k) store_complex<T, false>(product, mirror, packed_mirror(p));
    }
    tile.inverse(M);
    store_pairs(tile.slot(M), d, job.fused + row * d, valid);
  }
  for (int64_t m = 0; m < M; ++m) {
    T* z = tile.slot(m);
    const T* w = filters.of(m);
    for (int64_t k = 0; k < d; ++k) {
      store_complex<T, false>(z, k, times(load_complex<T, false>(z, k), w[2 * k], w[2 * k + 1]));
    }
    tile.inverse(m);
    store_pairs(tile.slot(m), d, job.y[m] + row * d, valid);
  }
}

template <typename T>
void spectral_forward_at(const SpectralForward<T>& job, int64_t begin, int64_t end) {
  const Filters<T> filters(job.plan->d, job.modalities, job.weight, job.fused != nullptr ? job.fusion_weight : nullptr);
  SpectralTile<T> tile(*job.plan, job.modalities, false, job.fused != nullptr);
  const int64_t last = std::min(job.n, end * kSpectralChunkRows);
  for (int64_t row = begin * kSpectralChunkRows; row < last; row += 2 * kWidth<T>)
    forward_tile(job, filters, tile, row);
}

// Lane sums of the filter gradients of one chunk: [M + 1][d/2+1] complex registers.
template <typename T>
SMORE_INLINE void accumulate(T* sums, int64_t at, Complex<T> value) {
  store_complex<T, false>(sums, at, add(load_complex<T, false>(sums, at), value));
}

template <typename T>
void backward_tile(const SpectralBackward<T>& job, const Filters<T>& filters, SpectralTile<T>& tile, T* sums,
                   int64_t row) {
  const int64_t d = job.plan->d, M = job.modalities, bins = d / 2 + 1;
  const int64_t valid = std::min<int64_t>(job.n - row, 2 * kWidth<T>);
  for (int64_t m = 0; m < M; ++m) {
    load_pairs(job.x[m] + row * d, d, valid, tile.slot(m));
    tile.forward(m);
    load_pairs(job.grad_y[m] + row * d, d, valid, tile.slot(M + m));
    tile.forward(M + m);
    const T* z = tile.slot(m);
    T* g = tile.slot(M + m);
    for (int64_t k = 0; k < bins; ++k) {
      const int64_t mirror = k == 0 ? 0 : d - k;
      Complex<T> s = multiply_conj(load_complex<T, false>(z, k), load_complex<T, false>(g, k));
      if (mirror != k) {
        const Complex<T> t = multiply_conj(load_complex<T, false>(z, mirror), load_complex<T, false>(g, mirror));
        s = {s.re + t.re, s.im - t.im};
      }
      accumulate(sums, m * bins + k, s);
    }
    const T* w = filters.of(m);
    for (int64_t k = 0; k < d; ++k) {
      store_complex<T, false>(g, k, times(load_complex<T, false>(g, k), w[2 * k], -w[2 * k + 1]));
    }
  }
  if (job.grad_fused != nullptr) {
    load_pairs(job.grad_fused + row * d, d, valid, tile.slot(2 * M));
    tile.forward(2 * M);
    for (int64_t k = 0; k < bins; ++k) {
      const int64_t mirror = k == 0 ? 0 : d - k;
      const Pair<T> g = unpack(tile.slot(2 * M), k, mirror);
      const T* w = filters.fusion() + 2 * k;
      const Pair<T> weighted{times(g.a, w[0], -w[1]), times(g.b, w[0], -w[1])};
      for (int64_t m = 0; m < M; ++m) {
        Pair<T> p = weighted;  // times the conjugate spectra of all the others
        for (int64_t j = 0; j < M; ++j) {
          if (j == m) continue;
          const Pair<T> q = unpack(tile.slot(j), k, mirror);
          p = {multiply_conj(q.a, p.a), multiply_conj(q.b, p.b)};
        }
        accumulate(tile.slot(M + m), k, packed(p));
        if (mirror != k) accumulate(tile.slot(M + m), mirror, packed_mirror(p));
      }
      Pair<T> p = unpack(tile.slot(0), k, mirror);
      for (int64_t m = 1; m < M; ++m) {
        const Pair<T> q = unpack(tile.slot(m), k, mirror);
        p = {multiply(p.a, q.a), multiply(p.b, q.b)};
      }
      accumulate(sums, M * bins + k, add(multiply_conj(p.a, g.a), multiply_conj(p.b, g.b)));
    }
  }
  for (int64_t m = 0; m < M; ++m) {
    tile.inverse(M + m);
    store_pairs(tile.slot(M + m), d, job.grad_x[m] + row * d, valid);
  }
}

template <typename T>
void spectral_backward_at(const SpectralBackward<T>& job, int64_t begin, int64_t end) {
  constexpr int W = kWidth<T>;
  const int64_t d = job.plan->d, M = job.modalities, bins = d / 2 + 1;
  const bool fused = job.grad_fused != nullptr;
  const int64_t arrays = M + (fused ? 1 : 0);
  const Filters<T> filters(d, M, job.weight, fused ? job.fusion_weight : nullptr);
  SpectralTile<T> tile(*job.plan, M, true, fused);
  const AlignedBuffer<T> sums(2 * W * bins * arrays);
  // The fused gradient carries M + 1 spectra without their factor 1/2, and counts inner bins once, not twice.
  const double fused_scale =
      std::pow(static_cast<double>(d), -0.5 * static_cast<double>(M + 1)) * std::pow(0.5, static_cast<double>(M + 1));
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
        const double scale = a < M ? 1.0 / static_cast<double>(d) : fused_scale * (single ? 1.0 : 2.0);
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
