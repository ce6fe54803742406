// Runs of the spectral CUDA kernels, and the comparison with what must come out: those on the chip as they are, those
// between cuFFT's transforms with plain transforms in cuFFT's place.
#pragma once

#include "cuda_harness.h"
#include "spectral/cuda/spectral_kernel.h"
#include "spectral_problem.h"

namespace spectral {

using harness::Array;
using smore::cuda::SpectralScales;

// Arrays of a problem where a kernel may read them, and room for its results; `shift` elements off alignment.
template <typename T>
struct Device {
  Array<T> memory;
  T* data;
  int64_t count;
  Device(const std::vector<T>& values, int64_t shift) : Device(static_cast<int64_t>(values.size()), shift) {
    std::copy(values.begin(), values.end(), data);
  }
  Device(int64_t count, int64_t shift) : memory(count + shift), data(memory.data() + shift), count(count) {}
  std::vector<T> values() const { return std::vector<T>(data, data + count); }
};

template <typename T>
std::vector<Device<T>> devices(const std::vector<std::vector<T>>& arrays, int64_t shift) {
  std::vector<Device<T>> result;
  for (const auto& array : arrays) result.emplace_back(array, shift);
  return result;
}

template <typename T>
std::vector<Device<T>> rooms(int64_t arrays, int64_t count, int64_t shift) {
  std::vector<Device<T>> result;
  for (int64_t a = 0; a < arrays; ++a) result.emplace_back(count, shift);
  return result;
}

// Which of the kernels on the chip is meant.
template <typename T>
bool by_definition(const Problem<T>& p) {
  return smore::cuda::spectral_path(p.d, p.m, p.kept) == smore::cuda::SpectralPath::dft;
}

// The filtered arrays and, if `fused`, the fused one.
template <typename T>
std::vector<std::vector<T>> rows_forward(const Problem<T>& p, bool fused, int64_t shift = 0) {
  const int64_t outputs = p.m + (fused ? 1 : 0);
  const auto x = devices(p.x, shift), weight = devices(p.weight, shift);
  const Device<T> fusion(p.fusion, shift);
  const auto y = rooms<T>(outputs, p.n * p.d, shift);
  smore::cuda::SpectralRowsForward<T> job{p.n, p.d, p.kept, static_cast<int>(p.m), {}, {}, {}};
  const int64_t first = p.filtered ? 0 : p.m;
  for (int64_t m = 0; m < p.m; ++m) job.x[m] = x[m].data;
  for (int64_t m = first; m < p.m; ++m) job.weight[m] = weight[m].data;
  job.weight[p.m] = fusion.data;
  for (int64_t a = first; a < outputs; ++a) job.y[a] = y[a].data;
  (by_definition(p) ? smore::cuda::spectral_dft_forward<T> : smore::cuda::spectral_rows_forward<T>)(job, nullptr);
  std::vector<std::vector<T>> result;
  for (int64_t a = first; a < outputs; ++a) result.push_back(y[a].values());
  return result;
}

template <typename T>
struct Result {
  std::vector<std::vector<T>> x, weight;
  bool operator==(const Result&) const = default;
};

// The gradients, of filters from `first` on.
template <typename T>
Result<T> collect(const std::vector<Device<T>>& x, const std::vector<Device<T>>& weight, int64_t first) {
  Result<T> result;
  for (const auto& array : x) result.x.push_back(array.values());
  for (auto array = weight.begin() + first; array != weight.end(); ++array) result.weight.push_back(array->values());
  return result;
}

template <typename T>
Result<T> rows_backward(const Problem<T>& p, bool fused, int64_t shift = 0) {
  const int64_t filters = p.m + (fused ? 1 : 0), bins = p.d / 2 + 1;
  const auto x = devices(p.x, shift), weight = devices(p.weight, shift), grad_y = devices(p.grad_y, shift);
  const Device<T> fusion(p.fusion, shift), grad_fused(p.grad_fused, shift);
  const auto grad_x = rooms<T>(p.m, p.n * p.d, shift), grad_weight = rooms<T>(filters, bins * 2, shift);
  const auto modalities = static_cast<int>(p.m);
  const int64_t partials = by_definition(p) ? smore::cuda::spectral_dft_partials<T>(p.n, p.d, p.kept, modalities)
                                            : smore::cuda::spectral_rows_partials<T>(p.n, p.d, modalities);
  Array<double> partial(partials * filters * bins * 2);
  smore::cuda::SpectralRowsBackward<T> job{p.n, p.d, p.kept, modalities, {}, {}, {}, {}, partial.data(), {}};
  const int64_t first = p.filtered ? 0 : p.m;
  for (int64_t m = 0; m < p.m; ++m) job.x[m] = x[m].data, job.grad_x[m] = grad_x[m].data;
  for (int64_t m = first; m < p.m; ++m) job.weight[m] = weight[m].data, job.grad_y[m] = grad_y[m].data;
  job.weight[p.m] = fusion.data;
  if (fused) job.grad_y[p.m] = grad_fused.data;
  for (int64_t f = first; f < filters; ++f) job.grad_weight[f] = grad_weight[f].data;
  (by_definition(p) ? smore::cuda::spectral_dft_backward<T> : smore::cuda::spectral_rows_backward<T>)(job, nullptr);
  return collect(grad_x, grad_weight, first);
}

// In cuFFT's place: rows to spectra without scale, and back. The second takes the imaginary parts of bins 0 and d/2 for
// what they are, zero.
template <typename T>
void transform(const std::vector<T>& rows, int64_t n, int64_t d, T* spectra) {
  const int64_t bins = d / 2 + 1;
  for (int64_t r = 0; r < n; ++r) {
    const auto s = spectrum(rows.data() + r * d, d);
    for (int64_t k = 0; k < bins; ++k) {
      spectra[(r * bins + k) * 2] = static_cast<T>(s[k].real() * std::sqrt(double(d)));
      spectra[(r * bins + k) * 2 + 1] =
          k == 0 || 2 * k == d ? T(0) : static_cast<T>(s[k].imag() * std::sqrt(double(d)));
    }
  }
}

template <typename T>
std::vector<T> transform_back(const T* spectra, int64_t n, int64_t d) {
  const int64_t bins = d / 2 + 1;
  std::vector<T> rows(n * d);
  for (int64_t r = 0; r < n; ++r) {
    std::vector<Complex> s(bins);
    for (int64_t k = 0; k < bins; ++k)
      s[k] = bin(std::vector<T>(spectra + r * bins * 2, spectra + (r + 1) * bins * 2), k);
    CHECK(s[0].imag() == 0 && (d % 2 == 1 || s[bins - 1].imag() == 0));
    const auto values = row(s, d);
    for (int64_t i = 0; i < d; ++i) rows[r * d + i] = static_cast<T>(values[i] * std::sqrt(double(d)));
  }
  return rows;
}

// The filters of a problem, one by one or together.
template <typename T>
struct Weights {
  std::vector<Device<T>> each;
  Device<T> together;
  smore::cuda::SpectralFilters<T> filters{};
  Weights(const Problem<T>& p, bool one_array)
      : each(p.filtered ? devices(p.weight, 0) : std::vector<Device<T>>()), together(joined(p), 0) {
    each.emplace_back(p.fusion, 0);
    if (one_array) {
      filters.together = together.data;
    } else {
      for (size_t f = 0; f < each.size(); ++f) filters.each[f] = each[f].data;
    }
  }
  static std::vector<T> joined(const Problem<T>& p) {
    std::vector<T> all;
    for (const auto& w : p.weight) all.insert(all.end(), w.begin(), p.filtered ? w.end() : w.begin());
    all.insert(all.end(), p.fusion.begin(), p.fusion.end());
    return all;
  }
};

template <typename T>
std::vector<std::vector<T>> bins_forward(const Problem<T>& p, bool fused) {
  const int64_t outputs = p.m + (fused ? 1 : 0), size = p.n * (p.d / 2 + 1) * 2;
  Array<T> spectra(outputs * size);
  for (int64_t m = 0; m < p.m; ++m) transform(p.x[m], p.n, p.d, spectra.data() + m * size);
  const Weights<T> weights(p, p.m >= smore::cuda::kSpectralPointers);
  smore::cuda::spectral_bins_forward<T>({p.n, p.d, p.kept, p.m, p.filtered, fused, weights.filters, spectra.data()},
                                        nullptr);
  std::vector<std::vector<T>> y;
  for (int64_t a = p.filtered ? 0 : p.m; a < outputs; ++a)
    y.push_back(transform_back(spectra.data() + a * size, p.n, p.d));
  return y;
}

template <typename T>
Result<T> bins_backward(const Problem<T>& p, bool fused) {
  const int64_t filters = p.m + (fused ? 1 : 0), bins = p.d / 2 + 1, size = p.n * bins * 2;
  Array<T> spectra(p.m * size), gradients(filters * size);
  for (int64_t m = 0; m < p.m; ++m) {
    transform(p.x[m], p.n, p.d, spectra.data() + m * size);
    transform(p.grad_y[m], p.n, p.d, gradients.data() + m * size);
  }
  if (fused) transform(p.grad_fused, p.n, p.d, gradients.data() + p.m * size);
  const int64_t partials = smore::cuda::spectral_bins_partials(p.n, p.d);
  Array<double> partial(partials * filters * bins * 2);
  const Weights<T> weights(p, p.m >= smore::cuda::kSpectralPointers);
  smore::cuda::spectral_bins_backward<T>(
      {p.n, p.d, p.kept, p.m, p.filtered, fused, weights.filters, spectra.data(), gradients.data(), partial.data()},
      nullptr);
  const auto grad_weight = rooms<T>(filters, bins * 2, 0);
  std::vector<T*> pointers;
  const int64_t first = p.filtered ? 0 : p.m;
  for (int64_t f = 0; f < filters; ++f) pointers.push_back(f < first ? nullptr : grad_weight[f].data);
  smore::cuda::spectral_reduce(partial.data(), partials, p.d, p.kept, p.m, fused, SpectralScales(p.d, p.m, 1),
                               pointers.data(), nullptr);
  Result<T> result = collect({}, grad_weight, first);
  for (int64_t m = 0; m < p.m; ++m) result.x.push_back(transform_back(gradients.data() + m * size, p.n, p.d));
  return result;
}

// What must come out, in double: from the CPU kernels, which have tests of their own.
template <typename T>
struct Wanted {
  std::vector<std::vector<double>> y;
  Result<double> grad;
  Wanted(const Problem<T>& p, bool fused) {
    Problem<double> q(p.n, p.d, p.m);
    q.kept = p.kept, q.filtered = p.filtered;
    const auto widen = [](const std::vector<T>& from, std::vector<double>& to) { to.assign(from.begin(), from.end()); };
    for (int64_t a = 0; a < p.m; ++a) {
      widen(p.x[a], q.x[a]), widen(p.weight[a], q.weight[a]), widen(p.grad_y[a], q.grad_y[a]);
      q.x_pointers[a] = q.x[a].data(), q.weight_pointers[a] = q.weight[a].data();
      q.grad_pointers[a] = q.grad_y[a].data();
    }
    widen(p.fusion, q.fusion), widen(p.grad_fused, q.grad_fused);
    if (!fused) q.grad_fused.assign(q.grad_fused.size(), 0);
    y = forward(q, 1);
    const Gradients<double> g = backward(q, 1);
    grad.x = g.x;
    const int64_t bins = p.d / 2 + 1, chunks = smore::spectral_chunks(p.n);
    for (int64_t a = 0; a < p.filters() - (fused ? 0 : 1); ++a) {
      grad.weight.emplace_back(bins * 2);
      for (int64_t i = 0; i < p.kept * 2; ++i) {
        for (int64_t c = 0; c < chunks; ++c) grad.weight[a][i] += g.partial[(c * p.filters() + a) * bins * 2 + i];
      }
    }
  }
};

inline double largest(const double* values, int64_t count) {
  double top = 0;
  for (int64_t i = 0; i < count; ++i) top = std::max(top, std::fabs(values[i]));
  return top;
}

// Relative to the largest number of each stretch (a row, or a whole filter), which is taken for `least` at least.
template <typename T>
void compare(const std::vector<std::vector<T>>& got, const std::vector<std::vector<double>>& wanted, int64_t stretch,
             double tolerance, double least = 0) {
  for (size_t a = 0; a < got.size(); ++a) {
    CHECK(got[a].size() == wanted[a].size());
    for (int64_t i = 0; i < static_cast<int64_t>(got[a].size()); i += stretch) {
      const double size = std::max(largest(wanted[a].data() + i, stretch), least);
      for (int64_t j = i; j < i + stretch; ++j) CHECK_NEAR(got[a][j], wanted[a][j], tolerance * size);
    }
  }
}

template <typename T>
inline constexpr double kTolerance = sizeof(T) == 4 ? 3e-6 : 1e-13;

template <typename T>
void compare_all(const Problem<T>& p, bool fused, const std::vector<std::vector<T>>& y, const Result<T>& grad) {
  const Wanted<T> wanted(p, fused);
  // In rows of a few numbers all of them may be small beside what they are sums of, whatever the method; in rows of one
  // or two bins all bins may be.
  const double least = p.kept < 3 && p.kept <= p.d / 2 ? 0.5 / std::sqrt(double(p.d)) : 0;
  compare(y, wanted.y, p.d, kTolerance<T>, least);
  compare(grad.x, wanted.grad.x, p.d, kTolerance<T> * (p.d < 8 ? 4 : 1), least);
  compare(grad.weight, wanted.grad.weight, p.d / 2 * 2 + 2, kTolerance<T> * 3, least);
  for (const auto& w : grad.weight) {
    CHECK(w[1] == 0);
    if (p.d % 2 == 0) CHECK(w[p.d + 1] == 0);
    for (int64_t i = p.kept * 2; i < p.d / 2 * 2 + 2; ++i) CHECK(w[i] == 0);
  }
}

template <typename T>
struct Outcome {
  std::vector<std::vector<T>> y;
  Result<T> grad;
  bool operator==(const Outcome&) const = default;
};

template <typename T>
Outcome<T> rows_case(const Problem<T>& p, bool fused) {
  Outcome<T> outcome{rows_forward(p, fused), rows_backward(p, fused)};
  compare_all(p, fused, outcome.y, outcome.grad);
  return outcome;
}

template <typename T>
Outcome<T> rows_case(int64_t n, int64_t d, int64_t m, bool fused) {
  return rows_case(Problem<T>(n, d, m), fused);
}

template <typename T>
Outcome<T> bins_case(const Problem<T>& p, bool fused) {
  Outcome<T> outcome{bins_forward(p, fused), bins_backward(p, fused)};
  compare_all(p, fused, outcome.y, outcome.grad);
  return outcome;
}

template <typename T>
Outcome<T> bins_case(int64_t n, int64_t d, int64_t m, bool fused) {
  return bins_case(Problem<T>(n, d, m), fused);
}

inline constexpr int64_t kWidths[] = {16, 32, 64, 128, 256, 512};  // of fast transforms on the chip

}  // namespace spectral
