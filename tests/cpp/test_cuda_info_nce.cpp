// InfoNCE on the (emulated) device against loops in double, and the same bits in every order of threads.
#include "cuda_harness.h"
#include "losses/cuda/info_nce_kernel.h"

namespace {

constexpr double kGrad = 0.7;

template <typename T>
struct Result {
  std::vector<T> loss, log_sum, grad_x, grad_y;
};

template <typename T>
Result<T> on_device(const std::vector<T>& x, const std::vector<T>& y, int64_t n, int64_t d, double temperature) {
  const harness::Array<T> left(x), right(y), grad(std::vector<T>{T(kGrad)});
  harness::Array<T> loss(1), log_sum(n), grad_x(n * d), grad_y(n * d);
  harness::Array<T> forward(smore::cuda::nce_forward_scratch<T>(n, d)),
      backward(smore::cuda::nce_backward_scratch<T>(n, d));
  const smore::cuda::NceInput<T> input{left.data(), right.data(), n, d, temperature};
  smore::cuda::nce_forward(input, loss.data(), log_sum.data(), forward.data(), nullptr);
  smore::cuda::nce_backward(input, grad.data(), log_sum.data(), grad_x.data(), grad_y.data(), backward.data(), nullptr);
  return {loss.values(), log_sum.values(), grad_x.values(), grad_y.values()};
}

struct Unit {
  std::vector<double> rows, norm;
  template <typename T>
  Unit(const std::vector<T>& x, int64_t n, int64_t d) : rows(x.begin(), x.end()), norm(n) {
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t k = 0; k < d; ++k) norm[i] += rows[i * d + k] * rows[i * d + k];
      norm[i] = std::sqrt(norm[i]);
      for (int64_t k = 0; k < d; ++k) rows[i * d + k] /= std::max(norm[i], 1e-12);
    }
  }
  // Back through the division by the norm.
  std::vector<double> back(const std::vector<double>& gradient, int64_t n, int64_t d) const {
    std::vector<double> out(gradient);
    for (int64_t i = 0; i < n; ++i) {
      double along = 0;
      for (int64_t k = 0; k < d && norm[i] > 1e-12; ++k) along += gradient[i * d + k] * rows[i * d + k];
      for (int64_t k = 0; k < d; ++k) {
        out[i * d + k] = (gradient[i * d + k] - along * rows[i * d + k]) / std::max(norm[i], 1e-12);
      }
    }
    return out;
  }
};

template <typename T>
Result<double> by_definition(const std::vector<T>& x, const std::vector<T>& y, int64_t n, int64_t d,
                             double temperature) {
  const Unit u(x, n, d), v(y, n, d);
  Result<double> out{{0}, std::vector<double>(n), {}, {}};
  std::vector<double> score(n * n), grad_u(n * d), grad_v(n * d);
  for (int64_t i = 0; i < n; ++i) {
    double top = -1e300, sum = 0;
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t k = 0; k < d; ++k) score[i * n + j] += u.rows[i * d + k] * v.rows[j * d + k] / temperature;
      top = std::max(top, score[i * n + j]);
    }
    for (int64_t j = 0; j < n; ++j) sum += std::exp(score[i * n + j] - top);
    out.log_sum[i] = top + std::log(sum);
    out.loss[0] += (out.log_sum[i] - score[i * n + i]) / double(n);
    for (int64_t j = 0; j < n; ++j) {
      const double p = kGrad / (double(n) * temperature) * (std::exp(score[i * n + j] - out.log_sum[i]) - (i == j));
      for (int64_t k = 0; k < d; ++k) {
        grad_u[i * d + k] += p * v.rows[j * d + k];
        grad_v[j * d + k] += p * u.rows[i * d + k];
      }
    }
  }
  out.grad_x = u.back(grad_u, n, d);
  out.grad_y = v.back(grad_v, n, d);
  return out;
}

template <typename T>
void near(const std::vector<T>& got, const std::vector<double>& wanted, double tolerance) {
  CHECK(got.size() == wanted.size());
  double scale = 0;
  for (const double value : wanted) scale = std::max(scale, std::fabs(value));
  for (size_t i = 0; i < got.size() && i < wanted.size(); ++i) CHECK_NEAR(got[i], wanted[i], tolerance * scale);
}

template <typename T>
void compare(std::vector<T> x, std::vector<T> y, int64_t n, int64_t d, double temperature) {
  const Result<T> first = on_device(x, y, n, d, temperature);
  const Result<double> wanted = by_definition(x, y, n, d, temperature);
  const double unit = sizeof(T) == 4 ? 1e-6 : 1e-14, steep = std::max(1.0, 0.2 / temperature);
  near(first.log_sum, wanted.log_sum, unit * steep);
  CHECK_NEAR(first.loss[0], wanted.loss[0], 2 * unit * steep * std::max(1.0, std::fabs(wanted.log_sum[0])));
  near(first.grad_x, wanted.grad_x, 5 * unit * steep);
  near(first.grad_y, wanted.grad_y, 5 * unit * steep);
  harness::each_order([&] {
    const Result<T> again = on_device(x, y, n, d, temperature);
    CHECK(harness::same_bits(again.loss, first.loss) && harness::same_bits(again.log_sum, first.log_sum));
    CHECK(harness::same_bits(again.grad_x, first.grad_x) && harness::same_bits(again.grad_y, first.grad_y));
  });
}

template <typename T>
void compare(int64_t n, int64_t d, double temperature = 0.2) {
  compare(harness::random_values<T>(n * d, 1), harness::random_values<T>(n * d, 2), n, d, temperature);
}

}  // namespace

TEST(loss_and_gradients) {
  compare<float>(2, 19);
  compare<float>(65, 1);
  compare<float>(130, 64);
  compare<double>(31, 7);
  compare<double>(70, 32);
}

TEST(rows_wider_than_a_tile) {
  compare<float>(20, 130);
  compare<double>(40, 33);
}

TEST(low_temperatures_use_a_running_maximum) {
  compare<float>(70, 6, 0.02);
  compare<double>(33, 6, 0.01);
}

TEST(a_single_row_loses_nothing) {
  const Result<float> got = on_device<float>({1, 2, 3}, {3, -1, 2}, 1, 3, 0.5);
  CHECK_NEAR(got.loss[0], 0, 1e-6);
  for (const float value : got.grad_x) CHECK_NEAR(value, 0, 1e-6);
}

TEST(zero_rows) {
  std::vector<float> x = harness::random_values<float>(9 * 5, 1), y = harness::random_values<float>(9 * 5, 2);
  std::fill(x.begin() + 5, x.begin() + 10, 0.0f);
  const Result<float> got = on_device(x, y, 9, 5, 0.2);
  const Result<double> wanted = by_definition(x, y, 9, 5, 0.2);
  near(got.log_sum, wanted.log_sum, 1e-6);
  for (const float value : got.grad_x) CHECK(std::isfinite(value));
}

TEST(no_columns) {
  const Result<float> got = on_device<float>({}, {}, 3, 0, 0.2);
  CHECK_NEAR(got.loss[0], std::log(3.0), 1e-6);
}

TEST(not_a_number_is_not_hidden) {
  std::vector<float> x = harness::random_values<float>(6, 1);
  x[2] = NAN;
  for (const double temperature : {0.2, 0.01}) {
    CHECK(std::isnan(on_device(x, harness::random_values<float>(6, 2), 3, 2, temperature).loss[0]));
  }
}
