// Neighbours from blocks of similarities against a full sort in double: ties, zero rows, any block size and
// threads.
#include "neighbours/cpu/knn_kernel.h"

#include <limits>
#include <numeric>

#include "harness.h"

namespace {

template <typename T>
struct Neighbours {
  std::vector<T> similarity;
  std::vector<int64_t> index;
  bool operator==(const Neighbours&) const = default;
};

// As the binding does it, with a plain triple loop as the matrix product.
template <typename T>
Neighbours<T> search(const std::vector<T>& x, int64_t n, int64_t d, int64_t k, int64_t step, int threads) {
  std::vector<double> norm(n);
  harness::run_ranges(n, threads,
                      [&](int64_t begin, int64_t end) { smore::knn_squares(x.data(), d, norm.data(), begin, end); });
  std::vector<T> unit(n * d);
  smore::knn_unit_rows(x.data(), d, norm.data(), unit.data(), 0, n);
  const int64_t capacity = smore::knn_capacity(k);
  std::vector<T> score(n * capacity), bar(n, -std::numeric_limits<T>::infinity());
  std::vector<int32_t> index(n * capacity), count(n, 0);
  const T margin = T(20) * std::numeric_limits<T>::epsilon() * std::sqrt(T(d) + 4);
  smore::KnnCandidates<T> lists{n, k, capacity, margin, score.data(), index.data(), count.data(), bar.data()};
  for (int64_t i = 0; i < n; i += step) {
    const int64_t rows = std::min(step, n - i);
    for (int64_t j = i; j < n; j += step) {
      const int64_t columns = std::min(step, n - j);
      std::vector<T> block(rows * columns);
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < columns; ++c) {
          for (int64_t e = 0; e < d; ++e) block[r * columns + c] += unit[(i + r) * d + e] * unit[(j + c) * d + e];
        }
      }
      harness::run_ranges(rows, threads, [&](int64_t begin, int64_t end) {
        smore::knn_offer_rows(lists, block.data(), columns, i, j, columns, begin, end);
      });
      if (j == i) continue;
      harness::run_ranges(columns, threads, [&](int64_t begin, int64_t end) {
        smore::knn_offer_columns(lists, block.data(), columns, i, j, rows, begin, end);
      });
    }
  }
  Neighbours<T> found{std::vector<T>(n * k), std::vector<int64_t>(n * k)};
  harness::run_ranges(n, threads, [&](int64_t begin, int64_t end) {
    smore::knn_finish(lists, x.data(), d, norm.data(), found.similarity.data(), found.index.data(), begin, end);
  });
  return found;
}

template <typename T>
void compare(const std::vector<T>& x, int64_t n, int64_t d, int64_t k) {
  const Neighbours<T> found = search(x, n, d, k, n, 1);
  CHECK(found == search(x, n, d, k, 7, 3));
  CHECK(found == search(x, n, d, k, 32, 2));
  const double tolerance = sizeof(T) == 4 ? 1e-6 : 1e-13;
  const auto cosine = [&](int64_t a, int64_t b) {
    double dot = 0, aa = 0, bb = 0;
    for (int64_t e = 0; e < d; ++e) {
      dot += double(x[a * d + e]) * double(x[b * d + e]);
      aa += double(x[a * d + e]) * double(x[a * d + e]);
      bb += double(x[b * d + e]) * double(x[b * d + e]);
    }
    return aa == 0 || bb == 0 ? 0.0 : dot / std::sqrt(aa * bb);
  };
  for (int64_t r = 0; r < n; ++r) {
    std::vector<double> all(n);
    for (int64_t c = 0; c < n; ++c) all[c] = cosine(r, c);
    std::vector<double> sorted = all;
    std::sort(sorted.begin(), sorted.end(), std::greater<>());
    for (int64_t p = 0; p < k; ++p) {
      const int64_t chosen = found.index[r * k + p];
      CHECK(chosen >= 0 && chosen < n);
      CHECK_NEAR(found.similarity[r * k + p], sorted[p], tolerance);
      CHECK_NEAR(found.similarity[r * k + p], all[chosen], tolerance);
      if (p == 0) continue;
      const T before = found.similarity[r * k + p - 1], here = found.similarity[r * k + p];
      CHECK(before >= here);
      CHECK(found.index[r * k + p - 1] != chosen);
    }
  }
}

}  // namespace

TEST(random_rows) {
  for (const int64_t k : {1, 5, 40, 50}) {
    compare(harness::random_values<float>(50 * 19, 1), 50, 19, k);
    compare(harness::random_values<double>(50 * 19, 2), 50, 19, k);
  }
  compare(harness::random_values<float>(1 * 3, 3), 1, 3, 1);
  compare(harness::random_values<float>(200 * 4, 4), 200, 4, 10);
}

TEST(equal_rows_come_in_the_order_of_their_index) {
  std::vector<float> x(90 * 5);
  for (int64_t i = 0; i < 90 * 5; ++i) x[i] = static_cast<float>(i % 5 + 1);  // far more ties than a list holds
  const Neighbours<float> found = search(x, 90, 5, 4, 16, 2);
  for (int64_t r = 0; r < 90; ++r) {
    for (int64_t p = 0; p < 4; ++p) CHECK(found.index[r * 4 + p] == p);
  }
}

TEST(zero_rows_have_similarity_zero) {
  std::vector<float> x = harness::random_values<float>(30 * 6, 5);
  std::fill(x.begin() + 4 * 6, x.begin() + 5 * 6, 0.0f);
  compare(x, 30, 6, 30);
}
