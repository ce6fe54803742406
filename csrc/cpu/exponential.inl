// The vector exponential.
namespace smore::SMORE_LEVEL {

// e^x for x in about [-87, 88] (float) or [-708, 709] (double), clamped outside. x = n ln 2 + r, |r| <= ln 2
// / 2, Taylor series of e^r, n added to the exponent bits.
SMORE_INLINE Vec<float> exponential(Vec<float> x) {
  typedef VecOf<float>::mask Bits;
  const Vec<float> low = broadcast(-87.0f), high = broadcast(88.0f);
  x = x < low ? low : x;
  x = x > high ? high : x;
  const Vec<float> shift = broadcast(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const Vec<float> biased = fma(x, broadcast(1.44269504088896341f), shift);
  const Vec<float> n = biased - shift;
  Vec<float> r = fma(n, broadcast(-0.693145751953125f), x);
  r = fma(n, broadcast(-1.42860682030941723e-6f), r);
  Vec<float> e = broadcast(1.0f / 5040);
  e = fma(e, r, broadcast(1.0f / 720));
  e = fma(e, r, broadcast(1.0f / 120));
  e = fma(e, r, broadcast(1.0f / 24));
  e = fma(e, r, broadcast(1.0f / 6));
  e = fma(e, r, broadcast(0.5f));
  e = fma(e, r, broadcast(1.0f));
  e = fma(e, r, broadcast(1.0f));
  return (Vec<float>)((Bits)e + ((Bits)biased << 23));
}

SMORE_INLINE Vec<double> exponential(Vec<double> x) {
  typedef VecOf<double>::mask Bits;
  const Vec<double> low = broadcast(-708.0), high = broadcast(709.0);
  x = x < low ? low : x;
  x = x > high ? high : x;
  const Vec<double> shift = broadcast(6755399441055744.0);  // 1.5 * 2^52
  const Vec<double> biased = fma(x, broadcast(1.44269504088896340736), shift);
  const Vec<double> n = biased - shift;
  Vec<double> r = fma(n, broadcast(-0.693147180369123816490), x);
  r = fma(n, broadcast(-1.90821492927058770002e-10), r);
  Vec<double> e = broadcast(1.0 / 6227020800.0);
  const double inverse_factorials[] = {
      1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040, 1.0 / 720,
      1.0 / 120,       1.0 / 24,       1.0 / 6,       0.5,          1.0,         1.0};
  for (const double f : inverse_factorials) e = fma(e, r, broadcast(f));
  return (Vec<double>)((Bits)e + ((Bits)biased << 52));
}

// e^x for x <= 0, to zero below the normal numbers; NaN stays NaN.
template <typename T>
SMORE_INLINE Vec<T> exponential_or_zero(Vec<T> x) {
  const Vec<T> least = broadcast(sizeof(T) == 4 ? T(-87) : T(-708));
  const Vec<T> e = x < least ? Vec<T>{} : exponential(x);
  return x != x ? x : e;
}

}  // namespace smore::SMORE_LEVEL
