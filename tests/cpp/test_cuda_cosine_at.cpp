// The CUDA side of cosine_at against the CPU kernels, bit for bit.
#include <numeric>

#include "cosine_problem.h"
#include "cuda_harness.h"
#include "neighbours/cuda/cosine_at_kernel.h"
#include "neighbours/cuda/row_squares_kernel.h"

namespace {

using harness::CosineProblem;
using harness::Cosines;

// As the binding does it; a table begins `offset` elements into its memory. Pairs that name no row are in no list, as
// they sort before or behind all that do.
template <typename T>
Cosines<T> cosines_cuda(const CosineProblem<T>& problem, int64_t offset) {
  const int64_t n = problem.n(), m = problem.m(), d = problem.d, k = problem.k;
  const auto shifted = [&](const std::vector<T>& x) {
    std::vector<T> values(offset);
    values.insert(values.end(), x.begin(), x.end());
    return values;
  };
  const harness::Array<T> features(shifted(problem.features)), base(shifted(problem.base)), grad(problem.grad);
  const harness::Array<int64_t> index(problem.index);
  harness::Array<double> square(n), base_square(m);
  const T* x = features.data() + offset;
  const T* y = problem.self() ? x : base.data() + offset;
  smore::cuda::row_squares<T>(x, n, d, square.data(), nullptr, nullptr);
  smore::cuda::row_squares<T>(y, m, d, base_square.data(), nullptr, nullptr);
  const smore::CosinePairs<T> pairs{x, square.data(), y, base_square.data(), index.data(), n, m, k, d, problem.self()};

  std::vector<int64_t> places(n * k), starts(m + 1);
  std::iota(places.begin(), places.end(), 0);
  std::stable_sort(places.begin(), places.end(),
                   [&](int64_t a, int64_t b) { return problem.index[a] < problem.index[b]; });
  for (int64_t j = 0; j <= m; ++j) {
    starts[j] = std::count_if(problem.index.begin(), problem.index.end(), [&](int64_t to) { return to < j; });
  }
  const harness::Array<int64_t> order(places), start(starts);
  const smore::cuda::PairsByBase incoming{start.data(), order.data()};

  harness::Array<T> similarity(n * k), grad_features(n * d), grad_base(problem.self() ? 0 : m * d);
  harness::Array<smore::CosineSlope> slope(n * k);
  smore::cuda::cosine_at(pairs, similarity.data(), nullptr);
  smore::cuda::cosine_slopes(pairs, grad.data(), similarity.data(), slope.data(), nullptr);
  smore::cuda::cosine_feature_gradient(pairs, slope.data(), incoming, grad_features.data(), nullptr);
  if (!problem.self()) smore::cuda::cosine_base_gradient(pairs, slope.data(), incoming, grad_base.data(), nullptr);
  return {similarity.values(), grad_features.values(), grad_base.values()};
}

template <typename T>
void compare(const CosineProblem<T>& problem, int64_t offset = 0) {
  const Cosines<T> wanted = harness::cosines(problem, 1);
  harness::each_order([&] {
    const Cosines<T> got = cosines_cuda(problem, offset);
    CHECK(harness::same_bits(got.similarity, wanted.similarity));
    CHECK(harness::same_bits(got.grad_features, wanted.grad_features));
    CHECK(harness::same_bits(got.grad_base, wanted.grad_base));
  });
}

}  // namespace

TEST(pairs_within_one_table) {
  for (const int64_t d : {1, 7, 64, 66, 130}) {
    compare(harness::random_pairs<float>(19, 19, d, 5, true, 1));
    compare(harness::random_pairs<double>(9, 9, d, 3, true, 2));
  }
  compare(harness::random_pairs<float>(70, 70, 12, 40, true, 3));  // lists of several warps' widths
  compare(harness::random_pairs<float>(1, 1, 4, 1, true, 4));
}

TEST(pairs_of_two_tables) {
  for (const int64_t d : {1, 7, 64, 130}) {
    compare(harness::random_pairs<float>(21, 10, d, 4, false, 5));
    compare(harness::random_pairs<double>(6, 30, d, 3, false, 6));
  }
}

TEST(tables_need_not_be_aligned) {
  compare(harness::random_pairs<float>(11, 11, 64, 4, true, 7), 1);
  compare(harness::random_pairs<double>(11, 5, 64, 4, false, 8), 1);
}

TEST(zero_rows) {
  CosineProblem<float> problem = harness::random_pairs<float>(20, 20, 10, 4, true, 9);
  for (const int64_t row : {0, 1, 13}) {
    std::fill(problem.features.begin() + row * 10, problem.features.begin() + row * 10 + 10, 0.0f);
  }
  compare(problem);
}

TEST(pairs_out_of_range_are_left_out) {
  CosineProblem<float> problem = harness::random_pairs<float>(8, 8, 10, 3, true, 10);
  CosineProblem<float> bad = problem;
  for (const int64_t e : {4, 11, 20}) {
    problem.grad[e] = 0.0f;  // as if it were not there
    bad.index[e] = e == 11 ? -1 : 8;
  }
  const Cosines<float> wanted = harness::cosines(problem, 1), got = cosines_cuda(bad, 0);
  CHECK(harness::same_bits(got.grad_features, wanted.grad_features));
  for (const int64_t e : {4, 11, 20}) CHECK(got.similarity[e] == 0.0f);
}

TEST(nothing_to_do) {
  const harness::Array<double> square(std::vector<double>(3));
  const smore::CosinePairs<float> pairs{nullptr, square.data(), nullptr, square.data(), nullptr, 3, 3, 0, 4, false};
  smore::cuda::cosine_at<float>(pairs, nullptr, nullptr);
  smore::cuda::cosine_slopes<float>(pairs, nullptr, nullptr, nullptr, nullptr);
}
