// What tests of the spectral kernels share: the discrete Fourier transform by its definition, inputs, and runs of the
// CPU kernels.
#pragma once

#include <complex>
#include <numbers>

#include "harness.h"
#include "spectral/cpu/spectral_kernel.h"

namespace spectral {

using Complex = std::complex<double>;

// Bins 0 .. d/2 of the orthonormal transform of one row.
template <typename T>
std::vector<Complex> spectrum(const T* row, int64_t d) {
  std::vector<Complex> bins(d / 2 + 1);
  for (int64_t k = 0; k <= d / 2; ++k) {
    for (int64_t i = 0; i < d; ++i) {
      bins[k] +=
          double(row[i]) * std::polar(1 / std::sqrt(double(d)), -2 * std::numbers::pi * double(k * i % d) / double(d));
    }
  }
  return bins;
}

// The real row of a spectrum; the imaginary part of bin 0, and of bin d/2 for an even d, counts for nothing.
inline std::vector<double> row(const std::vector<Complex>& bins, int64_t d) {
  std::vector<double> values(d);
  for (int64_t i = 0; i < d; ++i) {
    for (int64_t k = 0; k <= d / 2; ++k) {
      const Complex wave = std::polar(1 / std::sqrt(double(d)), 2 * std::numbers::pi * double(k * i % d) / double(d));
      const bool alone = k == 0 || 2 * k == d;
      values[i] += alone ? bins[k].real() * wave.real() : 2 * (bins[k] * wave).real();
    }
  }
  return values;
}

template <typename T>
Complex bin(const std::vector<T>& weight, int64_t k) {
  return {double(weight[2 * k]), double(weight[2 * k + 1])};
}

// M arrays with their filters, and the gradients that arrive. `kept` bins count (all, if nothing else is said); without
// `filtered` only the fused array is wanted.
template <typename T>
struct Problem {
  int64_t n, d, m, kept;
  bool filtered = true;
  std::vector<std::vector<T>> x, weight, grad_y;
  std::vector<T> fusion, grad_fused;
  std::vector<const T*> x_pointers, weight_pointers, grad_pointers;

  Problem(int64_t n, int64_t d, int64_t m) : n(n), d(d), m(m), kept(d / 2 + 1) {
    for (int64_t a = 0; a < m; ++a) {
      const unsigned seed = static_cast<unsigned>(10 * a);
      x.push_back(harness::random_values<T>(n * d, seed));
      weight.push_back(harness::random_values<T>((d / 2 + 1) * 2, seed + 1));
      grad_y.push_back(harness::random_values<T>(n * d, seed + 2));
    }
    fusion = harness::random_values<T>((d / 2 + 1) * 2, 7);
    grad_fused = harness::random_values<T>(n * d, 8);
    for (int64_t a = 0; a < m; ++a) {
      x_pointers.push_back(x[a].data());
      weight_pointers.push_back(weight[a].data());
      grad_pointers.push_back(grad_y[a].data());
    }
  }
  // The filters, that of the fusion last.
  int64_t filters() const { return (filtered ? m : 0) + 1; }
  const T* const* weights() const { return filtered ? weight_pointers.data() : nullptr; }
};

// An array a filter.
template <typename T>
std::vector<std::vector<T>> forward(const Problem<T>& p, int threads) {
  std::vector<std::vector<T>> y(p.filters(), std::vector<T>(p.n * p.d));
  std::vector<T*> pointers;
  for (auto& array : y) pointers.push_back(array.data());
  const auto plan = smore::spectral_plan<T>(p.d, p.kept);
  const smore::SpectralForward<T> job{
      plan.get(), p.n, p.m, p.x_pointers.data(), p.weights(), pointers.data(), p.fusion.data(), pointers.back()};
  harness::run_ranges(smore::spectral_chunks(p.n), threads,
                      [&](int64_t begin, int64_t end) { smore::spectral_forward(job, begin, end); });
  return y;
}

template <typename T>
struct Gradients {
  std::vector<std::vector<T>> x;
  std::vector<double> partial;
};

template <typename T>
Gradients<T> backward(const Problem<T>& p, int threads) {
  const int64_t chunks = smore::spectral_chunks(p.n);
  Gradients<T> g{std::vector<std::vector<T>>(p.m, std::vector<T>(p.n * p.d)),
                 std::vector<double>(chunks * p.filters() * (p.d / 2 + 1) * 2)};
  std::vector<T*> pointers;
  for (auto& array : g.x) pointers.push_back(array.data());
  const auto plan = smore::spectral_plan<T>(p.d, p.kept);
  const smore::SpectralBackward<T> job{plan.get(),
                                       p.n,
                                       p.m,
                                       p.x_pointers.data(),
                                       p.weights(),
                                       p.fusion.data(),
                                       p.grad_pointers.data(),
                                       p.grad_fused.data(),
                                       pointers.data(),
                                       g.partial.data()};
  harness::run_ranges(chunks, threads, [&](int64_t begin, int64_t end) { smore::spectral_backward(job, begin, end); });
  return g;
}

}  // namespace spectral
