// The kernels of feature tables against their definition in double, with sizes that leave tails, for 1 and 3 threads.
#include "harness.h"
#include "tables/cpu/factored_adam_kernel.h"
#include "tables/cpu/table_linear_kernel.h"

namespace {

template <typename T>
void compare_linear(int64_t n, int64_t width, int64_t d) {
  const auto table = harness::random_values<T>(n * width, 1), weight = harness::random_values<T>(d * width, 2),
             bias = harness::random_values<T>(d, 3), grad = harness::random_values<T>(n * d, 4);
  const auto run = [&](int threads) {
    std::vector<std::vector<T>> out{std::vector<T>(n * d, T(99)), std::vector<T>(d * width, T(99))};
    std::vector<T> panels(smore::table_packed_elements<T>(width, d));
    harness::run_ranges(smore::table_depth_blocks(width), threads, [&](int64_t begin, int64_t end) {
      smore::table_pack(weight.data(), width, d, panels.data(), begin, end);
    });
    const smore::TableForward<T> forward{table.data(), panels.data(), bias.data(), n, width, d, out[0].data()};
    harness::run_ranges((n + smore::kTableRows - 1) / smore::kTableRows, threads,
                        [&](int64_t begin, int64_t end) { smore::table_forward(forward, begin, end); });
    const smore::TableWeightGradient<T> backward{grad.data(), table.data(), n, width, d, out[1].data()};
    harness::run_ranges(smore::table_panels<T>(width), threads,
                        [&](int64_t begin, int64_t end) { smore::table_weight_gradient(backward, begin, end); });
    return out;
  };
  const auto got = run(1);
  CHECK(got == run(3));
  const double tolerance = sizeof(T) == 4 ? 2e-4 : 1e-11;
  for (int64_t r = 0; r < n; ++r) {
    for (int64_t c = 0; c < d; ++c) {
      double sum = bias[c];
      for (int64_t k = 0; k < width; ++k) sum += double(table[r * width + k]) * double(weight[c * width + k]);
      CHECK_NEAR(got[0][r * d + c], sum, tolerance);
    }
  }
  for (int64_t c = 0; c < d; ++c) {
    for (int64_t k = 0; k < width; ++k) {
      double sum = 0;
      for (int64_t r = 0; r < n; ++r) sum += double(grad[r * d + c]) * double(table[r * width + k]);
      CHECK_NEAR(got[1][c * width + k], sum, tolerance);
    }
  }
}

template <typename T>
void compare_adam(int64_t n, int64_t width, int64_t d) {
  const auto param = harness::random_values<T>(n * width, 1), average = harness::random_values<T>(n * width, 2),
             rows = harness::random_values<T>(n * d, 4), factor = harness::random_values<T>(d * width, 5);
  auto square = harness::random_values<T>(n * width, 3);
  for (T& v : square) v *= v;
  constexpr double kStep = 0.01, kBeta1 = 0.9, kBeta2 = 0.999, kRoot = 0.2, kEps = 1e-8;
  const auto run = [&](int threads) {
    std::vector<std::vector<T>> out{param, average, square};
    const int64_t count = smore::adam_panels<T>(width);
    std::vector<T> panels(count * smore::adam_panel_elements<T>(d));
    harness::run_ranges(count, threads, [&](int64_t begin, int64_t end) {
      smore::adam_pack(factor.data(), d, width, panels.data(), begin, end);
    });
    const smore::FactoredAdam<T> job{
        out[0].data(), out[1].data(), out[2].data(), rows.data(), panels.data(), n, width, d,
        kStep,         kBeta1,        kBeta2,        kRoot,       kEps};
    harness::run_ranges((n + smore::kAdamRows - 1) / smore::kAdamRows, threads,
                        [&](int64_t begin, int64_t end) { smore::factored_adam(job, begin, end); });
    return out;
  };
  const auto got = run(1);
  CHECK(got == run(3));
  const double tolerance = sizeof(T) == 4 ? 1e-4 : 1e-12;
  for (int64_t r = 0; r < n; ++r) {
    for (int64_t c = 0; c < width; ++c) {
      double grad = 0;
      for (int64_t k = 0; k < d; ++k) grad += double(rows[r * d + k]) * double(factor[k * width + c]);
      const int64_t i = r * width + c;
      const double m = kBeta1 * double(average[i]) + (1 - kBeta1) * grad;
      const double v = kBeta2 * double(square[i]) + (1 - kBeta2) * grad * grad;
      CHECK_NEAR(got[1][i], m, tolerance);
      CHECK_NEAR(got[2][i], v, tolerance);
      CHECK_NEAR(got[0][i], double(param[i]) - kStep * m / (std::sqrt(v) / kRoot + kEps), tolerance);
    }
  }
}

void compare(void (*f)(int64_t, int64_t, int64_t)) {
  f(1, 1, 1);
  f(0, 5, 2);
  f(33, 70, 5);
  f(137, 530, 64);
  f(9, 1100, 33);
}

}  // namespace

TEST(linear_matches_its_definition) {
  compare(compare_linear<float>);
  compare(compare_linear<double>);
}

TEST(adam_matches_its_definition) {
  compare(compare_adam<float>);
  compare(compare_adam<double>);
}
