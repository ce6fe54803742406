// Exact cosine neighbours from blocks of approximate similarities. No torch here.
//
// A similarity block comes from a float matrix product, whose rounding depends on the library that computed
// it. So a row only collects candidates from the blocks: everything within `margin` of its k-th best. The
// result is chosen among them by similarities computed again in double, in one fixed order of summation: it
// is the same for any block size, thread count and matrix library. A row that finds too many near ties to
// hold is searched again in double.
#pragma once

#include <cstdint>

#include "neighbours/knn_rules.h"

namespace smore {

// Candidate lists of all rows: [n][capacity].
template <typename T>
struct KnnCandidates {
  int64_t n, k, capacity;
  T margin;
  T* score;        // [n][capacity]
  int32_t* index;  // [n][capacity]
  int32_t* count;  // [n], -1: too many near ties
  T* bar;          // [n]: lower scores need not be kept
};

// square[i] = |x_i|^2 in double, for rows [begin, end).
template <typename T>
void knn_squares(const T* x, int64_t d, double* square, int64_t begin, int64_t end);

// Rows [begin, end) of x divided by their norms into unit [end - begin, d]; a zero row stays zero.
template <typename T>
void knn_unit_rows(const T* x, int64_t d, const double* square, T* unit, int64_t begin, int64_t end);

// Offers block[r][c] (row stride `stride`), the similarity of rows first_row + r and first_column + c, to the
// lists of the rows r in [begin, end) ...
template <typename T>
void knn_offer_rows(KnnCandidates<T>& lists, const T* block, int64_t stride, int64_t first_row, int64_t first_column,
                    int64_t columns, int64_t begin, int64_t end);
// ... and, for a block off the diagonal, to the lists of its columns c in [begin, end).
template <typename T>
void knn_offer_columns(KnnCandidates<T>& lists, const T* block, int64_t stride, int64_t first_row, int64_t first_column,
                       int64_t rows, int64_t begin, int64_t end);

// The k best of rows [begin, end): cosine in double, rounded to T; order: similarity descending, then index
// ascending.
template <typename T>
void knn_finish(const KnnCandidates<T>& lists, const T* x, int64_t d, const double* square, T* similarity,
                int64_t* index, int64_t begin, int64_t end);

}  // namespace smore
