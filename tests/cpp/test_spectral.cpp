// Filters and fusion against a discrete Fourier transform by its definition, forward and backward.
#include "spectral_problem.h"

namespace {

using namespace spectral;

template <typename T>
void compare_forward(int64_t n, int64_t d, int64_t m) {
  const Problem<T> p(n, d, m);
  const auto y = forward(p, 1);
  CHECK(y == forward(p, 3));
  const double tolerance = sizeof(T) == 4 ? 1e-4 : 1e-10;
  for (int64_t r = 0; r < n; r += std::max<int64_t>(1, n / 4)) {
    std::vector<Complex> product(d / 2 + 1, 1.0);
    for (int64_t a = 0; a <= m; ++a) {
      std::vector<Complex> bins = a < m ? spectrum(p.x[a].data() + r * d, d) : product;
      for (int64_t k = 0; k <= d / 2; ++k) {
        if (a < m) product[k] *= bins[k];  // spectra are multiplied as they were before their own filters
        bins[k] *= bin(a < m ? p.weight[a] : p.fusion, k);
      }
      const std::vector<double> wanted = row(bins, d);
      for (int64_t i = 0; i < d; ++i) CHECK_NEAR(y[a][r * d + i], wanted[i], tolerance);
    }
  }
}

// Central differences of L = sum of outputs times the arriving gradients, in double.
void compare_backward(int64_t n, int64_t d, int64_t m) {
  Problem<double> p(n, d, m);
  const auto loss = [&] {
    const auto y = forward(p, 1);
    double sum = 0;
    for (int64_t i = 0; i < n * d; ++i) {
      sum += y[m][i] * p.grad_fused[i];
      for (int64_t a = 0; a < m; ++a) sum += y[a][i] * p.grad_y[a][i];
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
  for (int64_t a = 0; a < m; ++a) {
    for (int64_t i = 0; i < n * d; i += std::max<int64_t>(1, n * d / 11)) CHECK_NEAR(g.x[a][i], slope(p.x[a][i]), 1e-6);
  }
  const int64_t bins = d / 2 + 1;
  for (int64_t a = 0; a <= m; ++a) {
    for (int64_t i = 0; i < bins * 2; ++i) {
      double sum = 0;
      for (int64_t c = 0; c < smore::spectral_chunks(n); ++c) sum += g.partial[(c * (m + 1) + a) * bins * 2 + i];
      CHECK_NEAR(sum, slope(a < m ? p.weight[a][i] : p.fusion[i]), 1e-5);
    }
  }
}

// Gradients in float, whose widths have kernels of their own, against those in double of the same values.
void compare_precisions(int64_t n, int64_t d, int64_t m) {
  const Problem<float> p(n, d, m);
  Problem<double> q(n, d, m);
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
  for (size_t i = 0; i < g.partial.size(); ++i) CHECK_NEAR(g.partial[i], wanted.partial[i], 1e-3);
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
  compare_precisions(1, 64, 1);
  compare_precisions(smore::kSpectralChunkRows * 2 + 7, 64, 3);
}

TEST(gradients_match_differences) {
  for (const int64_t d : {1, 2, 5, 8, 12}) compare_backward(9, d, 2);
  compare_backward(3, 7, 3);
  compare_backward(33, 4, 1);
}
