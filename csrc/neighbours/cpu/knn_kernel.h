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

// Candidate lists of a run of rows, which begin empty: counts of 0, bars of minus infinity.
template <typename T>
struct KnnCandidates {
  int64_t k, capacity;  // k: best ones to find, a row itself included where it is among those offered
  T margin;
  T* score;        // [rows][capacity]
  int32_t* index;  // [rows][capacity]
  int32_t* count;  // [rows], -1: too many near ties
  T* bar;          // [rows]: lower scores need not be kept
};

// Whose neighbours are sought, and among which rows.
template <typename T>
struct KnnTables {
  const T* queries;            // [rows, d]: the first has the first list
  const double* query_square;  // [rows]
  const T* base;               // [n, d]; the queries themselves unless self is none
  const double* base_square;   // [n]
  int64_t n, d;
  KnnSelf self;
};

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

// The neighbours of rows [begin, end) in order: the row itself if self is first, then the best of the others by cosine
// in double, rounded to T, similarity descending, then index ascending. Results have a column for each of the k best,
// none for a row that is left out.
template <typename T>
void knn_finish(const KnnCandidates<T>& lists, const KnnTables<T>& tables, T* similarity, int64_t* index, int64_t begin,
                int64_t end);

}  // namespace smore
