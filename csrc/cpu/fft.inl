// Complex FFT over vector lanes: element j of a transform is the register pair at data + 2 * j * width (re,
// im). Mixed-radix Stockham autosort, decimation in frequency, unscaled, e^(-2 pi i jk / d).
namespace smore::SMORE_LEVEL {

template <typename T>
struct Complex {
  Vec<T> re, im;
};

// Swap = true exchanges real and imaginary parts on the way in and out, which turns the transform into the
// inverse.
template <typename T, bool Swap>
SMORE_INLINE Complex<T> load_complex(const T* data, int64_t j) {
  constexpr int W = kWidth<T>;
  const T* p = data + 2 * W * j;
  return Swap ? Complex<T>{load(p + W), load(p)} : Complex<T>{load(p), load(p + W)};
}

template <typename T, bool Swap>
SMORE_INLINE void store_complex(T* data, int64_t j, Complex<T> z) {
  constexpr int W = kWidth<T>;
  T* p = data + 2 * W * j;
  store(p, Swap ? z.im : z.re);
  store(p + W, Swap ? z.re : z.im);
}

template <typename T>
SMORE_INLINE Complex<T> add(Complex<T> a, Complex<T> b) {
  return {a.re + b.re, a.im + b.im};
}
template <typename T>
SMORE_INLINE Complex<T> sub(Complex<T> a, Complex<T> b) {
  return {a.re - b.re, a.im - b.im};
}
template <typename T>
SMORE_INLINE Complex<T> times(Complex<T> a, T wr, T wi) {
  const Vec<T> r = broadcast(wr), i = broadcast(wi);
  return {fma(a.re, r, -(a.im * i)), fma(a.im, r, a.re * i)};
}
template <typename T>
SMORE_INLINE Complex<T> times_minus_i(Complex<T> a) {
  return {a.im, -a.re};
}

template <typename T>
SMORE_INLINE void butterfly4(Complex<T>& a, Complex<T>& b, Complex<T>& c, Complex<T>& d) {
  const Complex<T> s = add(a, c), t = sub(a, c), u = add(b, d), v = times_minus_i(sub(b, d));
  a = add(s, u);
  b = add(t, v);
  c = sub(s, u);
  d = sub(t, v);
}

// In place: z[k] = sum_j z[j] e^(-2 pi i jk / R) for the small radices that have a short form.
template <typename T, int R>
SMORE_INLINE void butterfly(Complex<T>* z, const T* root) {
  if constexpr (R == 2) {
    const Complex<T> a = z[0];
    z[0] = add(a, z[1]);
    z[1] = sub(a, z[1]);
  } else if constexpr (R == 4) {
    butterfly4(z[0], z[1], z[2], z[3]);
  } else if constexpr (R == 8) {
    const Vec<T> h = broadcast(static_cast<T>(0.70710678118654752440));
    Complex<T> e[4] = {add(z[0], z[4]), add(z[1], z[5]), add(z[2], z[6]), add(z[3], z[7])};
    Complex<T> o[4] = {sub(z[0], z[4]), sub(z[1], z[5]), sub(z[2], z[6]), sub(z[3], z[7])};
    o[1] = {(o[1].re + o[1].im) * h, (o[1].im - o[1].re) * h};
    o[2] = times_minus_i(o[2]);
    o[3] = {(o[3].im - o[3].re) * h, -(o[3].re + o[3].im) * h};
    butterfly4(e[0], e[1], e[2], e[3]);
    butterfly4(o[0], o[1], o[2], o[3]);
    for (int k = 0; k < 4; ++k) {
      z[2 * k] = e[k];
      z[2 * k + 1] = o[k];
    }
  } else {  // odd: pairs j, R - j share their sines and cosines
    constexpr int H = (R - 1) / 2;
    Complex<T> plus[H], minus[H], first = z[0];
    for (int j = 0; j < H; ++j) {
      plus[j] = add(z[j + 1], z[R - 1 - j]);
      minus[j] = sub(z[j + 1], z[R - 1 - j]);
      z[0] = add(z[0], plus[j]);
    }
    for (int k = 1; k <= H; ++k) {
      Complex<T> even = first, odd{Vec<T>{}, Vec<T>{}};
      for (int j = 1; j <= H; ++j) {
        const Vec<T> c = broadcast(root[2 * (j * k % R)]), s = broadcast(root[2 * (j * k % R) + 1]);
        even = {fma(plus[j - 1].re, c, even.re), fma(plus[j - 1].im, c, even.im)};
        odd = {fma(minus[j - 1].im, s, odd.re), fma(minus[j - 1].re, s, odd.im)};
      }
      z[k] = {even.re - odd.re, even.im + odd.im};
      z[R - k] = {even.re + odd.re, even.im - odd.im};
    }
  }
}

// Filtered, for the last stage only: each result is multiplied by its entry of `filter` (re, im).
template <typename T, int R, bool SwapIn, bool SwapOut, bool Filtered>
void stage_fixed(const SpectralPlan<T>& plan, const typename SpectralPlan<T>::Stage& s, const T* in, T* out,
                 const T* filter) {
  const auto keep = [&](int64_t at, Complex<T> z) {
    store_complex<T, SwapOut>(out, at, Filtered ? times(z, filter[2 * at], filter[2 * at + 1]) : z);
  };
  const T* root = plan.table.data() + s.root;
  for (int64_t p = 0; p < s.rest; ++p) {
    const T* twiddle = plan.table.data() + s.twiddle + 2 * (R - 1) * p;
    for (int64_t q = 0; q < s.stride; ++q) {
      Complex<T> z[R];
      for (int j = 0; j < R; ++j) z[j] = load_complex<T, SwapIn>(in, q + s.stride * (p + s.rest * j));
      butterfly<T, R>(z, root);
      keep(q + s.stride * (R * p), z[0]);
      for (int k = 1; k < R; ++k) {
        const Complex<T> y = p == 0 ? z[k] : times(z[k], twiddle[2 * (k - 1)], twiddle[2 * (k - 1) + 1]);
        keep(q + s.stride * (R * p + k), y);
      }
    }
  }
}

// Any odd radix (a large prime factor of d): the same pairing, with the pairs kept in `scratch` (2 * radix
// registers).
template <typename T, bool SwapIn, bool SwapOut, bool Filtered>
void stage_any(const SpectralPlan<T>& plan, const typename SpectralPlan<T>::Stage& s, const T* in, T* out,
               const T* filter, T* scratch) {
  const auto keep = [&](int64_t to, Complex<T> z) {
    store_complex<T, SwapOut>(out, to, Filtered ? times(z, filter[2 * to], filter[2 * to + 1]) : z);
  };
  const int64_t radix = s.radix, half = (radix - 1) / 2;
  const T* root = plan.table.data() + s.root;
  T* plus = scratch;
  T* minus = scratch + 2 * kWidth<T> * half;
  for (int64_t p = 0; p < s.rest; ++p) {
    const T* twiddle = plan.table.data() + s.twiddle + 2 * (radix - 1) * p;
    for (int64_t q = 0; q < s.stride; ++q) {
      const auto at = [&](int64_t j) { return q + s.stride * (p + s.rest * j); };
      const Complex<T> first = load_complex<T, SwapIn>(in, at(0));
      Complex<T> total = first;
      for (int64_t j = 0; j < half; ++j) {
        const Complex<T> a = load_complex<T, SwapIn>(in, at(j + 1)), b = load_complex<T, SwapIn>(in, at(radix - 1 - j));
        store_complex<T, false>(plus, j, add(a, b));
        store_complex<T, false>(minus, j, sub(a, b));
        total = add(total, add(a, b));
      }
      keep(q + s.stride * (radix * p), total);
      for (int64_t k = 1; k <= half; ++k) {
        Complex<T> even = first, odd{Vec<T>{}, Vec<T>{}};
        for (int64_t j = 1, at_root = k; j <= half;
             ++j, at_root = at_root + k < radix ? at_root + k : at_root + k - radix) {
          const Vec<T> c = broadcast(root[2 * at_root]), sn = broadcast(root[2 * at_root + 1]);
          const Complex<T> a = load_complex<T, false>(plus, j - 1), b = load_complex<T, false>(minus, j - 1);
          even = {fma(a.re, c, even.re), fma(a.im, c, even.im)};
          odd = {fma(b.im, sn, odd.re), fma(b.re, sn, odd.im)};
        }
        const Complex<T> low{even.re - odd.re, even.im + odd.im}, high{even.re + odd.re, even.im - odd.im};
        const T* tl = twiddle + 2 * (k - 1);
        const T* th = twiddle + 2 * (radix - k - 1);
        keep(q + s.stride * (radix * p + k), times(low, tl[0], tl[1]));
        keep(q + s.stride * (radix * p + radix - k), times(high, th[0], th[1]));
      }
    }
  }
}

template <typename T, bool SwapIn, bool SwapOut, bool Filtered>
void fft_stage(const SpectralPlan<T>& plan, const typename SpectralPlan<T>::Stage& s, const T* in, T* out,
               const T* filter, T* scratch) {
  switch (s.radix) {
    case 2:
      return stage_fixed<T, 2, SwapIn, SwapOut, Filtered>(plan, s, in, out, filter);
    case 3:
      return stage_fixed<T, 3, SwapIn, SwapOut, Filtered>(plan, s, in, out, filter);
    case 4:
      return stage_fixed<T, 4, SwapIn, SwapOut, Filtered>(plan, s, in, out, filter);
    case 5:
      return stage_fixed<T, 5, SwapIn, SwapOut, Filtered>(plan, s, in, out, filter);
    case 7:
      return stage_fixed<T, 7, SwapIn, SwapOut, Filtered>(plan, s, in, out, filter);
    case 8:
      return stage_fixed<T, 8, SwapIn, SwapOut, Filtered>(plan, s, in, out, filter);
    default:
      return stage_any<T, SwapIn, SwapOut, Filtered>(plan, s, in, out, filter, scratch);
  }
}

template <typename T, bool Inverse>
T* chirp_fft(const SpectralPlan<T>& plan, T* data, T* other, T* scratch, const T* filter);

// Transforms `data` (d complex registers) through `other`, both of plan.room() registers; returns the one that holds
// the result. With a filter (forward only), the spectrum comes multiplied by it: that saves a pass over the data.
template <typename T, bool Inverse>
T* fft(const SpectralPlan<T>& plan, T* data, T* other, T* scratch, const T* filter = nullptr) {
  if (plan.convolution != nullptr) return chirp_fft<T, Inverse>(plan, data, other, scratch, filter);
  const size_t count = plan.stages.size();
  if (count == 0 && filter != nullptr) {
    store_complex<T, false>(data, 0, times(load_complex<T, false>(data, 0), filter[0], filter[1]));
  }
  for (size_t i = 0; i < count; ++i) {
    if (!Inverse && filter != nullptr && i + 1 == count) {
      fft_stage<T, false, false, true>(plan, plan.stages[i], data, other, filter, scratch);
    } else {
      fft_stage<T, Inverse, Inverse, false>(plan, plan.stages[i], data, other, filter, scratch);
    }
    std::swap(data, other);
  }
  return data;
}

// By Bluestein's algorithm: a convolution with the inverse of a chirp, by transforms whose length is a power of two.
template <typename T, bool Inverse>
T* chirp_fft(const SpectralPlan<T>& plan, T* data, T* other, T* scratch, const T* filter) {
  const SpectralPlan<T>& convolution = *plan.convolution;
  const T* chirp = plan.chirp.data();
  for (int64_t j = 0; j < plan.d; ++j) {
    store_complex<T, false>(data, j, times(load_complex<T, Inverse>(data, j), chirp[2 * j], chirp[2 * j + 1]));
  }
  for (int64_t j = plan.d; j < convolution.d; ++j) store_complex<T, false>(data, j, {Vec<T>{}, Vec<T>{}});
  T* z = fft<T, false>(convolution, data, other, scratch, plan.chirp_spectrum.data());
  z = fft<T, true>(convolution, z, z == data ? other : data, scratch);
  for (int64_t k = 0; k < plan.d; ++k) {
    Complex<T> bin = times(load_complex<T, false>(z, k), chirp[2 * k], chirp[2 * k + 1]);
    if (filter != nullptr) bin = times(bin, filter[2 * k], filter[2 * k + 1]);
    store_complex<T, Inverse>(z, k, bin);
  }
  return z;
}

}  // namespace smore::SMORE_LEVEL
