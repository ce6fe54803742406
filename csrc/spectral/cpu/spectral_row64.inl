// Spectral filtering and fusion of float rows of length 64, the width that recommenders use, with 16-lane registers.
//
// A pair of rows is one complex row (as in spectral_kernel.h) of four register pairs, and the whole transform happens
// in them: element n = 16 b + 4 a + c is lane 4 a + c of register b, bin k = 16 m + 4 j + i is lane 4 i + j of register
// m. Three radix-4 steps over the registers; between them lanes and registers change places. The inverse takes the same
// way back, so no reordering is ever needed. Compared with many rows side by side (spectral_kernel.inl), nothing but
// the rows themselves is stored: that was the bottleneck.
namespace smore::SMORE_LEVEL {

struct Row64 {  // a complex row, or its spectrum
  __m512 re[4], im[4];
};

struct Row64Tables {
  alignas(64) float outer[3][2][16];  // e^(-2 pi i q l / 64), q = 1..3, at lane l
  alignas(64) float inner[3][2][16];  // e^(-2 pi i q c / 16), q = 1..3, at lane 4 a + c
  Row64Tables() {
    for (int q = 1; q < 4; ++q) {
      for (int l = 0; l < 16; ++l) {
        const double pi = 3.141592653589793238462643383279502884;
        const double o = -2 * pi * q * l / 64, i = -2 * pi * q * (l % 4) / 16;
        outer[q - 1][0][l] = static_cast<float>(std::cos(o));
        outer[q - 1][1][l] = static_cast<float>(std::sin(o));
        inner[q - 1][0][l] = static_cast<float>(std::cos(i));
        inner[q - 1][1][l] = static_cast<float>(std::sin(i));
      }
    }
  }
};

// Forward: sum_q z[q] (-i)^(q k); inverse: i^(q k).
template <bool Inverse>
SMORE_INLINE void row64_radix4(Row64& z) {
  const __m512 ar = z.re[0] + z.re[2], ai = z.im[0] + z.im[2], br = z.re[0] - z.re[2], bi = z.im[0] - z.im[2];
  const __m512 cr = z.re[1] + z.re[3], ci = z.im[1] + z.im[3], dr = z.re[1] - z.re[3], di = z.im[1] - z.im[3];
  z.re[0] = ar + cr, z.im[0] = ai + ci;
  z.re[2] = ar - cr, z.im[2] = ai - ci;
  constexpr int first = Inverse ? 3 : 1, last = Inverse ? 1 : 3;
  z.re[first] = br + di, z.im[first] = bi - dr;
  z.re[last] = br - di, z.im[last] = bi + dr;
}

template <bool Inverse>
SMORE_INLINE void row64_twiddle(Row64& z, const float (&table)[3][2][16]) {
  for (int q = 1; q < 4; ++q) {
    const __m512 wr = _mm512_load_ps(table[q - 1][0]), wi = _mm512_load_ps(table[q - 1][1]);
    const __m512 re = z.re[q], im = z.im[q];
    if constexpr (Inverse) {
      z.re[q] = _mm512_fmadd_ps(im, wi, re * wr);
      z.im[q] = _mm512_fnmadd_ps(re, wi, im * wr);
    } else {
      z.re[q] = _mm512_fnmadd_ps(im, wi, re * wr);
      z.im[q] = _mm512_fmadd_ps(re, wi, im * wr);
    }
  }
}

// The compiler's own shuffles and not the intrinsics, whose headers make gcc warn of uninitialised values.
// Groups of four lanes: two of each.
#define SMORE_GROUPS(a, b, i, j)                                                                                \
  __builtin_shufflevector(a, b, 4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3, 4 * j, 4 * j + 1, 4 * j + 2, 4 * j + 3, \
                          16 + 4 * i, 17 + 4 * i, 18 + 4 * i, 19 + 4 * i, 16 + 4 * j, 17 + 4 * j, 18 + 4 * j,   \
                          19 + 4 * j)
// In every group of four lanes: lanes i and j of the pair (a, b), where b's are counted from 16, then k and l.
#define SMORE_LANES(a, b, i, j, k, l)                                                                               \
  __builtin_shufflevector(a, b, i, j, k, l, 4 + i, 4 + j, 4 + k, 4 + l, 8 + i, 8 + j, 8 + k, 8 + l, 12 + i, 12 + j, \
                          12 + k, 12 + l)

// Lane group a of register q and lane group q of register a change places.
SMORE_INLINE void row64_swap_groups(__m512 (&v)[4]) {
  const __m512 a = SMORE_GROUPS(v[0], v[1], 0, 1), b = SMORE_GROUPS(v[0], v[1], 2, 3);
  const __m512 c = SMORE_GROUPS(v[2], v[3], 0, 1), d = SMORE_GROUPS(v[2], v[3], 2, 3);
  v[0] = SMORE_GROUPS(a, c, 0, 2), v[1] = SMORE_GROUPS(a, c, 1, 3);
  v[2] = SMORE_GROUPS(b, d, 0, 2), v[3] = SMORE_GROUPS(b, d, 1, 3);
}

// Within each group of four lanes, lane c of register q and lane q of register c change places.
SMORE_INLINE void row64_swap_lanes(__m512 (&v)[4]) {
  const __m512 a = SMORE_LANES(v[0], v[1], 0, 16, 1, 17), b = SMORE_LANES(v[0], v[1], 2, 18, 3, 19);
  const __m512 c = SMORE_LANES(v[2], v[3], 0, 16, 1, 17), d = SMORE_LANES(v[2], v[3], 2, 18, 3, 19);
  v[0] = SMORE_LANES(a, c, 0, 1, 16, 17), v[1] = SMORE_LANES(a, c, 2, 3, 18, 19);
  v[2] = SMORE_LANES(b, d, 0, 1, 16, 17), v[3] = SMORE_LANES(b, d, 2, 3, 18, 19);
}

#undef SMORE_GROUPS
#undef SMORE_LANES

SMORE_INLINE void row64_forward(Row64& z, const Row64Tables& t) {
  row64_radix4<false>(z);
  row64_twiddle<false>(z, t.outer);
  row64_swap_groups(z.re), row64_swap_groups(z.im);
  row64_radix4<false>(z);
  row64_twiddle<false>(z, t.inner);
  row64_swap_lanes(z.re), row64_swap_lanes(z.im);
  row64_radix4<false>(z);
}

SMORE_INLINE void row64_inverse(Row64& z, const Row64Tables& t) {
  row64_radix4<true>(z);
  row64_swap_lanes(z.re), row64_swap_lanes(z.im);
  row64_twiddle<true>(z, t.inner);
  row64_radix4<true>(z);
  row64_swap_groups(z.re), row64_swap_groups(z.im);
  row64_twiddle<true>(z, t.outer);
  row64_radix4<true>(z);
}

inline constexpr int row64_bin(int m, int lane) { return 16 * m + 4 * (lane % 4) + lane / 4; }

// out[m] = v at bin 64 - k: from register 3 - m, but lane 0 (a multiple of 16) from register 4 - m.
SMORE_INLINE void row64_mirror(const __m512 (&v)[4], __m512 (&out)[4]) {
  for (int m = 0; m < 4; ++m) {
    out[m] = __builtin_shufflevector(v[3 - m], v[(4 - m) % 4], 16, 3, 2, 1, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4);
  }
}

// Both rows' own spectra (times two) of a spectrum of a pair.
SMORE_INLINE void row64_unpack(const Row64& z, Row64& a, Row64& b) {
  Row64 c;
  row64_mirror(z.re, c.re), row64_mirror(z.im, c.im);
  for (int m = 0; m < 4; ++m) {
    a.re[m] = z.re[m] + c.re[m], a.im[m] = z.im[m] - c.im[m];
    b.re[m] = z.im[m] + c.im[m], b.im[m] = c.re[m] - z.re[m];
  }
}

template <bool ConjugateB>
SMORE_INLINE Row64 row64_product(const Row64& a, const Row64& b) {
  Row64 p;
  for (int m = 0; m < 4; ++m) {
    if constexpr (ConjugateB) {
      p.re[m] = _mm512_fmadd_ps(a.im[m], b.im[m], a.re[m] * b.re[m]);
      p.im[m] = _mm512_fnmadd_ps(a.re[m], b.im[m], a.im[m] * b.re[m]);
    } else {
      p.re[m] = _mm512_fnmadd_ps(a.im[m], b.im[m], a.re[m] * b.re[m]);
      p.im[m] = _mm512_fmadd_ps(a.re[m], b.im[m], a.im[m] * b.re[m]);
    }
  }
  return p;
}

// How much smaller the two rows of a pair are held than they are: powers of two as in row_scale.
struct Scale64 {
  float row[2];
};

SMORE_INLINE Scale64 product(Scale64 a, Scale64 b) { return {{a.row[0] * b.row[0], a.row[1] * b.row[1]}}; }

SMORE_INLINE float row64_scale(const __m512 (&v)[4]) {
  typedef uint32_t Bits __attribute__((vector_size(64)));
  Bits largest{};
  for (int m = 0; m < 4; ++m) {
    const Bits size = (Bits)v[m] & 0x7fffffffu;
    largest = largest > size ? largest : size;
  }
  const auto fold = [&](Bits other) { largest = largest > other ? largest : other; };
  fold(__builtin_shufflevector(largest, largest, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
  fold(__builtin_shufflevector(largest, largest, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11));
  fold(__builtin_shufflevector(largest, largest, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));
  fold(__builtin_shufflevector(largest, largest, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14));
  const uint32_t top = largest[0];
  if (top >= 0x7f800000u) return std::numeric_limits<float>::quiet_NaN();
  if (top == 0) return 0;
  const uint32_t bits = std::clamp<uint32_t>(top & 0x7f800000u, 1u << 23, 253u << 23);
  float scale;
  std::memcpy(&scale, &bits, sizeof scale);
  return scale;
}

// Rows whose factor is 0 or NaN become zero, so that they leave no trace in their partner.
SMORE_INLINE void row64_divide(__m512 (&v)[4], float scale) {
  if (scale > 0) {
    const __m512 inverse = _mm512_set1_ps(1 / scale);
    for (int m = 0; m < 4; ++m) v[m] = v[m] * inverse;
  } else {
    for (int m = 0; m < 4; ++m) v[m] = _mm512_setzero_ps();
  }
}

SMORE_INLINE Row64 row64_load(const float* rows, bool both) {
  Row64 z;
  for (int m = 0; m < 4; ++m) {
    z.re[m] = _mm512_loadu_ps(rows + 16 * m);
    z.im[m] = both ? _mm512_loadu_ps(rows + 64 + 16 * m) : _mm512_setzero_ps();
  }
  return z;
}

SMORE_INLINE void row64_store(const Row64& z, Scale64 scale, float* rows, bool both) {
  const __m512 a = _mm512_set1_ps(scale.row[0]), b = _mm512_set1_ps(scale.row[1]);
  for (int m = 0; m < 4; ++m) _mm512_storeu_ps(rows + 16 * m, z.re[m] * a);
  if (!both) return;
  for (int m = 0; m < 4; ++m) _mm512_storeu_ps(rows + 64 + 16 * m, z.im[m] * b);
}

// The pair's spectrum, each row divided by its own scale.
SMORE_INLINE Row64 row64_spectrum(const float* rows, bool both, const Row64Tables& t, Scale64& scale) {
  Row64 z = row64_load(rows, both);
  scale = {{row64_scale(z.re), row64_scale(z.im)}};
  row64_divide(z.re, scale.row[0]), row64_divide(z.im, scale.row[1]);
  row64_forward(z, t);
  return z;
}

// The filters of `Filters<float>` in this file's order of bins: M of them, then the fusion filter.
struct Row64Filters {
  AlignedBuffer<Row64> filter;

  Row64Filters(const Filters<float>& filters, bool filtered, bool fused) : filter(filters.modalities + 1) {
    for (int64_t f = filtered ? 0 : filters.modalities; f < filters.modalities + (fused ? 1 : 0); ++f) {
      float re[64], im[64];
      for (int i = 0; i < 64; ++i) {
        re[i] = filters.of(f)[2 * row64_bin(i / 16, i % 16)];
        im[i] = filters.of(f)[2 * row64_bin(i / 16, i % 16) + 1];
      }
      for (int m = 0; m < 4; ++m) {
        filter.get()[f].re[m] = _mm512_loadu_ps(re + 16 * m);
        filter.get()[f].im[m] = _mm512_loadu_ps(im + 16 * m);
      }
    }
  }
};

inline void row64_forward_chunks(const SpectralForward<float>& job, const Filters<float>& filters, int64_t begin,
                                 int64_t end) {
  const int64_t M = job.modalities, last = std::min(job.n, end * kSpectralChunkRows);
  static const Row64Tables tables;
  const bool fused = job.fused != nullptr;
  const Row64Filters weights(filters, job.weight != nullptr, fused);
  const AlignedBuffer<Scale64> scales(M);
  for (int64_t row = begin * kSpectralChunkRows; row < last; row += 2) {
    const bool both = row + 1 < last;
    Row64 a, b;  // product of the spectra of each row
    Scale64 total{};
    for (int64_t m = 0; m < M; ++m) {
      Scale64 scale;
      Row64 z = row64_spectrum(job.x[m] + row * 64, both, tables, scale);
      if (fused) {
        if (m == 0) {
          row64_unpack(z, a, b);
          total = scale;
        } else {
          Row64 own, other;
          row64_unpack(z, own, other);
          a = row64_product<false>(a, own), b = row64_product<false>(b, other);
          total = product(total, scale);
        }
      }
      if (job.weight == nullptr) continue;
      z = row64_product<false>(z, weights.filter.get()[m]);
      row64_inverse(z, tables);
      row64_store(z, scale, job.y[m] + row * 64, both);
    }
    if (!fused) continue;
    Row64 z;
    for (int m = 0; m < 4; ++m) z.re[m] = a.re[m] - b.im[m], z.im[m] = a.im[m] + b.re[m];
    z = row64_product<false>(z, weights.filter.get()[M]);
    row64_inverse(z, tables);
    row64_store(z, total, job.fused + row * 64, both);
  }
}

// Adds conj(x) * g of both rows, each times its own factor, to the sums of one filter's gradient.
SMORE_INLINE void row64_correlate(const Row64 (&x)[2], const Row64& g, Scale64 weight, Row64& sum) {
  Row64 rows[2];
  row64_unpack(g, rows[0], rows[1]);
  for (int r = 0; r < 2; ++r) {
    const Row64 p = row64_product<true>(rows[r], x[r]);
    const __m512 w = _mm512_set1_ps(weight.row[r]);
    for (int m = 0; m < 4; ++m) {
      sum.re[m] = _mm512_fmadd_ps(p.re[m], w, sum.re[m]);
      sum.im[m] = _mm512_fmadd_ps(p.im[m], w, sum.im[m]);
    }
  }
}

// As common_scale: brings both parts of a gradient to the larger size, left in `own`; returned is the second's factor.
SMORE_INLINE Scale64 row64_common_scale(Scale64& own, Scale64 other) {
  Scale64 factor;
  for (int r = 0; r < 2; ++r) {
    const float a = own.row[r], b = other.row[r], either = a > b ? a : b;
    const float larger = either > 0 ? std::max(either, std::numeric_limits<float>::min()) : either;
    const bool numbers = a == a && b == b;
    factor.row[r] = numbers && larger > 0 ? b / larger : 0;
    own.row[r] = numbers ? larger : std::numeric_limits<float>::quiet_NaN();
  }
  return factor;
}

// One pair of rows; `sums`: the gradients of the filters. `x`, `spectra`, `scales`: room for M.
inline void row64_backward_pair(const SpectralBackward<float>& job, const Row64Filters& weights,
                                const Row64Tables& tables, int64_t row, bool both, Row64 (*x)[2], Scale64* scales,
                                Row64* sums) {
  const int64_t M = job.modalities;
  const bool fused = job.grad_fused != nullptr, filtered = job.weight != nullptr;
  for (int64_t m = 0; m < M; ++m) {
    row64_unpack(row64_spectrum(job.x[m] + row * 64, both, tables, scales[m]), x[m][0], x[m][1]);
  }
  Row64 common[2];  // the fused gradient's spectra, times the conjugate of the fusion filter
  Scale64 fused_scale{};
  if (fused) {
    const Row64 g = row64_spectrum(job.grad_fused + row * 64, both, tables, fused_scale);
    Row64 all[2] = {x[0][0], x[0][1]};
    Scale64 total = product(fused_scale, scales[0]);
    for (int64_t m = 1; m < M; ++m) {
      for (int r = 0; r < 2; ++r) all[r] = row64_product<false>(all[r], x[m][r]);
      total = product(total, scales[m]);
    }
    row64_correlate(all, g, total, sums[spectral_filters(job) - 1]);
    row64_unpack(row64_product<true>(g, weights.filter.get()[M]), common[0], common[1]);
  }
  for (int64_t m = 0; m < M; ++m) {
    Row64 g{};
    if (filtered) g = row64_load(job.grad_y[m] + row * 64, both);
    Scale64 scale{{row64_scale(g.re), row64_scale(g.im)}}, share{};
    if (fused) {
      Scale64 other = fused_scale;
      for (int64_t j = 0; j < M; ++j) {
        if (j != m) other = product(other, scales[j]);
      }
      share = row64_common_scale(scale, other);
    }
    if (filtered) {
      row64_divide(g.re, scale.row[0]), row64_divide(g.im, scale.row[1]);
      row64_forward(g, tables);
      row64_correlate(x[m], g, product(scales[m], scale), sums[m]);
      g = row64_product<true>(g, weights.filter.get()[m]);
    }
    if (fused) {
      Row64 p[2] = {common[0], common[1]};
      for (int64_t j = 0; j < M; ++j) {
        if (j == m) continue;
        for (int r = 0; r < 2; ++r) p[r] = row64_product<true>(p[r], x[j][r]);
      }
      const __m512 s = _mm512_set1_ps(share.row[0]), t = _mm512_set1_ps(share.row[1]);
      for (int i = 0; i < 4; ++i) {
        g.re[i] = _mm512_fmadd_ps(p[0].re[i], s, _mm512_fnmadd_ps(p[1].im[i], t, g.re[i]));
        g.im[i] = _mm512_fmadd_ps(p[0].im[i], s, _mm512_fmadd_ps(p[1].re[i], t, g.im[i]));
      }
    }
    row64_inverse(g, tables);
    row64_store(g, scale, job.grad_x[m] + row * 64, both);
  }
}

// The filter gradients of one chunk, bin by bin, to its place among the partial sums; `scale` as in the caller.
inline void row64_flush(const Row64& sum, double scale, double* partial) {
  alignas(64) float re[64], im[64];
  for (int m = 0; m < 4; ++m) {
    _mm512_store_ps(re + 16 * m, sum.re[m]);
    _mm512_store_ps(im + 16 * m, sum.im[m]);
  }
  for (int i = 0; i < 64; ++i) {
    const int k = row64_bin(i / 16, i % 16);
    if (k > 32) continue;
    const bool single = k % 32 == 0;  // any other bin stands for its mirror too
    partial[2 * k] = re[i] * scale * (single ? 1 : 2);
    partial[2 * k + 1] = single ? 0.0 : im[i] * scale * 2;
  }
}

inline void row64_backward_chunks(const SpectralBackward<float>& job, const Filters<float>& filters, double fused_scale,
                                  int64_t begin, int64_t end) {
  const int64_t M = job.modalities, arrays = spectral_filters(job);
  static const Row64Tables tables;
  const Row64Filters weights(filters, job.weight != nullptr, job.grad_fused != nullptr);
  const AlignedBuffer<Row64[2]> x(M);
  const AlignedBuffer<Scale64> scales(M);
  const AlignedBuffer<Row64> sums(arrays);
  for (int64_t chunk = begin; chunk < end; ++chunk) {
    std::memset(static_cast<void*>(sums.get()), 0, static_cast<size_t>(arrays) * sizeof(Row64));
    const int64_t last = std::min(job.n, (chunk + 1) * kSpectralChunkRows);
    for (int64_t row = chunk * kSpectralChunkRows; row < last; row += 2) {
      row64_backward_pair(job, weights, tables, row, row + 1 < last, x.get(), scales.get(), sums.get());
    }
    for (int64_t a = 0; a < arrays; ++a) {
      row64_flush(sums.get()[a], job.grad_fused != nullptr && a + 1 == arrays ? fused_scale : 0.25 / 64,
                  job.partial + (chunk * arrays + a) * 33 * 2);
    }
  }
}

}  // namespace smore::SMORE_LEVEL
