// InfoNCE loss against its definition in double, its gradient against differences, for 1 and 3 threads.
#include "losses/cpu/info_nce_kernel.h"

#include "cpu/aligned.h"
#include "harness.h"

namespace {

constexpr double kTemperature = 0.2;

template <typename T>
struct Side {
  smore::AlignedBuffer<T> unit, norm, panels;
  Side(const std::vector<T>& x, int64_t n, int64_t d, int threads)
      : unit(smore::nce_padded(n) * smore::nce_padded(d)),
        norm(smore::nce_padded(n)),
        panels(smore::nce_padded(n) * d) {
    harness::run_ranges(smore::nce_padded(n) / smore::kNceBlock, threads, [&](int64_t begin, int64_t end) {
      smore::nce_normalise(x.data(), n, d, unit.get(), norm.get(), begin * smore::kNceBlock, end * smore::kNceBlock);
      smore::nce_pack(unit.get(), n, d, panels.get(), begin, end);
    });
  }
};

template <typename T>
struct Result {
  std::vector<T> loss, grad_x, grad_y;
  bool operator==(const Result&) const = default;
};

// Every row's loss, and the gradients of their sum.
template <typename T>
Result<T> evaluate(const std::vector<T>& x, const std::vector<T>& y, int64_t n, int64_t d, int threads,
                   std::vector<T> counts = {}) {
  if (!counts.empty()) counts.resize(smore::nce_padded(n));
  const T* often = counts.empty() ? nullptr : counts.data();
  const Side<T> left(x, n, d, threads), right(y, n, d, threads);
  const int64_t blocks = smore::nce_padded(n) / smore::kNceBlock;
  std::vector<T> lse(smore::nce_padded(n));
  Result<T> out{std::vector<T>(n), std::vector<T>(n * d), std::vector<T>(n * d)};
  const smore::NceForward<T> forward{left.unit.get(), right.unit.get(), right.panels.get(), n,    d,
                                     kTemperature,    lse.data(),       out.loss.data(),    often};
  harness::run_ranges(blocks, threads, [&](int64_t begin, int64_t end) { smore::nce_forward(forward, begin, end); });
  const double scale = 1 / kTemperature;
  std::vector<T> partial(smore::nce_stripes(n) * smore::nce_padded(n) * smore::nce_padded(d), T(1e9));
  const smore::NceBackward<T> backward{
      left.unit.get(), left.norm.get(), right.unit.get(),  right.panels.get(), lse.data(), n, d,
      kTemperature,    scale,           out.grad_x.data(), partial.data(),     often};
  harness::run_ranges(smore::nce_stripes(n), threads,
                      [&](int64_t begin, int64_t end) { smore::nce_backward(backward, begin, end); });
  const smore::NceFinish<T> finish{partial.data(), right.unit.get(), right.norm.get(), n, d, scale, out.grad_y.data()};
  harness::run_ranges(n, threads, [&](int64_t begin, int64_t end) { smore::nce_finish(finish, begin, end); });
  return out;
}

// The sum of the losses by definition, in double.
template <typename T>
double total_loss(const std::vector<T>& x, const std::vector<T>& y, int64_t n, int64_t d) {
  const auto unit = [&](const std::vector<T>& rows) {
    std::vector<double> out(rows.begin(), rows.end());
    for (int64_t r = 0; r < n; ++r) {
      double square = 0;
      for (int64_t e = 0; e < d; ++e) square += out[r * d + e] * out[r * d + e];
      for (int64_t e = 0; e < d; ++e) out[r * d + e] /= std::max(std::sqrt(square), 1e-12);
    }
    return out;
  };
  const std::vector<double> u = unit(x), v = unit(y);
  double total = 0;
  for (int64_t i = 0; i < n; ++i) {
    double sum = 0, own = 0;
    for (int64_t j = 0; j < n; ++j) {
      double dot = 0;
      for (int64_t e = 0; e < d; ++e) dot += u[i * d + e] * v[j * d + e];
      sum += std::exp(dot / kTemperature);
      if (i == j) own = dot / kTemperature;
    }
    total += std::log(sum) - own;
  }
  return total;
}

template <typename T>
void compare(int64_t n, int64_t d) {
  std::vector<T> x = harness::random_values<T>(n * d, 1), y = harness::random_values<T>(n * d, 2);
  const Result<T> got = evaluate(x, y, n, d, 1);
  CHECK(got == evaluate(x, y, n, d, 3));
  double sum = 0;
  for (const T loss : got.loss) sum += double(loss);
  CHECK_NEAR(sum / double(n), total_loss(x, y, n, d) / double(n), sizeof(T) == 4 ? 1e-5 : 1e-12);
  std::vector<double> xd(x.begin(), x.end()), yd(y.begin(), y.end());
  const auto slope = [&](double& variable) {
    constexpr double h = 1e-5;
    const double kept = variable;
    variable = kept + h;
    const double above = total_loss(xd, yd, n, d);
    variable = kept - h;
    const double below = total_loss(xd, yd, n, d);
    variable = kept;
    return (above - below) / (2 * h);
  };
  for (int64_t i = 0; i < n * d; i += std::max<int64_t>(1, n * d / 7)) {
    CHECK_NEAR(got.grad_x[i], slope(xd[i]), sizeof(T) == 4 ? 1e-3 : 1e-6);
    CHECK_NEAR(got.grad_y[i], slope(yd[i]), sizeof(T) == 4 ? 1e-3 : 1e-6);
  }
}

// Rows that occur several times, once with their counts and once repeated.
template <typename T>
void compare_counted(int64_t n, int64_t d) {
  const std::vector<T> x = harness::random_values<T>(n * d, 1), y = harness::random_values<T>(n * d, 2);
  std::vector<T> counts(n), many_x, many_y;
  for (int64_t i = 0; i < n; ++i) {
    counts[i] = T(1 + i % 3);
    for (int64_t c = 0; c < 1 + i % 3; ++c) {
      many_x.insert(many_x.end(), x.begin() + i * d, x.begin() + (i + 1) * d);
      many_y.insert(many_y.end(), y.begin() + i * d, y.begin() + (i + 1) * d);
    }
  }
  const Result<T> got = evaluate(x, y, n, d, 1, counts);
  CHECK(got == evaluate(x, y, n, d, 3, counts));
  const Result<T> all = evaluate(many_x, many_y, int64_t(many_x.size()) / d, d, 1);
  const double tolerance = sizeof(T) == 4 ? 2e-4 : 1e-11;
  for (int64_t i = 0, first = 0; i < n; first += 1 + i % 3, ++i) {
    const int64_t often = 1 + i % 3;
    CHECK_NEAR(got.loss[i], double(often) * all.loss[first], tolerance);
    for (int64_t e = 0; e < d; ++e) {
      CHECK_NEAR(got.grad_x[i * d + e], double(often) * all.grad_x[first * d + e], tolerance);
      CHECK_NEAR(got.grad_y[i * d + e], double(often) * all.grad_y[first * d + e], tolerance);
    }
  }
}

}  // namespace

TEST(rows_that_occur_several_times) {
  for (const int64_t n : {1, 2, 63, 64, 65, 300}) {
    compare_counted<float>(n, 19);
    compare_counted<double>(n, 64);
  }
}

TEST(loss_and_gradients) {
  for (const int64_t n : {1, 2, 63, 64, 65, 130, 700}) {
    compare<float>(n, 19);
    compare<double>(n, 19);
  }
  compare<float>(70, 64);
  compare<double>(5, 1);
  compare<float>(20, 130);
}

TEST(zero_rows_give_finite_gradients) {
  std::vector<float> x = harness::random_values<float>(8 * 4, 1), y = harness::random_values<float>(8 * 4, 2);
  std::fill(x.begin(), x.begin() + 4, 0.0f);
  for (const float value : evaluate(x, y, 8, 4, 1).loss) CHECK(std::isfinite(value));
}
