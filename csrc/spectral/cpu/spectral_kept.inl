// Spectral ops that keep the lowest few bins, by the transform's definition: real products with small tables.
//
// A row of length d, a multiple of 4, is cut into quarters A, B, C, D; B' and D' are B and D backwards. With the angle
// a = 2 pi (j + 1/2) k / d at place j of a quarter, bin k is
//     re = sum_j (A + D' + B' + C)_j cos a, im = sum_j (D' - A + B' - C)_j sin a for even k,
//     re = sum_j (A + D' - B' - C)_j cos a, im = sum_j (D' - A - B' + C)_j sin a for odd k.
// Back it is the same: P_j = sum_k re_k cos a and Q_j = sum_k im_k sin a, of even and of odd k apart, give
//     A = (P - Q) + (P - Q)', C = (P - Q) - (P - Q)', D' = (P + Q) + (P + Q)', B' = (P + Q) - (P + Q)'
// with even k first and odd k dashed, if bins other than 0 come twice, which the filters bring along. That is d n / 2
// multiplications a row, and a row never meets another one. The half in j + 1/2 leaves no element without a partner; it
// turns bin k by e^(-i pi k / d), which shows in the fusion's product alone: its filter turns it back. Bin d/2 is never
// kept here.
namespace smore::SMORE_LEVEL {

inline constexpr int kKeptRows = SMORE_VECTOR_BYTES == 64 ? 8 : 4;  // of a tile

// Up to so many kept bins this is cheaper than fast transforms, or as cheap (measured at widths 64 to 512, at each
// level, on an Intel and an AMD processor); 0: rows are too short.
template <typename T>
int64_t most_kept(int64_t d) {
  if (d % 4 != 0 || d / 4 < kWidth<T>) return 0;
  return std::min<int64_t>(d / 4, 16);
}

template <typename T, int... L>
SMORE_INLINE Vec<T> reversed(Vec<T> v, std::integer_sequence<int, L...>) {
  return __builtin_shufflevector(v, v, (kWidth<T> - 1 - L)...);
}

template <typename T>
SMORE_INLINE Vec<T> reversed(Vec<T> v) {
  return reversed<T>(v, std::make_integer_sequence<int, kWidth<T>>{});
}

// A pair of neighbours in memory, over and over.
SMORE_INLINE Vec<float> broadcast_pair(const float* p) {
  int64_t both;
  std::memcpy(&both, p, sizeof both);
  return (Vec<float>)(both - VecOf<double>::mask{});
}

SMORE_INLINE Vec<double> broadcast_pair(const double* p) {
#if SMORE_VECTOR_BYTES == 64
  return (Vec<double>)_mm512_maskz_broadcast_f64x2(0xff, _mm_loadu_pd(p));
#elif SMORE_VECTOR_BYTES == 32
  return (Vec<double>)_mm256_broadcast_pd(reinterpret_cast<const __m128d*>(p));
#else
  return load(p);
#endif
}

template <typename T, int... L>
SMORE_INLINE void store_pairs(Vec<T> a, Vec<T> b, T* to, std::integer_sequence<int, L...>) {
  constexpr int W = kWidth<T>;
  store(to, (Vec<T>)__builtin_shufflevector(a, b, (L / 2 + (L % 2) * W)...));
  store(to + W, (Vec<T>)__builtin_shufflevector(a, b, (W / 2 + L / 2 + (L % 2) * W)...));
}

// Numbers of a tile's rows, in panels of some columns: a panel has [kKeptRows][columns] of one kind (cosine sums), then
// of the other (sine sums). All its addresses are one pointer and a constant. A spectrum is one panel.
inline constexpr int64_t kPanel = 64, kPanelPart = kKeptRows * kPanel;

template <typename T>
using Kept = Vec<T>[kKeptRows];

// Adds to c[r] the sum over `terms` numbers a[r] of a panel times rows of the table's cosines, and to s[r] the same of
// the second kind and sines. A number is a pair, whose halves
// alternate over the lanes, or every other number of the panel.
template <typename T, bool Pairs>
SMORE_INLINE void add_products(const T* a, int64_t terms, const T* cosine, const T* sine, int64_t table_step,
                               Kept<T>& c, Kept<T>& s) {
  const auto at = [&](const T* p) {
    if constexpr (Pairs) {
      return broadcast_pair(p);
    } else {
      return broadcast(*p);
    }
  };
  for (int64_t k = 0; k < terms; ++k, cosine += table_step, sine += table_step) {
    const Vec<T> wave_c = load(cosine), wave_s = load(sine);
#pragma GCC unroll 8
    for (int r = 0; r < kKeptRows; ++r) {
      c[r] = fma(at(a + r * kPanel + 2 * k), wave_c, c[r]);
      s[r] = fma(at(a + kPanelPart + r * kPanel + 2 * k), wave_s, s[r]);
    }
  }
}

// Spectra of a tile of rows, one an index.
template <typename T>
class KeptTile {
 public:
  KeptTile(const SpectralPlan<T>& plan, int64_t count)
      : plan_(plan),
        quarter_(plan.d / 4),
        folded_((2 * quarter_ + kPanel - 1) / kPanel * 2 * kPanelPart),
        spectra_(count * 2 * kPanelPart) {}

  // Calls f(row of the tile, first bin) for each register of a spectrum.
  template <typename F>
  void each(const F& f) const {
    for (int64_t k = 0; k < plan_.kept; k += kWidth<T>) {
      for (int64_t r = 0; r < kKeptRows; ++r) f(r, k);
    }
  }
  Complex<T> get(int64_t i, int64_t r, int64_t k) const {
    const T* at = spectrum(i) + r * kPanel + k;
    return {load(at), load(at + kPanelPart)};
  }
  void put(int64_t i, int64_t r, int64_t k, Complex<T> z) {
    T* at = spectrum(i) + r * kPanel + k;
    store(at, z.re), store(at + kPanelPart, z.im);
  }

  // Spectrum i of rows, of which `valid` exist; others are zero.
  void to_bins(const T* rows, int64_t valid, int64_t i) {
    for (int64_t r = 0; r < kKeptRows; ++r) {
      if (r < valid) {
        fold(rows + r * plan_.d, r);
      } else {
        for (int64_t j = 0; j < 2 * quarter_; ++j) at_folded(r, j)[0] = at_folded(r, j)[kPanelPart] = 0;
      }
    }
    const int64_t step = plan_.to_bins->step;
    for (int64_t k = 0; k < plan_.kept; k += kWidth<T>) {
      const T *cosine = plan_.to_bins->cosine.get() + k, *sine = plan_.to_bins->sine.get() + k;
      Kept<T> re = {}, im = {};
      for (int64_t j = 0; j < quarter_; j += kPanel / 2) {  // a panel's sum is apart: errors grow slowly with d
        Kept<T> c = {}, s = {};
        add_products<T, true>(at_folded(0, 2 * j), std::min(kPanel / 2, quarter_ - j), cosine + j * step,
                              sine + j * step, step, c, s);
#pragma GCC unroll 8
        for (int r = 0; r < kKeptRows; ++r) re[r] += c[r], im[r] += s[r];
      }
#pragma GCC unroll 8
      for (int r = 0; r < kKeptRows; ++r) put(i, r, k, {re[r], im[r]});
    }
  }

  void to_rows(int64_t i, int64_t valid, T* rows) const {
    constexpr int W = kWidth<T>;
    const int64_t d = plan_.d, half = d / 2;
    for (int64_t j = 0; j < quarter_; j += W) {
      const int64_t first = std::min(j, quarter_ - W);  // the last block overlaps: same values again
      Kept<T> p, q, p_odd, q_odd;
      sums_over_bins(i, first, 0, p, q);
      sums_over_bins(i, first, 1, p_odd, q_odd);
#pragma GCC unroll 8
      for (int r = 0; r < kKeptRows; ++r) {
        if (r >= valid) break;
        T* row = rows + r * d;
        const Vec<T> low = p[r] - q[r], high = p[r] + q[r], low_odd = p_odd[r] - q_odd[r],
                     high_odd = p_odd[r] + q_odd[r];
        store(row + first, low + low_odd);
        store(row + half + first, low - low_odd);
        store(row + half - W - first, reversed<T>(high - high_odd));
        store(row + d - W - first, reversed<T>(high + high_odd));
      }
    }
  }

 private:
  T* spectrum(int64_t i) const { return spectra_.get() + i * 2 * kPanelPart; }
  T* at_folded(int64_t r, int64_t j) const {
    return folded_.get() + j / kPanel * (2 * kPanelPart) + r * kPanel + j % kPanel;
  }

  // P and Q of even or odd bins.
  void sums_over_bins(int64_t i, int64_t first, int64_t parity, Kept<T>& p, Kept<T>& q) const {
    const int64_t step = plan_.to_rows->step, at = parity * step + first;
#pragma GCC unroll 8
    for (int r = 0; r < kKeptRows; ++r) p[r] = q[r] = Vec<T>{};
    add_products<T, false>(spectrum(i) + parity, (plan_.kept - parity + 1) / 2, plan_.to_rows->cosine.get() + at,
                           plan_.to_rows->sine.get() + at, 2 * step, p, q);
  }

  // What the bins of a row are sums of: pairs of even and odd bins' numbers, of cosines and of sines.
  void fold(const T* row, int64_t r) {
    constexpr int W = kWidth<T>;
    constexpr auto lanes = std::make_integer_sequence<int, W>{};
    const int64_t d = plan_.d, half = d / 2;
    int64_t j = 0;
    for (; j + W <= quarter_; j += W) {
      const Vec<T> a = load(row + j), c = load(row + half + j);
      const Vec<T> b = reversed<T>(load(row + half - W - j)), e = reversed<T>(load(row + d - W - j));
      const Vec<T> sum = a + c, difference = a - c, back_sum = b + e, back_difference = e - b;
      T* to = at_folded(r, 2 * j);
      store_pairs<T>(sum + back_sum, difference + back_difference, to, lanes);
      store_pairs<T>(back_sum - sum, back_difference - difference, to + kPanelPart, lanes);
    }
    for (; j < quarter_; ++j) {
      const T a = row[j], b = row[half - 1 - j], c = row[half + j], e = row[d - 1 - j];
      T* to = at_folded(r, 2 * j);
      to[0] = (a + c) + (b + e), to[1] = (a - c) + (e - b);
      to[kPanelPart] = (b + e) - (a + c), to[kPanelPart + 1] = (e - b) - (a - c);
    }
  }

  const SpectralPlan<T>& plan_;
  const int64_t quarter_;
  const AlignedBuffer<T> folded_, spectra_;
};

// The fusion filter, and the sums of its gradient, are turned by this at bin k.
template <typename T>
double fusion_turn(const SpectralPlan<T>& plan, int64_t modalities, int64_t k) {
  return 3.141592653589793238462643383279502884 * static_cast<double>(k * (modalities - 1)) /
         static_cast<double>(plan.d);
}

// What the transforms of a filtered and of the fused array are to be multiplied with, at bin k.
template <typename T>
double kept_scale(const SpectralPlan<T>& plan, int64_t modalities, bool fusion, int64_t k) {
  const double power = fusion ? -0.5 * static_cast<double>(modalities + 1) : -1.0;
  return std::pow(static_cast<double>(plan.d), power) * (k == 0 ? 1 : 2);
}

// Filters in the order of spectral_filters(), real parts then imaginary ones, scaled, and zero beyond the kept bins.
template <typename T>
class KeptFilters {
 public:
  template <typename Job>
  explicit KeptFilters(const Job& job)
      : step_(job.plan->to_bins->step), memory_(std::max<int64_t>(1, spectral_filters(job)) * 2 * step_) {
    const int64_t count = spectral_filters(job);
    std::fill(memory_.get(), memory_.get() + count * 2 * step_, T(0));
    for (int64_t f = 0; f < count; ++f) {
      const bool fusion = job.fusion_weight != nullptr && f + 1 == count;
      const T* weight = fusion ? job.fusion_weight : job.weight[f];
      T *re = memory_.get() + f * 2 * step_, *im = re + step_;
      for (int64_t k = 0; k < job.plan->kept; ++k) {
        const double scale = kept_scale(*job.plan, job.modalities, fusion, k);
        const double a = static_cast<double>(weight[2 * k]) * scale;
        const double b = k == 0 ? 0 : static_cast<double>(weight[2 * k + 1]) * scale;
        const double turn = fusion ? fusion_turn(*job.plan, job.modalities, k) : 0;
        re[k] = static_cast<T>(a * std::cos(turn) - b * std::sin(turn));
        im[k] = static_cast<T>(a * std::sin(turn) + b * std::cos(turn));
      }
    }
  }
  Complex<T> get(int64_t f, int64_t k) const {
    const T* at = memory_.get() + f * 2 * step_ + k;
    return {load(at), load(at + step_)};
  }

 private:
  int64_t step_;
  AlignedBuffer<T> memory_;
};

template <typename T>
void kept_forward_chunks(const SpectralForward<T>& job, int64_t begin, int64_t end) {
  const int64_t d = job.plan->d, M = job.modalities, last = std::min(job.n, end * kSpectralChunkRows);
  const KeptFilters<T> filters(job);
  const int64_t fusion = spectral_filters(job) - 1;
  KeptTile<T> tile(*job.plan, M + 1);
  for (int64_t row = begin * kSpectralChunkRows; row < last; row += kKeptRows) {
    const int64_t valid = last - row;
    for (int64_t m = 0; m < M; ++m) tile.to_bins(job.x[m] + row * d, valid, m);
    if (job.fused != nullptr) {
      tile.each([&](int64_t r, int64_t k) {
        Complex<T> product = tile.get(0, r, k);
        for (int64_t m = 1; m < M; ++m) product = multiply(product, tile.get(m, r, k));
        tile.put(M, r, k, multiply(product, filters.get(fusion, k)));
      });
      tile.to_rows(M, valid, job.fused + row * d);
    }
    for (int64_t m = 0; job.weight != nullptr && m < M; ++m) {
      tile.each([&](int64_t r, int64_t k) { tile.put(m, r, k, multiply(tile.get(m, r, k), filters.get(m, k))); });
      tile.to_rows(m, valid, job.y[m] + row * d);
    }
  }
}

// Gradients of the filters, sums over the rows of a chunk: real parts [kept], imaginary parts.
template <typename T>
class KeptSums {
 public:
  KeptSums(const SpectralPlan<T>& plan, int64_t filters)
      : step_(plan.to_bins->step), size_(filters * 2 * step_), memory_(std::max<int64_t>(1, size_)) {}
  void clear() { std::fill(memory_.get(), memory_.get() + size_, T(0)); }
  // Adds term(row, first bin), summed over the rows of a tile, to filter f.
  template <typename F>
  void add_tile(int64_t f, int64_t kept, const F& term) {
    for (int64_t k = 0; k < kept; k += kWidth<T>) {
      Complex<T> sum = term(0, k);
      for (int64_t r = 1; r < kKeptRows; ++r) sum = add(sum, term(r, k));
      T* at = memory_.get() + f * 2 * step_ + k;
      store(at, load(at) + sum.re), store(at + step_, load(at + step_) + sum.im);
    }
  }
  double re(int64_t f, int64_t k) const { return static_cast<double>(memory_.get()[f * 2 * step_ + k]); }
  double im(int64_t f, int64_t k) const { return static_cast<double>(memory_.get()[(f * 2 + 1) * step_ + k]); }

 private:
  int64_t step_, size_;
  AlignedBuffer<T> memory_;
};

// Spectra of the tile: x_m at m, the fused gradient's at M, that of a gradient at work at M + 1.
template <typename T>
void kept_backward_tile(const SpectralBackward<T>& job, const KeptFilters<T>& filters, KeptTile<T>& tile,
                        KeptSums<T>& sums, int64_t row) {
  const int64_t d = job.plan->d, M = job.modalities, kept = job.plan->kept, valid = job.n - row;
  const int64_t fusion = spectral_filters(job) - 1;
  const bool fused = job.grad_fused != nullptr, filtered = job.weight != nullptr;
  for (int64_t m = 0; m < M; ++m) tile.to_bins(job.x[m] + row * d, valid, m);
  if (fused) {
    tile.to_bins(job.grad_fused + row * d, valid, M);
    sums.add_tile(fusion, kept, [&](int64_t r, int64_t k) {
      Complex<T> product = tile.get(0, r, k);
      for (int64_t m = 1; m < M; ++m) product = multiply(product, tile.get(m, r, k));
      return multiply_conj(product, tile.get(M, r, k));
    });
    tile.each(
        [&](int64_t r, int64_t k) { tile.put(M, r, k, multiply_conj(filters.get(fusion, k), tile.get(M, r, k))); });
  }
  for (int64_t m = 0; m < M; ++m) {
    if (filtered) {
      tile.to_bins(job.grad_y[m] + row * d, valid, M + 1);
      sums.add_tile(m, kept,
                    [&](int64_t r, int64_t k) { return multiply_conj(tile.get(m, r, k), tile.get(M + 1, r, k)); });
    }
    tile.each([&](int64_t r, int64_t k) {
      Complex<T> z{};
      if (filtered) z = multiply_conj(filters.get(m, k), tile.get(M + 1, r, k));
      if (fused) {
        Complex<T> part = tile.get(M, r, k);
        for (int64_t j = 0; j < M; ++j) {
          if (j != m) part = multiply_conj(tile.get(j, r, k), part);
        }
        z = add(z, part);
      }
      tile.put(M + 1, r, k, z);
    });
    tile.to_rows(M + 1, valid, job.grad_x[m] + row * d);
  }
}

template <typename T>
void kept_backward_chunks(const SpectralBackward<T>& job, int64_t begin, int64_t end) {
  const int64_t M = job.modalities, kept = job.plan->kept, bins = job.plan->d / 2 + 1;
  const int64_t count = spectral_filters(job);
  const KeptFilters<T> filters(job);
  KeptTile<T> tile(*job.plan, M + 2);
  KeptSums<T> sums(*job.plan, count);
  for (int64_t chunk = begin; chunk < end; ++chunk) {
    sums.clear();
    const int64_t last = std::min(job.n, (chunk + 1) * kSpectralChunkRows);
    for (int64_t row = chunk * kSpectralChunkRows; row < last; row += kKeptRows) {
      kept_backward_tile(job, filters, tile, sums, row);
    }
    for (int64_t f = 0; f < count; ++f) {
      const bool fusion = job.fusion_weight != nullptr && f + 1 == count;
      double* partial = job.partial + (chunk * count + f) * bins * 2;
      for (int64_t k = 0; k < kept; ++k) {
        const double scale = kept_scale(*job.plan, M, fusion, k), turn = fusion ? fusion_turn(*job.plan, M, k) : 0;
        const double re = sums.re(f, k), im = sums.im(f, k);
        partial[2 * k] = scale * (re * std::cos(turn) + im * std::sin(turn));
        partial[2 * k + 1] = k == 0 ? 0.0 : scale * (im * std::cos(turn) - re * std::sin(turn));
      }
    }
  }
}

}  // namespace smore::SMORE_LEVEL
