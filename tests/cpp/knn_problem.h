// Neighbours as the CPU binding of knn finds them, with a plain triple loop as the matrix product.
#pragma once

#include <limits>

#include "harness.h"
#include "neighbours/cpu/knn_kernel.h"
#include "neighbours/cpu/row_squares_kernel.h"

namespace harness {

template <typename T>
struct Neighbours {
  std::vector<T> similarity;
  std::vector<int64_t> index;
  bool operator==(const Neighbours&) const = default;
};

// Rows of width d, and of whom k neighbours are sought: among themselves, or in a base.
template <typename T>
struct KnnProblem {
  std::vector<T> queries, base;  // no base: the queries are
  int64_t d, k;
  smore::KnnSelf self = smore::KnnSelf::first;

  const std::vector<T>& others() const { return self == smore::KnnSelf::none ? base : queries; }
  int64_t rows() const { return d == 0 ? 0 : static_cast<int64_t>(queries.size()) / d; }
  int64_t n() const { return d == 0 ? 0 : static_cast<int64_t>(others().size()) / d; }
  int64_t listed() const { return smore::knn_listed(k, self); }
};

template <typename T>
std::vector<double> squares(const std::vector<T>& x, int64_t d, int threads) {
  const int64_t n = static_cast<int64_t>(x.size()) / d;
  std::vector<double> square(n);
  run_ranges(n, threads,
             [&](int64_t begin, int64_t end) { smore::row_squares(x.data(), d, square.data(), begin, end); });
  return square;
}

template <typename T>
std::vector<T> unit_rows(const std::vector<T>& x, int64_t d, const std::vector<double>& square) {
  std::vector<T> unit(x.size());
  smore::knn_unit_rows(x.data(), d, square.data(), unit.data(), 0, static_cast<int64_t>(square.size()));
  return unit;
}

// In blocks of step x step similarities. Against a base every block is offered to its rows only.
template <typename T>
Neighbours<T> search(const KnnProblem<T>& problem, int64_t step, int threads) {
  const int64_t rows = problem.rows(), n = problem.n(), d = problem.d, k = problem.listed();
  const bool own = problem.self != smore::KnnSelf::none;
  const std::vector<double> query_square = squares(problem.queries, d, threads),
                            square = squares(problem.others(), d, threads);
  const std::vector<T> query_unit = unit_rows(problem.queries, d, query_square),
                       unit = unit_rows(problem.others(), d, square);
  const int64_t capacity = smore::knn_capacity(k);
  std::vector<T> score(rows * capacity), bar(rows, -std::numeric_limits<T>::infinity());
  std::vector<int32_t> index(rows * capacity), count(rows, 0);
  smore::KnnCandidates<T> lists{k,         capacity, smore::knn_margin<T>(d), score.data(), index.data(), count.data(),
                                bar.data()};
  for (int64_t i = 0; i < rows; i += step) {
    const int64_t some = std::min(step, rows - i);
    for (int64_t j = own ? i : 0; j < n; j += step) {
      const int64_t columns = std::min(step, n - j);
      std::vector<T> block(some * columns);
      for (int64_t r = 0; r < some; ++r) {
        for (int64_t c = 0; c < columns; ++c) {
          for (int64_t e = 0; e < d; ++e) block[r * columns + c] += query_unit[(i + r) * d + e] * unit[(j + c) * d + e];
        }
      }
      run_ranges(some, threads, [&](int64_t begin, int64_t end) {
        smore::knn_offer_rows(lists, block.data(), columns, i, j, columns, begin, end);
      });
      if (!own || j == i) continue;
      run_ranges(columns, threads, [&](int64_t begin, int64_t end) {
        smore::knn_offer_columns(lists, block.data(), columns, i, j, some, begin, end);
      });
    }
  }
  const smore::KnnTables<T> tables{
      problem.queries.data(), query_square.data(), problem.others().data(), square.data(), n, d, problem.self};
  Neighbours<T> found{std::vector<T>(rows * problem.k), std::vector<int64_t>(rows * problem.k)};
  run_ranges(rows, threads, [&](int64_t begin, int64_t end) {
    smore::knn_finish(lists, tables, found.similarity.data(), found.index.data(), begin, end);
  });
  return found;
}

}  // namespace harness
