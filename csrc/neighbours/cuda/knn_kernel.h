// Exact cosine neighbours from tiles of approximate similarities, on CUDA. No torch here.
//
// As on the CPU (neighbours/cpu/knn_kernel.h): rows collect candidates from a matrix product of unit rows, everything
// within a margin of their k-th best, and what decides are similarities computed again in double with the CPU's order
// of summation. Graphs of both devices are the same, bit for bit, float and double.
//
// knn_squares, knn_collect, knn_finish, on one stream.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cuda/device.cuh"
#include "neighbours/knn_rules.h"

namespace smore::cuda {

// Candidate lists of all rows.
template <typename T>
struct KnnLists {
  int64_t n, k, capacity;
  T margin;
  T* score;         // [n][capacity]
  uint32_t* index;  // [n][capacity]
  int64_t* count;   // [n]
  T* bar;           // [n]
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

template <typename T>
KnnShape knn_shape(int64_t n, int64_t d, int64_t k) {
  const int64_t element = static_cast<int64_t>(sizeof(T)), rows = sizeof(T) == 4 ? 1024 : 512;
  KnnShape shape{std::min(n, rows), std::min((n + 3) / 4 * 4, 4 * rows), 0};
  const int64_t lists = n * (knn_capacity(k) * (element + 4) + 24);
  const int64_t left = (kKnnScratchBytes - lists - shape.tile_elements() * element) / element;
  const int64_t most = std::clamp<int64_t>(left / (shape.rows + shape.columns) / 64 * 64, 256, 1024);
  const int64_t panels = std::max<int64_t>(1, (d + most - 1) / most);
  shape.panel = std::min(d, ((d + panels - 1) / panels + 63) / 64 * 64);
  return shape;
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

// square[i] = |x_i|^2 in double, as the CPU sums it, and empty lists. *not_finite: 0, or 2^31 - 1 minus the first row
// whose square is not finite.
template <typename T>
void knn_squares(const T* x, int64_t d, double* square, const KnnLists<T>& lists, int* not_finite, cudaStream_t stream);

// Columns [column, column + columns) of rows [row, row + rows) of x, divided by the rows' norms, into unit
// [rows, columns]; a zero row stays zero.
template <typename T>
void knn_unit_panel(const T* x, int64_t d, const double* square, int64_t row, int64_t rows, int64_t column,
                    int64_t columns, T* unit, cudaStream_t stream);

// Offers a tile to the lists of its rows and of those columns that are not among its strip's rows.
template <typename T>
void knn_offer(const KnnLists<T>& lists, const T* values, const KnnTile& tile, cudaStream_t stream);

// Scratch memory of knn_collect, by KnnShape.
template <typename T>
struct KnnScratch {
  T *left, *right, *tile;
};

// Fills the lists. product(a, rows, b, columns, width, out, stride, add) enqueues out = a b^T for a [rows, width] and b
// [columns, width], or out += a b^T if `add`.
template <typename T, typename F>
void knn_collect(const KnnLists<T>& lists, const T* x, int64_t d, const double* square, const KnnShape& shape,
                 const KnnScratch<T>& scratch, const F& product, cudaStream_t stream) {
  if (d == 0) return;  // zero rows, which need no lists
  for_each_knn_tile(lists.n, shape, [&](const KnnTile& tile) {
    for (int64_t p = 0; p < d; p += shape.panel) {
      const int64_t width = std::min(shape.panel, d - p);
      if (width < d || tile.column == tile.row) {
        knn_unit_panel(x, d, square, tile.row, tile.rows, p, width, scratch.left, stream);
      }
      knn_unit_panel(x, d, square, tile.column, tile.columns, p, width, scratch.right, stream);
      product(scratch.left, tile.rows, scratch.right, tile.columns, width, scratch.tile, tile.stride, p > 0);
    }
    knn_offer(lists, scratch.tile, tile, stream);
  });
}

// The k best of every row: cosine in double, rounded to T; order: similarity descending, then index ascending. Uses up
// the lists.
template <typename T>
void knn_finish(const KnnLists<T>& lists, const T* x, int64_t d, const double* square, T* similarity, int64_t* index,
                cudaStream_t stream);

}  // namespace smore::cuda
