// Cosines of named pairs and their gradients as the CPU binding computes them.
#pragma once

#include "harness.h"
#include "neighbours/cpu/cosine_at_kernel.h"
#include "neighbours/cpu/row_squares_kernel.h"

namespace harness {

template <typename T>
struct CosineProblem {
  std::vector<T> features, base;  // no base: the features are
  std::vector<int64_t> index;
  std::vector<T> grad;
  int64_t d, k;

  bool self() const { return base.empty(); }
  const std::vector<T>& others() const { return self() ? features : base; }
  int64_t n() const { return static_cast<int64_t>(features.size()) / d; }
  int64_t m() const { return static_cast<int64_t>(others().size()) / d; }
};

// Some rows are named much more often than others.
template <typename T>
CosineProblem<T> random_pairs(int64_t n, int64_t m, int64_t d, int64_t k, bool self, unsigned seed) {
  CosineProblem<T> problem{random_values<T>(n * d, seed),     {}, random_ids(n * k, self ? n : m, seed + 1),
                           random_values<T>(n * k, seed + 2), d,  k};
  if (!self) problem.base = random_values<T>(m * d, seed + 3);
  for (int64_t e = 0; e < n * k; e += 3) problem.index[e] %= 2;
  return problem;
}

template <typename T>
struct Cosines {
  std::vector<T> similarity, grad_features, grad_base;  // no base: its gradient is empty
  bool operator==(const Cosines&) const = default;
};

template <typename T>
std::vector<double> row_squares_of(const std::vector<T>& x, int64_t d) {
  std::vector<double> square(x.size() / d);
  smore::row_squares(x.data(), d, square.data(), 0, static_cast<int64_t>(square.size()));
  return square;
}

template <typename T>
Cosines<T> cosines(const CosineProblem<T>& problem, int threads) {
  const int64_t n = problem.n(), m = problem.m(), d = problem.d, k = problem.k;
  const std::vector<double> square = row_squares_of(problem.features, d), other = row_squares_of(problem.others(), d);
  const smore::CosinePairs<T> pairs{
      problem.features.data(), square.data(), problem.others().data(), other.data(), problem.index.data(), n, m, k, d,
      problem.self()};
  Cosines<T> result{std::vector<T>(n * k), std::vector<T>(n * d), std::vector<T>(problem.base.size())};
  std::vector<smore::CosineSlope> slope(n * k);
  run_ranges(n, threads, [&](int64_t begin, int64_t end) {
    smore::cosine_at(pairs, result.similarity.data(), begin, end);
    smore::cosine_slopes(pairs, problem.grad.data(), result.similarity.data(), slope.data(), begin, end);
  });
  std::vector<int64_t> start(m + 1);
  std::vector<smore::CosinePair> order(n * k);
  smore::pairs_by_base(problem.index.data(), n, k, m, start.data(), order.data());
  run_ranges(n, threads, [&](int64_t begin, int64_t end) {
    smore::cosine_feature_gradient(pairs, slope.data(), problem.self() ? start.data() : nullptr,
                                   problem.self() ? order.data() : nullptr, result.grad_features.data(), begin, end);
  });
  if (problem.self()) return result;
  run_ranges(m, threads, [&](int64_t begin, int64_t end) {
    smore::cosine_base_gradient(pairs, slope.data(), start.data(), order.data(), result.grad_base.data(), begin, end);
  });
  return result;
}

}  // namespace harness
