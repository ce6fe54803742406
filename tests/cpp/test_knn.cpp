// Neighbours from blocks of similarities against a full sort in double: ties, zero rows, any block size and
// threads; among the rows themselves, with the row itself or without, and in a base.
#include <functional>

#include "knn_problem.h"

namespace {

using harness::KnnProblem;
using harness::Neighbours;
using smore::KnnSelf;

template <typename T>
void compare(const KnnProblem<T>& problem) {
  const int64_t rows = problem.rows(), n = problem.n(), d = problem.d, k = problem.k;
  const Neighbours<T> found = harness::search(problem, std::max(rows, n), 1);
  CHECK(found == harness::search(problem, 7, 3));
  CHECK(found == harness::search(problem, 32, 2));
  const double tolerance = sizeof(T) == 4 ? 1e-6 : 1e-13;
  const std::vector<T>&x = problem.queries, &y = problem.others();
  const auto cosine = [&](int64_t a, int64_t b) {
    double dot = 0, aa = 0, bb = 0;
    for (int64_t e = 0; e < d; ++e) {
      dot += double(x[a * d + e]) * double(y[b * d + e]);
      aa += double(x[a * d + e]) * double(x[a * d + e]);
      bb += double(y[b * d + e]) * double(y[b * d + e]);
    }
    return aa == 0 || bb == 0 ? 0.0 : dot / std::sqrt(aa * bb);
  };
  for (int64_t r = 0; r < rows; ++r) {
    std::vector<double> all(n);
    for (int64_t c = 0; c < n; ++c) all[c] = cosine(r, c);
    std::vector<double> sorted = all;
    if (problem.self == KnnSelf::left_out) sorted.erase(sorted.begin() + r);
    std::sort(sorted.begin(), sorted.end(), std::greater<>());
    if (problem.self == KnnSelf::first) CHECK(found.index[r * k] == r);
    for (int64_t p = 0; p < k; ++p) {
      const int64_t chosen = found.index[r * k + p];
      CHECK(chosen >= 0 && chosen < n && (problem.self != KnnSelf::left_out || chosen != r));
      CHECK_NEAR(found.similarity[r * k + p], sorted[p], tolerance);
      CHECK_NEAR(found.similarity[r * k + p], all[chosen], tolerance);
      if (p == 0) continue;
      const T before = found.similarity[r * k + p - 1], here = found.similarity[r * k + p];
      CHECK(before >= here);
      CHECK(found.index[r * k + p - 1] != chosen);
    }
  }
}

template <typename T>
void compare_all(const std::vector<T>& x, int64_t d, int64_t k) {
  compare(KnnProblem<T>{x, {}, d, k});
  if (k < static_cast<int64_t>(x.size()) / d) compare(KnnProblem<T>{x, {}, d, k, KnnSelf::left_out});
  compare(KnnProblem<T>{harness::random_values<T>(23 * d, 77), x, d, k, KnnSelf::none});
}

}  // namespace

TEST(random_rows) {
  for (const int64_t k : {1, 5, 40, 50}) {
    compare_all(harness::random_values<float>(50 * 19, 1), 19, k);
    compare_all(harness::random_values<double>(50 * 19, 2), 19, k);
  }
  compare_all(harness::random_values<float>(1 * 3, 3), 3, 1);
  compare_all(harness::random_values<float>(200 * 4, 4), 4, 10);
}

TEST(equal_rows_come_in_the_order_of_their_index_behind_the_row_itself) {
  std::vector<float> x(90 * 5);
  for (int64_t i = 0; i < 90 * 5; ++i) x[i] = static_cast<float>(i % 5 + 1);  // far more ties than a list holds
  const Neighbours<float> own = harness::search<float>({x, {}, 5, 4}, 16, 2);
  const Neighbours<float> others = harness::search<float>({x, {}, 5, 4, KnnSelf::left_out}, 16, 2);
  const Neighbours<float> in_base = harness::search<float>({x, x, 5, 4, KnnSelf::none}, 16, 2);
  const Neighbours<float> one = harness::search<float>({x, {}, 5, 1}, 16, 2);
  for (int64_t r = 0; r < 90; ++r) {
    CHECK(own.index[r * 4] == r && one.index[r] == r && one.similarity[r] == 1.0f);
    for (int64_t p = 0; p < 4; ++p) {
      const int64_t other = p < r ? p : p + 1;  // the p-th that is not r
      if (p < 3) CHECK(own.index[r * 4 + p + 1] == other);
      CHECK(others.index[r * 4 + p] == other);
      CHECK(in_base.index[r * 4 + p] == p);
    }
  }
}

TEST(zero_rows_have_similarity_zero) {
  std::vector<float> x = harness::random_values<float>(30 * 6, 5);
  std::fill(x.begin() + 4 * 6, x.begin() + 5 * 6, 0.0f);
  compare_all(x, 6, 30);
  compare_all(x, 6, 29);
  const Neighbours<float> own = harness::search<float>({x, {}, 6, 3}, 8, 1);
  CHECK(own.index[4 * 3] == 4 && own.index[4 * 3 + 1] == 0 && own.index[4 * 3 + 2] == 1);
  CHECK(own.similarity[4 * 3] == 0.0f);
}
