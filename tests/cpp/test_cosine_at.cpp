// Cosines of named pairs against sums in double, gradients against differences, any threads.
#include "cosine_problem.h"

namespace {

using harness::CosineProblem;
using harness::Cosines;

double cosine_in_double(const std::vector<double>& a, int64_t i, const std::vector<double>& b, int64_t j, int64_t d) {
  double dot = 0, aa = 0, bb = 0;
  for (int64_t e = 0; e < d; ++e) {
    dot += a[i * d + e] * b[j * d + e];
    aa += a[i * d + e] * a[i * d + e];
    bb += b[j * d + e] * b[j * d + e];
  }
  return aa == 0 || bb == 0 ? 0.0 : dot / std::sqrt(aa * bb);
}

// The scalar whose gradients the kernels compute.
double total(const CosineProblem<double>& problem) {
  double sum = 0;
  for (int64_t e = 0; e < problem.n() * problem.k; ++e) {
    sum += problem.grad[e] *
           cosine_in_double(problem.features, e / problem.k, problem.others(), problem.index[e], problem.d);
  }
  return sum;
}

void compare_with_differences(CosineProblem<double> problem) {
  const Cosines<double> found = harness::cosines(problem, 1);
  CHECK(found == harness::cosines(problem, 3));
  for (int64_t e = 0; e < problem.n() * problem.k; ++e) {
    const double wanted =
        cosine_in_double(problem.features, e / problem.k, problem.others(), problem.index[e], problem.d);
    CHECK_NEAR(found.similarity[e], wanted, 1e-14);
  }
  const auto check = [&](std::vector<double>& x, const std::vector<double>& gradient) {
    for (size_t at = 0; at < x.size(); ++at) {
      const double before = x[at], step = 1e-6;
      x[at] = before + step;
      const double up = total(problem);
      x[at] = before - step;
      const double down = total(problem);
      x[at] = before;
      CHECK_NEAR(gradient[at], (up - down) / (2 * step), 1e-8);
    }
  };
  check(problem.features, found.grad_features);
  if (!problem.self()) check(problem.base, found.grad_base);
}

}  // namespace

TEST(values_and_gradients) {
  for (const int64_t d : {1, 3, 8, 13, 64, 77}) {
    compare_with_differences(harness::random_pairs<double>(7, 7, d, 5, true, 1));
    compare_with_differences(harness::random_pairs<double>(6, 4, d, 3, false, 2));
  }
  compare_with_differences(harness::random_pairs<double>(5, 5, 4, 1, true, 3));
}

TEST(floats_are_computed_in_double_and_rounded_once) {
  const CosineProblem<float> problem = harness::random_pairs<float>(9, 9, 70, 4, true, 5);
  const auto wide = [](const std::vector<float>& x) { return std::vector<double>(x.begin(), x.end()); };
  const Cosines<double> exact =
      harness::cosines<double>({wide(problem.features), {}, problem.index, wide(problem.grad), 70, 4}, 1);
  const Cosines<float> found = harness::cosines(problem, 2);
  for (size_t e = 0; e < found.similarity.size(); ++e) {
    CHECK(found.similarity[e] == static_cast<float>(exact.similarity[e]));
  }
  for (size_t e = 0; e < found.grad_features.size(); ++e) {
    CHECK_NEAR(found.grad_features[e], exact.grad_features[e], 1e-6);
  }
}

TEST(zero_rows_and_a_row_with_itself_have_no_gradient) {
  CosineProblem<float> problem = harness::random_pairs<float>(6, 6, 9, 2, true, 7);
  std::fill(problem.features.begin() + 2 * 9, problem.features.begin() + 3 * 9, 0.0f);
  problem.index = {0, 2, 1, 2, 0, 1,
                   3, 3, 4, 2, 5, 2};  // each with itself or with the zero row; the zero row with others
  const Cosines<float> found = harness::cosines(problem, 1);
  CHECK(found.similarity == (std::vector<float>{1, 0, 1, 0, 0, 0, 1, 1, 1, 0, 1, 0}));
  CHECK(found.grad_features == std::vector<float>(6 * 9));
}

TEST(rows_of_any_magnitude) {
  CosineProblem<float> problem = harness::random_pairs<float>(6, 6, 9, 3, true, 8);
  for (int64_t i = 0; i < 6 * 9; ++i) problem.features[i] *= i / 9 % 2 == 0 ? 1e-18f : 1e18f;
  const Cosines<float> found = harness::cosines(problem, 1);
  for (const float g : found.grad_features) CHECK(std::isfinite(g));
}
