// The spectral CUDA kernels against the CPU ones and against transforms by definition: those on the chip as they are,
// those between cuFFT's transforms with plain transforms in cuFFT's place.
#include "spectral/cuda/spectral_kernel.h"

#include "cuda_harness.h"
#include "spectral_problem.h"

namespace {

using namespace spectral;
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
  return smore::cuda::spectral_path(p.d, p.m) == smore::cuda::SpectralPath::dft;
}

// The M filtered arrays and, if `fused`, the fused one.
template <typename T>
std::vector<std::vector<T>> rows_forward(const Problem<T>& p, bool fused, int64_t shift = 0) {
  const int64_t outputs = p.m + (fused ? 1 : 0);
  const auto x = devices(p.x, shift), weight = devices(p.weight, shift);
  const Device<T> fusion(p.fusion, shift);
  const auto y = rooms<T>(outputs, p.n * p.d, shift);
  smore::cuda::SpectralRowsForward<T> job{p.n, p.d, static_cast<int>(p.m), {}, {}, {}};
  for (int64_t m = 0; m < p.m; ++m) job.x[m] = x[m].data, job.weight[m] = weight[m].data;
  job.weight[p.m] = fusion.data;
  for (int64_t a = 0; a < outputs; ++a) job.y[a] = y[a].data;
  (by_definition(p) ? smore::cuda::spectral_dft_forward<T> : smore::cuda::spectral_rows_forward<T>)(job, nullptr);
  std::vector<std::vector<T>> result;
  for (const auto& array : y) result.push_back(array.values());
  return result;
}

template <typename T>
struct Result {
  std::vector<std::vector<T>> x, weight;
  bool operator==(const Result&) const = default;
};

template <typename T>
Result<T> collect(const std::vector<Device<T>>& x, const std::vector<Device<T>>& weight) {
  Result<T> result;
  for (const auto& array : x) result.x.push_back(array.values());
  for (const auto& array : weight) result.weight.push_back(array.values());
  return result;
}

template <typename T>
Result<T> rows_backward(const Problem<T>& p, bool fused, int64_t shift = 0) {
  const int64_t filters = p.m + (fused ? 1 : 0), bins = p.d / 2 + 1;
  const auto x = devices(p.x, shift), weight = devices(p.weight, shift), grad_y = devices(p.grad_y, shift);
  const Device<T> fusion(p.fusion, shift), grad_fused(p.grad_fused, shift);
  const auto grad_x = rooms<T>(p.m, p.n * p.d, shift), grad_weight = rooms<T>(filters, bins * 2, shift);
  const auto partials =
      by_definition(p) ? smore::cuda::spectral_dft_partials<T> : smore::cuda::spectral_rows_partials<T>;
  Array<double> partial(partials(p.n, p.d, static_cast<int>(p.m)) * filters * bins * 2);
  smore::cuda::SpectralRowsBackward<T> job{p.n, p.d, static_cast<int>(p.m), {}, {}, {}, {}, partial.data(), {}};
  for (int64_t m = 0; m < p.m; ++m) {
    job.x[m] = x[m].data, job.weight[m] = weight[m].data;
    job.grad_y[m] = grad_y[m].data, job.grad_x[m] = grad_x[m].data;
  }
  job.weight[p.m] = fusion.data;
  if (fused) job.grad_y[p.m] = grad_fused.data;
  for (int64_t f = 0; f < filters; ++f) job.grad_weight[f] = grad_weight[f].data;
  (by_definition(p) ? smore::cuda::spectral_dft_backward<T> : smore::cuda::spectral_rows_backward<T>)(job, nullptr);
  return collect(grad_x, grad_weight);
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
  Weights(const Problem<T>& p, bool one_array) : each(devices(p.weight, 0)), together(joined(p), 0) {
    each.emplace_back(p.fusion, 0);
    if (one_array) {
      filters.together = together.data;
    } else {
      for (size_t f = 0; f < each.size(); ++f) filters.each[f] = each[f].data;
    }
  }
  static std::vector<T> joined(const Problem<T>& p) {
    std::vector<T> all;
    for (const auto& w : p.weight) all.insert(all.end(), w.begin(), w.end());
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
  smore::cuda::spectral_bins_forward<T>({p.n, p.d, p.m, fused, weights.filters, spectra.data()}, nullptr);
  std::vector<std::vector<T>> y;
  for (int64_t a = 0; a < outputs; ++a) y.push_back(transform_back(spectra.data() + a * size, p.n, p.d));
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
      {p.n, p.d, p.m, fused, weights.filters, spectra.data(), gradients.data(), partial.data()}, nullptr);
  const auto grad_weight = rooms<T>(filters, bins * 2, 0);
  std::vector<T*> pointers;
  for (const auto& g : grad_weight) pointers.push_back(g.data);
  smore::cuda::spectral_reduce(partial.data(), partials, p.d, p.m, fused, SpectralScales(p.d, p.m, 1), pointers.data(),
                               nullptr);
  Result<T> result = collect({}, grad_weight);
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
    for (int64_t a = 0; a < p.m + (fused ? 1 : 0); ++a) {
      grad.weight.emplace_back(bins * 2);
      for (int64_t i = 0; i < bins * 2; ++i) {
        for (int64_t c = 0; c < chunks; ++c) grad.weight[a][i] += g.partial[(c * (p.m + 1) + a) * bins * 2 + i];
      }
    }
  }
};

double largest(const double* values, int64_t count) {
  double top = 0;
  for (int64_t i = 0; i < count; ++i) top = std::max(top, std::fabs(values[i]));
  return top;
}

// Relative to the largest number of each stretch (a row, or a whole filter).
template <typename T>
void compare(const std::vector<std::vector<T>>& got, const std::vector<std::vector<double>>& wanted, int64_t stretch,
             double tolerance) {
  for (size_t a = 0; a < got.size(); ++a) {
    CHECK(got[a].size() == wanted[a].size());
    for (int64_t i = 0; i < static_cast<int64_t>(got[a].size()); i += stretch) {
      const double size = largest(wanted[a].data() + i, stretch);
      for (int64_t j = i; j < i + stretch; ++j) CHECK_NEAR(got[a][j], wanted[a][j], tolerance * size);
    }
  }
}

template <typename T>
inline constexpr double kTolerance = sizeof(T) == 4 ? 3e-6 : 1e-13;

template <typename T>
void compare_all(const Problem<T>& p, bool fused, const std::vector<std::vector<T>>& y, const Result<T>& grad) {
  const Wanted<T> wanted(p, fused);
  compare(y, wanted.y, p.d, kTolerance<T>);
  // In rows of a few numbers all of them may be small beside what they are sums of, whatever the method.
  compare(grad.x, wanted.grad.x, p.d, kTolerance<T> * (p.d < 8 ? 4 : 1));
  compare(grad.weight, wanted.grad.weight, p.d / 2 * 2 + 2, kTolerance<T> * 3);
  for (const auto& w : grad.weight) {
    CHECK(w[1] == 0);
    if (p.d % 2 == 0) CHECK(w[p.d + 1] == 0);
  }
}

template <typename T>
struct Outcome {
  std::vector<std::vector<T>> y;
  Result<T> grad;
  bool operator==(const Outcome&) const = default;
};

template <typename T>
Outcome<T> rows_case(int64_t n, int64_t d, int64_t m, bool fused) {
  const Problem<T> p(n, d, m);
  Outcome<T> outcome{rows_forward(p, fused), rows_backward(p, fused)};
  compare_all(p, fused, outcome.y, outcome.grad);
  return outcome;
}

template <typename T>
Outcome<T> bins_case(int64_t n, int64_t d, int64_t m, bool fused) {
  const Problem<T> p(n, d, m);
  Outcome<T> outcome{bins_forward(p, fused), bins_backward(p, fused)};
  compare_all(p, fused, outcome.y, outcome.grad);
  return outcome;
}

constexpr int64_t kWidths[] = {16, 32, 64, 128, 256, 512};
constexpr int64_t kSmallWidths[] = {7, 24, 45, 63};  // by definition

std::vector<int64_t> chip_widths() {
  std::vector<int64_t> widths(std::begin(kWidths), std::end(kWidths));
  widths.insert(widths.end(), std::begin(kSmallWidths), std::end(kSmallWidths));
  return widths;
}

}  // namespace

TEST(the_rule_that_chooses_the_way) {
  using smore::cuda::SpectralPath;
  for (const int64_t d : kWidths) CHECK(smore::cuda::spectral_path(d, 3) == SpectralPath::fused);
  CHECK(smore::cuda::spectral_path(64, 4) == SpectralPath::cufft);
  for (const int64_t d : {2, 3, 4, 8, 15, 17, 31, 33, 48, 63}) {
    CHECK(smore::cuda::spectral_path(d, 3) == SpectralPath::dft);
    CHECK(smore::cuda::spectral_path(d, 4) == SpectralPath::cufft);
  }
  for (const int64_t d : {1, 65, 100, 1024}) CHECK(smore::cuda::spectral_path(d, 1) == SpectralPath::cufft);
}

TEST(on_the_chip_every_width) {
  for (const int64_t d : kWidths) {
    rows_case<float>(128 * 16 / d + 3, d, 2, true);  // more than a block of the forward kernel has rows
    rows_case<float>(3, d, 1, false);
    rows_case<float>(5, d, 1, true);
    rows_case<float>(64 * 16 / d + 1, d, 3, true);  // ... of the backward kernel
    rows_case<double>(64 * 16 / d + 1, d, 2, true);
    rows_case<double>(3, d, 1, false);
    rows_case<double>(32 * 16 / d + 1, d, 3, true);
  }
}

TEST(on_the_chip_every_small_width) {
  for (int64_t d = 2; d < 64; ++d) {
    if (d == 16 || d == 32) continue;
    rows_case<float>(3, d, 1 + d % 3, true);
    rows_case<double>(3, d, 1 + d / 3 % 3, true);
  }
  for (const int64_t d : {2, 3, 7, 15, 24, 31, 45, 48, 63}) {
    const int64_t block = d < 16 ? 256 : d < 32 ? 128 : 64;  // rows of a block of the forward kernel in float
    rows_case<float>(block + 3, d, 2, true);
    rows_case<float>(block / 2, d, 3, true);
    rows_case<float>(block / 2 + 1, d, 1, false);
    rows_case<double>(block / 2 + 1, d, 2, true);
    rows_case<double>(block / 4 + 5, d, 3, true);
    rows_case<double>(1, d, 1, false);
  }
}

TEST(on_the_chip_in_every_order_and_off_alignment) {
  for (const int64_t d : {16, 32, 64, 256, 7, 24, 45, 63}) {
    const Problem<float> p(64 * 16 / d + 3, d, 2);
    const Outcome<float> once = rows_case<float>(p.n, d, 2, true);
    harness::each_order([&] { CHECK(once.y == rows_forward(p, true) && once.grad == rows_backward(p, true)); });
    CHECK(once.y == rows_forward(p, true, 1) && once.grad == rows_backward(p, true, 1));
  }
}

TEST(between_transforms_any_width_any_number_of_arrays) {
  for (const int64_t d : {1, 2, 3, 12, 17, 63, 64, 100}) {
    bins_case<float>(19, d, 2, true);
    bins_case<double>(5, d, 1, false);
  }
  bins_case<double>(40, 12, 1, true);
  bins_case<float>(21, 7, 3, true);
  bins_case<double>(3, 9, smore::cuda::kSpectralPointers + 2, true);
  bins_case<float>(2, 601, 2, true);  // more bins than a block has threads
  for (const int64_t m : {2, 5}) {
    const Problem<float> p(700, 4, m);  // several blocks
    const Outcome<float> once = bins_case<float>(p.n, p.d, m, true);
    harness::each_order([&] { CHECK(once.y == bins_forward(p, true) && once.grad == bins_backward(p, true)); });
  }
}

TEST(no_rows) {
  for (const int64_t d : {7, 64, 100}) {
    const Problem<float> p(0, d, 2);
    const bool rows = d != 100;
    CHECK((rows ? rows_forward(p, true) : bins_forward(p, true)) == std::vector<std::vector<float>>(3));
    const Result<float> grad = rows ? rows_backward(p, true) : bins_backward(p, true);
    CHECK(grad.x == std::vector<std::vector<float>>(2));
    CHECK(grad.weight == std::vector<std::vector<float>>(3, std::vector<float>((d / 2 + 1) * 2)));
  }
}

// As many as make the blocks of both kernels take a second turn: the same few rows over and over.
TEST(more_rows_than_a_grid_has_threads) {
  const auto repeated = []<typename T>(const Problem<T>& few, int64_t times) {
    Problem<T> many(0, few.d, few.m);
    many.n = few.n * times;
    for (int64_t i = 0; i < times; ++i) {
      many.x[0].insert(many.x[0].end(), few.x[0].begin(), few.x[0].end());
      many.grad_y[0].insert(many.grad_y[0].end(), few.grad_y[0].begin(), few.grad_y[0].end());
    }
    return many;
  };
  const auto check_parts = []<typename T>(const std::vector<T>& all, const std::vector<T>& part) {
    for (size_t i = 0; i < all.size(); i += part.size()) {
      CHECK(std::memcmp(all.data() + i, part.data(), part.size() * sizeof(T)) == 0);
    }
  };
  // Rows of the blocks that are resident at a time: forward and backward kernel, then the forward kernel in double,
  // where the loop is another one, which loads no rows ahead.
  constexpr int64_t kForward = 132 * 5 * 128, kBackward = 132 * 8 * 64, kForwardDouble = 132 * 6 * 64, kFew = 1001;
  const Problem<float> few(kFew, 16, 1);
  check_parts(rows_forward(repeated(few, kForward / kFew + 1), false)[0], rows_forward(few, false)[0]);
  constexpr int64_t kTimes = kBackward / kFew + 1;
  const Result<float> grad = rows_backward(repeated(few, kTimes), false), grad_few = rows_backward(few, false);
  check_parts(grad.x[0], grad_few.x[0]);
  for (size_t i = 0; i < grad.weight[0].size(); ++i) {
    CHECK_NEAR(grad.weight[0][i], kTimes * grad_few.weight[0][i], 1e-5 * kTimes);
  }
  const Problem<double> few_double(kFew, 16, 1);
  check_parts(rows_forward(repeated(few_double, kForwardDouble / kFew + 1), false)[0],
              rows_forward(few_double, false)[0]);
  // The kernels by definition, with 16 rows a warp; 101 of them move through the tiles.
  const Problem<float> small(101, 33, 1);
  check_parts(rows_forward(repeated(small, 132 * 4 * 64 / 101 + 1), false)[0], rows_forward(small, false)[0]);
  constexpr int64_t kSmallTimes = 132 * 6 * 32 / 101 + 1;
  const Result<float> sums = rows_backward(repeated(small, kSmallTimes), false), once = rows_backward(small, false);
  check_parts(sums.x[0], once.x[0]);
  for (size_t i = 0; i < sums.weight[0].size(); ++i) {
    CHECK_NEAR(sums.weight[0][i], kSmallTimes * once.weight[0][i], 1e-5 * kSmallTimes);
  }
}

TEST(rows_of_very_different_size_do_not_disturb_each_other) {
  for (const int64_t d : {16, 64, 128, 7, 24, 45, 63}) {
    Problem<float> p(40, d, 2);
    for (int64_t r = 0; r < p.n; ++r) {
      const double power = double(r * 17 % p.n) / double(p.n - 1) - 0.5;  // -1/2 .. 1/2
      for (int64_t i = r * d; i < (r + 1) * d; ++i) {
        p.x[0][i] *= static_cast<float>(std::pow(10.0, 12 * power));
        p.x[1][i] *= static_cast<float>(std::pow(10.0, -12 * power));
        p.grad_y[0][i] *= static_cast<float>(std::pow(10.0, 12 * power));
        p.grad_fused[i] *= static_cast<float>(std::pow(10.0, -12 * power));
      }
    }
    std::fill_n(p.x[0].begin() + 3 * d, d, 0.0f), std::fill_n(p.x[1].begin() + 8 * d, d, 0.0f);
    const Wanted<float> wanted(p, true);
    const auto y = rows_forward(p, true);
    compare(y, wanted.y, d, kTolerance<float>);
    compare(rows_backward(p, true).x, wanted.grad.x, d, kTolerance<float>);
    for (int64_t i = 0; i < d; ++i) {
      CHECK(y[0][3 * d + i] == 0 && y[2][3 * d + i] == 0 && y[1][8 * d + i] == 0 && y[2][8 * d + i] == 0);
    }
  }
}

TEST(imaginary_parts_of_the_first_and_the_middle_bin_count_for_nothing) {
  for (const int64_t d : chip_widths()) {
    Problem<float> p(3, d, 2), same(3, d, 2);
    for (auto* w : {&p.weight[0], &p.weight[1], &p.fusion}) {
      (*w)[1] = std::numeric_limits<float>::quiet_NaN();
      if (d % 2 == 0) (*w)[d + 1] = (*w)[1];
    }
    CHECK(rows_forward(p, true) == rows_forward(same, true) && rows_backward(p, true) == rows_backward(same, true));
  }
}

TEST(nan_and_infinity_stay_in_their_row) {
  for (const int64_t d : chip_widths()) {
    Problem<float> p(40, d, 1);
    p.x[0][2 * d + 3] = std::numeric_limits<float>::quiet_NaN();
    p.x[0][19 * d] = std::numeric_limits<float>::infinity();
    const auto y = rows_forward(p, false), grad = rows_backward(p, true).x;
    for (int64_t r = 0; r < p.n; ++r) {
      int64_t finite = 0, finite_grad = 0;
      for (int64_t i = r * d; i < (r + 1) * d; ++i) {
        finite += std::isfinite(y[0][i]) ? 1 : 0, finite_grad += std::isfinite(grad[0][i]) ? 1 : 0;
      }
      CHECK(r == 2 || r == 19 ? finite < d : finite == d);
      CHECK(finite_grad == d);  // the gradient of x does not depend on x where M = 1
    }
  }
}
