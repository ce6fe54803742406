// Exact cosine neighbours from tiles of approximate similarities, on CUDA. No torch here.
//
// As on the CPU (neighbours/cpu/knn_kernel.h): rows collect candidates from a matrix product of unit rows, everything
// within a margin of their k-th best, and what decides are similarities computed again in double with the CPU's order
// of summation. Graphs of both devices are the same, bit for bit, float and double.
//
// Of one table: row_squares, knn_begin, knn_collect, knn_finish, on one stream. Against a base: the squares of both,
// and then for one strip of queries after the other the same with knn_collect_strip.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cuda/device.cuh"
#include "neighbours/knn_rules.h"

namespace smore::cuda {

// Candidate lists of a run of rows.
template <typename T>
struct KnnLists {
  int64_t k, capacity;  // k: best ones to find, a row itself included where it is among those offered
  T margin;
  T* score;         // [rows][capacity]
  uint32_t* index;  // [rows][capacity]
  int64_t* count;   // [rows]
  T* bar;           // [rows]
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

// Similarities of rows [row, row + rows) with rows [column, column + columns), `stride` elements a row.
struct KnnTile {
  int64_t row, rows, column, columns, stride;
};

// Sizes of the scratch memory of the tiles. Wide tiles fill the device with blocks of the matrix product, low ones
// waste little below the diagonal.
struct KnnShape {
  int64_t rows, columns;  // of a tile
  int64_t panel;          // columns of the features that one product takes
  int64_t tile_elements() const { return rows * columns; }
  int64_t left_elements() const { return rows * panel; }
  int64_t right_elements() const { return columns * panel; }
};

inline constexpr int64_t kKnnScratchBytes = 60 << 20;

// Bytes of the lists of so many rows.
template <typename T>
int64_t knn_list_bytes(int64_t rows, int64_t k) {
  const int64_t element = static_cast<int64_t>(sizeof(T));
  return rows * (knn_capacity(k) * (element + 4) + 8 + element);
}

// For rows x columns similarities, beside `other` bytes of scratch memory.
template <typename T>
KnnShape knn_shape(int64_t rows, int64_t columns, int64_t d, int64_t other) {
  const int64_t element = static_cast<int64_t>(sizeof(T)), most_rows = sizeof(T) == 4 ? 1024 : 512;
  KnnShape shape{std::min(rows, most_rows), std::min((columns + 3) / 4 * 4, 4 * most_rows), 0};
  const int64_t left = (kKnnScratchBytes - other - shape.tile_elements() * element) / element;
  const int64_t most = std::clamp<int64_t>(left / (shape.rows + shape.columns) / 64 * 64, 256, 1024);
  const int64_t panels = std::max<int64_t>(1, (d + most - 1) / most);
  shape.panel = std::min(d, ((d + panels - 1) / panels + 63) / 64 * 64);
  return shape;
}

// Of one table: lists of all its rows, and their squares. Against a base: lists of a strip, and the squares of all
// rows.
template <typename T>
KnnShape knn_shape_within(int64_t n, int64_t d, int64_t k) {
  return knn_shape<T>(n, n, d, knn_list_bytes<T>(n, k) + 8 * n);
}
template <typename T>
KnnShape knn_shape_among(int64_t queries, int64_t n, int64_t d, int64_t k) {
  return knn_shape<T>(queries, n, d, knn_list_bytes<T>(std::min<int64_t>(queries, 1024), k) + 8 * (queries + n));
}

// Calls f(KnnTile) for the tiles of the upper triangle: strips of rows from the diagonal to the right end, each cut
// into tiles of about the same width. Strides are multiples of four.
template <typename F>
void for_each_knn_tile(int64_t n, const KnnShape& shape, const F& f) {
  for (int64_t row = 0; row < n; row += shape.rows) {
    const int64_t width = n - row, parts = (width + shape.columns - 1) / shape.columns;
    const int64_t even = (width + parts - 1) / parts, aligned = (even + 127) / 128 * 128;
    const int64_t step = aligned <= shape.columns ? aligned : shape.columns;
    for (int64_t column = row; column < n; column += step) {
      const int64_t columns = std::min(step, n - column);
      f(KnnTile{row, std::min(shape.rows, n - row), column, columns, (columns + 3) / 4 * 4});
    }
  }
}

// Calls f(KnnTile) for the tiles of one strip of rows with all n columns; the strip's rows count from 0.
template <typename F>
void for_each_strip_tile(int64_t rows, int64_t n, const KnnShape& shape, const F& f) {
  for (int64_t column = 0; column < n; column += shape.columns) {
    const int64_t columns = std::min(shape.columns, n - column);
    f(KnnTile{0, rows, column, columns, (columns + 3) / 4 * 4});
  }
}

// Empty lists of so many rows.
template <typename T>
void knn_begin(const KnnLists<T>& lists, int64_t rows, cudaStream_t stream);

// Columns [column, column + columns) of rows [row, row + rows) of x, divided by the rows' norms, into unit
// [rows, columns]; a zero row stays zero.
template <typename T>
void knn_unit_panel(const T* x, int64_t d, const double* square, int64_t row, int64_t rows, int64_t column,
                    int64_t columns, T* unit, cudaStream_t stream);

// Offers a tile to the lists of its rows and, if `to_columns`, of those columns that are not among its strip's rows.
template <typename T>
void knn_offer(const KnnLists<T>& lists, const T* values, const KnnTile& tile, bool to_columns, cudaStream_t stream);

// Scratch memory of knn_collect, by KnnShape.
template <typename T>
struct KnnScratch {
  T *left, *right, *tile;
};

// The similarities of a tile, in scratch.tile. product(a, rows, b, columns, width, out, stride, add) enqueues
// out = a b^T for a [rows, width] and b [columns, width], or out += a b^T if `add`. left_kept: the rows are those of
// the tile before.
template <typename T, typename F>
void knn_similarities(const KnnTables<T>& tables, const KnnTile& tile, const KnnShape& shape,
                      const KnnScratch<T>& scratch, bool left_kept, const F& product, cudaStream_t stream) {
  const int64_t d = tables.d;
  for (int64_t p = 0; p < d; p += shape.panel) {
    const int64_t width = std::min(shape.panel, d - p);
    if (width < d || !left_kept) {
      knn_unit_panel(tables.queries, d, tables.query_square, tile.row, tile.rows, p, width, scratch.left, stream);
    }
    knn_unit_panel(tables.base, d, tables.base_square, tile.column, tile.columns, p, width, scratch.right, stream);
    product(scratch.left, tile.rows, scratch.right, tile.columns, width, scratch.tile, tile.stride, p > 0);
  }
}

// Fills the lists of all rows of one table.
template <typename T, typename F>
void knn_collect(const KnnLists<T>& lists, const KnnTables<T>& tables, const KnnShape& shape,
                 const KnnScratch<T>& scratch, const F& product, cudaStream_t stream) {
  if (tables.d == 0) return;  // zero rows, which need no lists
  for_each_knn_tile(tables.n, shape, [&](const KnnTile& tile) {
    knn_similarities(tables, tile, shape, scratch, tile.column != tile.row, product, stream);
    knn_offer(lists, scratch.tile, tile, true, stream);
  });
}

// Fills the lists of a strip of queries.
template <typename T, typename F>
void knn_collect_strip(const KnnLists<T>& lists, const KnnTables<T>& tables, int64_t rows, const KnnShape& shape,
                       const KnnScratch<T>& scratch, const F& product, cudaStream_t stream) {
  if (tables.d == 0) return;
  for_each_strip_tile(rows, tables.n, shape, [&](const KnnTile& tile) {
    knn_similarities(tables, tile, shape, scratch, tile.column > 0, product, stream);
    knn_offer(lists, scratch.tile, tile, false, stream);
  });
}

// The neighbours of so many rows in order: the row itself if self is first, then the best of the others by cosine in
// double, rounded to T, similarity descending, then index ascending. Results have a column for each of the k best, none
// for a row that is left out. Uses up the lists.
template <typename T>
void knn_finish(const KnnLists<T>& lists, const KnnTables<T>& tables, int64_t rows, T* similarity, int64_t* index,
                cudaStream_t stream);

}  // namespace smore::cuda
