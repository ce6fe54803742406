// Filters and fusion against a discrete Fourier transform by its definition, forward and backward.
#include "spectral_problem.h"

namespace {

using namespace spectral;

template <typename T>
void compare_forward(const Problem<T>& p) {
  const int64_t n = p.n, d = p.d, filters = p.filters();
  const auto y = forward(p, 1);
  CHECK(y == forward(p, 3));
  const double tolerance = sizeof(T) == 4 ? 1e-4 : 1e-10;
  for (int64_t r = 0; r < n; r += std::max<int64_t>(1, n / 4)) {
    std::vector<Complex> product(d / 2 + 1, 1.0);
    for (int64_t a = 0; a <= p.m; ++a) {
      std::vector<Complex> bins = a < p.m ? spectrum(p.x[a].data() + r * d, d) : product;
      for (int64_t k = 0; k <= d / 2; ++k) {
        if (a < p.m) product[k] *= bins[k];  // spectra are multiplied as they were before their own filters
        bins[k] *= k < p.kept ? bin(a < p.m ? p.weight[a] : p.fusion, k) : 0;
      }
      if (a < p.m && !p.filtered) continue;
      const std::vector<double> wanted = row(bins, d);
      const auto& got = y[a < p.m ? a : filters - 1];
      for (int64_t i = 0; i < d; ++i) CHECK_NEAR(got[r * d + i], wanted[i], tolerance);
    }
  }
}

template <typename T>
void compare_forward(int64_t n, int64_t d, int64_t m) {
  compare_forward(Problem<T>(n, d, m));
}

// Central differences of L = sum of outputs times the arriving gradients, in double.
void compare_backward(Problem<double> p) {
  const int64_t n = p.n, d = p.d, filters = p.filters();
  const auto loss = [&] {
    const auto y = forward(p, 1);
    double sum = 0;
    for (int64_t i = 0; i < n * d; ++i) {
      for (int64_t f = 0; f < filters; ++f) sum += y[f][i] * (f + 1 < filters ? p.grad_y[f][i] : p.grad_fused[i]);
    }
    return sum;
  };
  const auto slope = [&](double& variable) {
    constexpr double h = 1e-5;
    const double kept = variable;
    variable = kept + h;
    const double above = loss();
    variable = kept - h;
    const double below = loss();
    variable = kept;
    return (above - below) / (2 * h);
  };
  const Gradients<double> g = backward(p, 1);
  const Gradients<double> g3 = backward(p, 3);
  CHECK(g.x == g3.x && g.partial == g3.partial);
  for (int64_t a = 0; a < p.m; ++a) {
    for (int64_t i = 0; i < n * d; i += std::max<int64_t>(1, n * d / 11)) CHECK_NEAR(g.x[a][i], slope(p.x[a][i]), 1e-6);
  }
  const int64_t bins = d / 2 + 1;
  for (int64_t f = 0; f < filters; ++f) {
    for (int64_t i = 0; i < p.kept * 2; ++i) {
      double sum = 0;
      for (int64_t c = 0; c < smore::spectral_chunks(n); ++c) sum += g.partial[(c * filters + f) * bins * 2 + i];
      CHECK_NEAR(sum, slope(f + 1 < filters ? p.weight[f][i] : p.fusion[i]), 1e-5);
    }
  }
}

void compare_backward(int64_t n, int64_t d, int64_t m) { compare_backward(Problem<double>(n, d, m)); }

// Gradients in float, whose widths have kernels of their own, against those in double of the same values.
void compare_precisions(const Problem<float>& p) {
  const int64_t n = p.n, d = p.d, m = p.m, size = (d / 2 + 1) * 2;
  Problem<double> q(n, d, m);
  q.kept = p.kept, q.filtered = p.filtered;
  const auto widen = [](const std::vector<float>& from, std::vector<double>& to) {
    std::copy(from.begin(), from.end(), to.begin());
  };
  for (int64_t a = 0; a < m; ++a) {
    widen(p.x[a], q.x[a]), widen(p.weight[a], q.weight[a]), widen(p.grad_y[a], q.grad_y[a]);
  }
  widen(p.fusion, q.fusion), widen(p.grad_fused, q.grad_fused);
  const Gradients<float> g = backward(p, 1), g3 = backward(p, 3);
  const Gradients<double> wanted = backward(q, 1);
  CHECK(g.x == g3.x && g.partial == g3.partial);
  for (int64_t a = 0; a < m; ++a) {
    for (int64_t i = 0; i < n * d; ++i) CHECK_NEAR(g.x[a][i], wanted.x[a][i], 1e-4);
  }
  for (int64_t i = 0; i < static_cast<int64_t>(g.partial.size()); ++i) {
    if (i % size < 2 * p.kept) CHECK_NEAR(g.partial[i], wanted.partial[i], 1e-3);
  }
}

void compare_precisions(int64_t n, int64_t d, int64_t m) { compare_precisions(Problem<float>(n, d, m)); }

template <typename T>
Problem<T> keeping(int64_t kept, Problem<T> p) {
  p.kept = kept;
  return p;
}

template <typename T>
Problem<T> fusion_only(Problem<T> p) {
  p.filtered = false;
  return p;
}

}  // namespace

TEST(outputs_match_the_definition) {
  for (const int64_t d : {1, 2, 3, 5, 8, 12, 17, 45, 63, 64, 100, 127}) {
    compare_forward<float>(37, d, 2);
    compare_forward<double>(5, d, 3);
  }
  compare_forward<float>(1, 64, 1);
  compare_forward<float>(smore::kSpectralChunkRows + 9, 64, 3);
  compare_forward<float>(smore::kSpectralChunkRows * 2 + 7, 16, 2);
}

TEST(gradients_in_float_match_those_in_double) {
  for (const int64_t d : {12, 63, 64}) compare_precisions(37, d, 2);
  for (const int64_t d : {257, 2 * 263}) {  // with a large prime factor
    compare_forward<float>(5, d, 2);
    compare_forward<double>(3, d, 2);
    compare_precisions(5, d, 2);
  }
  compare_precisions(1, 64, 1);
  compare_precisions(smore::kSpectralChunkRows * 2 + 7, 64, 3);
}

TEST(gradients_match_differences) {
  for (const int64_t d : {1, 2, 5, 8, 12}) compare_backward(9, d, 2);
  compare_backward(3, 7, 3);
  compare_backward(33, 4, 1);
}

// By definition where few bins are kept, by fast transforms otherwise: widths that have either, and both.
TEST(kept_bins) {
  for (const int64_t d : {12, 32, 45, 64, 100, 128, 300, 512}) {
    for (const int64_t kept : {1, 2, 5, 16, 17, 30, 45}) {
      if (kept > d / 2 + 1) continue;
      compare_forward(keeping(kept, Problem<float>(9, d, 2)));
      compare_forward(keeping(kept, Problem<double>(5, d, 3)));
      compare_precisions(keeping(kept, Problem<float>(13, d, 2)));
    }
  }
  for (const int64_t kept : {1, 3, 7}) {
    for (const int64_t d : {12, 16, 32, 64}) compare_backward(keeping(kept, Problem<double>(5, d, 2)));
  }
  compare_backward(keeping(3, Problem<double>(9, 32, 1)));
  compare_backward(keeping(8, Problem<double>(3, 32, 3)));
  for (const int64_t m : {1, 3}) {
    compare_forward(keeping(9, Problem<float>(smore::kSpectralChunkRows + 9, 64, m)));
    compare_precisions(keeping(9, Problem<float>(smore::kSpectralChunkRows * 2 + 7, 64, m)));
  }
}

TEST(fusion_without_filters_of_its_arrays) {
  for (const int64_t d : {5, 12, 64, 100}) {
    for (const int64_t kept : {int64_t{2}, d / 2 + 1}) {
      const auto problem = [&](auto number, int64_t n, int64_t m) {
        return fusion_only(keeping(kept, Problem<decltype(number)>(n, d, m)));
      };
      compare_forward(problem(float(), 37, 2));
      compare_forward(problem(double(), 5, 3));
      compare_precisions(problem(float(), 37, 2));
      compare_backward(problem(double(), 3, d == 64 ? 1 : 2));
    }
  }
}
