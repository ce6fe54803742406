// Complex numbers of device code, and the transforms of 4 and 8 of them.
#pragma once

#include "cuda/device.cuh"

namespace smore::cuda {

// Aligned so that one access moves both parts.
template <typename T>
struct alignas(2 * sizeof(T)) Complex {
  T re, im;
};

template <typename T>
__device__ __forceinline__ Complex<T> operator+(Complex<T> a, Complex<T> b) {
  return {a.re + b.re, a.im + b.im};
}

template <typename T>
__device__ __forceinline__ Complex<T> operator-(Complex<T> a, Complex<T> b) {
  return {a.re - b.re, a.im - b.im};
}

template <typename T>
__device__ __forceinline__ Complex<T> operator*(Complex<T> a, Complex<T> b) {
  return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}

template <typename T>
__device__ __forceinline__ Complex<T> operator*(T scale, Complex<T> a) {
  return {scale * a.re, scale * a.im};
}

template <typename T>
__device__ __forceinline__ Complex<T> conj(Complex<T> a) {
  return {a.re, -a.im};
}

// conj(a) * b
template <typename T>
__device__ __forceinline__ Complex<T> correlate(Complex<T> a, Complex<T> b) {
  return {a.re * b.re + a.im * b.im, a.re * b.im - a.im * b.re};
}

// sum + conj(a) * b, in four fused steps
template <typename T>
__device__ __forceinline__ Complex<T> correlate_add(Complex<T> sum, Complex<T> a, Complex<T> b) {
  sum.re += a.re * b.re;
  sum.re += a.im * b.im;
  sum.im += a.re * b.im;
  sum.im -= a.im * b.re;
  return sum;
}

// e^(-2 pi i numerator / order)
template <typename T>
__device__ Complex<T> root(int numerator, int order) {
  double sine, cosine;
  sincospi(-2.0 * numerator / order, &sine, &cosine);
  return {static_cast<T>(cosine), static_cast<T>(sine)};
}

// times e^(-2 pi i / 4); for the inverse, its conjugate
template <bool Inverse, typename T>
__device__ __forceinline__ Complex<T> quarter_turn(Complex<T> a) {
  return Inverse ? Complex<T>{-a.im, a.re} : Complex<T>{a.im, -a.re};
}

// times e^(-2 pi i / 8); for the inverse, its conjugate
template <bool Inverse, typename T>
__device__ __forceinline__ Complex<T> eighth_turn(Complex<T> a) {
  constexpr T r = static_cast<T>(0.70710678118654752440);
  return Inverse ? Complex<T>{r * (a.re - a.im), r * (a.re + a.im)} : Complex<T>{r * (a.re + a.im), r * (a.im - a.re)};
}

// times w; for the inverse, times conj(w)
template <bool Inverse, typename T>
__device__ __forceinline__ Complex<T> twiddled(Complex<T> a, Complex<T> w) {
  return Inverse ? correlate(w, a) : a * w;
}

// Transforms without scale, in place, elements and bins in their natural order.
template <bool Inverse, typename T>
__device__ __forceinline__ void transform4(Complex<T>& a, Complex<T>& b, Complex<T>& c, Complex<T>& d) {
  const Complex<T> s = a + c, u = a - c, v = b + d, w = quarter_turn<Inverse>(b - d);
  a = s + v, b = u + w, c = s - v, d = u - w;
}

template <bool Inverse, typename T>
__device__ __forceinline__ void transform8(Complex<T> (&v)[8]) {
  transform4<Inverse>(v[0], v[2], v[4], v[6]);
  transform4<Inverse>(v[1], v[3], v[5], v[7]);
  const Complex<T> odd[4] = {v[1], eighth_turn<Inverse>(v[3]), quarter_turn<Inverse>(v[5]),
                             quarter_turn<Inverse>(eighth_turn<Inverse>(v[7]))};
  const Complex<T> even[4] = {v[0], v[2], v[4], v[6]};
#pragma unroll
  for (int k = 0; k < 4; ++k) v[k] = even[k] + odd[k], v[k + 4] = even[k] - odd[k];
}

}  // namespace smore::cuda
