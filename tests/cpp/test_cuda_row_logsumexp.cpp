// row_logsumexp on the CPU and on the (emulated) device against loops in double; the same bits for any threads and in
// every order of them.
#include "cpu/aligned.h"
#include "cuda_harness.h"
#include "losses/cpu/row_logsumexp_kernel.h"
#include "losses/cuda/row_logsumexp_kernel.h"

namespace {

template <typename T>
struct Problem {
  int64_t n, m, d;
  std::vector<T> a, b, weight;

  Problem(int64_t n, int64_t m, int64_t d, double scale)
      : n(n),
        m(m),
        d(d),
        a(harness::random_values<T>(n * d, 1)),
        b(harness::random_values<T>(m * d, 2)),
        weight(harness::random_values<T>(n, 3)) {
    for (T& value : a) value *= static_cast<T>(scale);
  }
};

template <typename T>
struct Result {
  std::vector<T> log_sum, grad_a, grad_b;
  bool operator==(const Result& other) const {
    return harness::same_bits(log_sum, other.log_sum) && harness::same_bits(grad_a, other.grad_a) &&
           harness::same_bits(grad_b, other.grad_b);
  }
};

template <typename T>
Result<double> by_definition(const Problem<T>& p) {
  Result<double> out{std::vector<double>(p.n), std::vector<double>(p.n * p.d), std::vector<double>(p.m * p.d)};
  std::vector<double> score(p.m);
  for (int64_t i = 0; i < p.n; ++i) {
    double top = -1e300, sum = 0;
    for (int64_t j = 0; j < p.m; ++j) {
      score[j] = 0;
      for (int64_t k = 0; k < p.d; ++k) score[j] += double(p.a[i * p.d + k]) * double(p.b[j * p.d + k]);
      top = std::max(top, score[j]);
    }
    for (int64_t j = 0; j < p.m; ++j) sum += std::exp(score[j] - top);
    out.log_sum[i] = top + std::log(sum);
    for (int64_t j = 0; j < p.m; ++j) {
      const double share = double(p.weight[i]) * std::exp(score[j] - out.log_sum[i]);
      for (int64_t k = 0; k < p.d; ++k) {
        out.grad_a[i * p.d + k] += share * double(p.b[j * p.d + k]);
        out.grad_b[j * p.d + k] += share * double(p.a[i * p.d + k]);
      }
    }
  }
  return out;
}

template <typename T>
struct Padded {
  smore::AlignedBuffer<T> rows, norm, panels;
  Padded(const std::vector<T>& x, const T* weight, int64_t n, int64_t d)
      : rows(smore::nce_padded(n) * smore::nce_padded(d)),
        norm(smore::nce_padded(n)),
        panels(smore::nce_padded(n) * d) {
    smore::lse_rows(x.data(), weight, n, d, rows.get(), norm.get(), 0, smore::nce_padded(n));
    smore::nce_pack(rows.get(), n, d, panels.get(), 0, smore::nce_padded(n) / smore::kNceBlock);
  }
};

template <typename T>
Result<T> on_cpu(const Problem<T>& p, int threads) {
  const Padded<T> a(p.a, nullptr, p.n, p.d), weighted(p.a, p.weight.data(), p.n, p.d), b(p.b, nullptr, p.m, p.d);
  Result<T> out{std::vector<T>(smore::nce_padded(p.n)), std::vector<T>(p.n * p.d), std::vector<T>(p.m * p.d)};
  const double b_norm = *std::max_element(b.norm.get(), b.norm.get() + p.m);
  const smore::LseForward<T> forward{a.rows.get(), a.norm.get(), b.panels.get(),    b_norm, p.n,
                                     p.m,          p.d,          out.log_sum.data()};
  harness::run_ranges(smore::nce_padded(p.n) / smore::kNceBlock, threads,
                      [&](int64_t begin, int64_t end) { smore::lse_forward(forward, begin, end); });
  smore::LseBackward<T> backward{a.rows.get(),
                                 weighted.rows.get(),
                                 b.rows.get(),
                                 p.n >= p.m ? b.panels.get() : a.panels.get(),
                                 p.weight.data(),
                                 out.log_sum.data(),
                                 p.n,
                                 p.m,
                                 p.d,
                                 out.grad_a.data(),
                                 out.grad_b.data(),
                                 nullptr};
  std::vector<T> partial(backward.stripes() * smore::nce_padded(backward.shorter()) * smore::nce_padded(p.d));
  backward.partial = partial.data();
  harness::run_ranges(backward.stripes(), threads,
                      [&](int64_t begin, int64_t end) { smore::lse_backward(backward, begin, end); });
  harness::run_ranges(backward.shorter(), threads,
                      [&](int64_t begin, int64_t end) { smore::lse_finish(backward, begin, end); });
  out.log_sum.resize(p.n);
  return out;
}

template <typename T>
Result<T> on_device(const Problem<T>& p) {
  const harness::Array<T> a(p.a), b(p.b), weight(p.weight);
  harness::Array<T> log_sum(p.n), grad_a(p.n * p.d), grad_b(p.m * p.d);
  harness::Array<T> forward(smore::cuda::lse_forward_scratch<T>(p.n, p.m, p.d)),
      backward(smore::cuda::lse_backward_scratch<T>(p.n, p.m, p.d));
  const smore::cuda::LseInput<T> input{a.data(), b.data(), p.n, p.m, p.d};
  smore::cuda::lse_forward(input, log_sum.data(), forward.data(), nullptr);
  smore::cuda::lse_backward(input, weight.data(), log_sum.data(), grad_a.data(), grad_b.data(), backward.data(),
                            nullptr);
  return {log_sum.values(), grad_a.values(), grad_b.values()};
}

template <typename T>
void near(const std::vector<T>& got, const std::vector<double>& wanted, double tolerance) {
  CHECK(got.size() == wanted.size());
  double scale = 0;
  for (const double value : wanted) scale = std::max(scale, std::fabs(value));
  for (size_t i = 0; i < got.size() && i < wanted.size(); ++i) CHECK_NEAR(got[i], wanted[i], tolerance * scale);
}

template <typename T>
void compare(int64_t n, int64_t m, int64_t d, double scale = 1) {
  const Problem<T> problem(n, m, d, scale);
  const Result<double> wanted = by_definition(problem);
  const Result<T> cpu = on_cpu(problem, 1), device = on_device(problem);
  const double unit = (sizeof(T) == 4 ? 4e-6 : 1e-13) * std::max(1.0, scale);
  for (const Result<T>& got : {cpu, device}) {
    near(got.log_sum, wanted.log_sum, unit);
    near(got.grad_a, wanted.grad_a, unit);
    near(got.grad_b, wanted.grad_b, unit);
  }
  CHECK(cpu == on_cpu(problem, 3));
  harness::each_order([&] { CHECK(device == on_device(problem)); });
}

}  // namespace

TEST(either_side_may_be_the_longer_one) {
  compare<float>(3, 150, 19);
  compare<float>(150, 3, 19);
  compare<float>(65, 130, 64);
  compare<double>(70, 33, 32);
  compare<double>(1, 40, 7);
}

TEST(rows_wider_than_a_tile) {
  compare<float>(20, 70, 130);
  compare<double>(40, 9, 33);
}

TEST(large_scores_find_their_largest_first) {
  compare<float>(70, 90, 16, 40);
  compare<double>(33, 50, 6, 100);
}

TEST(no_columns) {
  const Problem<float> problem(3, 4, 0, 1);
  const harness::Array<float> nothing(0);
  harness::Array<float> log_sum(3), scratch(smore::cuda::lse_forward_scratch<float>(3, 4, 0));
  smore::cuda::lse_forward<float>({nothing.data(), nothing.data(), 3, 4, 0}, log_sum.data(), scratch.data(), nullptr);
  for (const float value : log_sum.values()) CHECK_NEAR(value, std::log(4.0), 1e-6);
  CHECK_NEAR(on_cpu(problem, 1).log_sum[0], std::log(4.0), 1e-6);
}

TEST(not_a_number_is_not_hidden) {
  for (const double scale : {1.0, 100.0}) {
    Problem<float> problem(3, 5, 4, scale);
    problem.b[2] = NAN;
    CHECK(std::isnan(on_device(problem).log_sum[0]));
    const Padded<float> a(problem.a, nullptr, 3, 4), b(problem.b, nullptr, 5, 4);
    std::vector<float> log_sum(3);
    smore::lse_forward<float>({a.rows.get(), a.norm.get(), b.panels.get(), INFINITY, 3, 5, 4, log_sum.data()}, 0, 1);
    CHECK(std::isnan(log_sum[0]));
  }
}

TEST(a_score_beyond_the_type_is_infinite) {
  for (const float sign : {1.0f, -1.0f}) {
    Problem<float> problem(3, 70, 4, 1);
    for (float& value : problem.a) value = 1e30f;
    for (float& value : problem.b) value = -1e30f;
    for (int k = 0; k < 4; ++k) problem.b[4 + k] = sign * 1e30f;
    for (const std::vector<float>& log_sum : {on_cpu(problem, 1).log_sum, on_device(problem).log_sum}) {
      for (const float value : log_sum) CHECK(value == sign * INFINITY);
    }
  }
}
