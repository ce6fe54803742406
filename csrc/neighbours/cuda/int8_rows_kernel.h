// Cosines of rows from products of whole numbers, with a proven bound on what they are off by, on CUDA. No torch here.
//
// A row of length 1 is step * q + rest, where q are whole numbers of 16 bits, each of two bytes: q = 256 high + low.
// Tensor cores multiply bytes and add up in 32 bits without any rounding, so of two rows
//   u v = step_u step_v (65536 high_u high_v + 256 (high_u low_v + low_u high_v)) + error,
//   |error| <= |rest_u| + |rest_v| + |rest_u| |rest_v| + step_u |low_u| step_v |low_v|    (Cauchy and Schwarz)
// and the lengths on the right are measured, row by row. Against one product of float32 it is three of bytes, of which
// tensor cores make some thirty times as many; and the bound needs no assumption on how they round.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cuda/device.cuh"
#include "neighbours/cuda/knn_kernel.h"

namespace smore::cuda {

// Sizes of the scratch memory of a tile. Rows and columns are padded to multiples of `kInt8Pad`, and each part of a row
// to `depth` bytes.
struct Int8Shape {
  int64_t rows, columns, depth;
  int64_t tile_elements() const { return rows * columns; }
  int64_t left_bytes() const { return rows * 2 * depth; }
  int64_t right_bytes() const { return columns * 2 * depth; }
};

inline constexpr int64_t kInt8Pad = 32;
// Sums of 2 d products of 127 and 128 stay below 2^31.
inline constexpr int64_t kInt8Widest = 1 << 16;
// Beyond it more rows are candidates than lists have room for.
inline constexpr double kInt8Margin = 2e-3;

constexpr int64_t int8_padded(int64_t n) { return (n + kInt8Pad - 1) / kInt8Pad * kInt8Pad; }

// For `rows` lists among n rows of width d, beside `other` bytes of scratch memory; no rows where there is too little.
inline Int8Shape int8_shape(int64_t rows, int64_t n, int64_t d, int64_t other) {
  Int8Shape shape{std::min<int64_t>(int8_padded(rows), 1024), 0, int8_padded(d)};
  const int64_t left = kKnnScratchBytes - other - shape.left_bytes();
  const int64_t column = 2 * shape.depth + 8 * shape.rows;
  shape.columns = std::min(int8_padded(n), std::min<int64_t>(4096, left / column / kInt8Pad * kInt8Pad));
  return left < 0 || shape.columns < std::min<int64_t>(int8_padded(n), 256) ? Int8Shape{0, 0, 0} : shape;
}

// How far a similarity may lie below that of a better one and be the exact better one still. `rest`, `low`: the largest
// lengths among all rows, as int8_steps has them. The last term is the rounding to float, of this similarity and of the
// exact one, by which rows are ordered.
inline double int8_margin(double rest, double low) { return 2 * (2 * rest + rest * rest + low * low + 0x1p-22); }

// Of the n rows of x [n, d] with squared norms `square`: step, |rest| and step * |low|, rounded upwards, [n] each. A
// zero row has 0.
void int8_steps(const float* x, int64_t n, int64_t d, const double* square, float* step, float* rest, float* low,
                cudaStream_t stream);

// Rows [row, row + rows) in bytes, parts [padded][2][depth]: high before low, or low before high if `low_first`; zeros
// behind d, and in the rows up to `padded`.
void int8_panel(const float* x, int64_t d, const double* square, const float* step, int64_t row, int64_t rows,
                int64_t padded, int64_t depth, bool low_first, int8_t* parts, cudaStream_t stream);

// The similarities of a tile, `stride` apart, from its products: high [rows][stride] becomes them, as floats.
// step: of all rows; the tile's rows are those of `queries`.
void int8_similarities(int32_t* high, const int32_t* cross, const KnnTile& tile, const float* query_step,
                       const float* base_step, cudaStream_t stream);

struct Int8Scratch {
  int8_t *left, *right;
  int32_t *high, *cross;  // a tile each
};

// Steps of the queries and of the base, as KnnTables has the rows.
struct Int8Tables {
  const float *query_step, *base_step;
};

// The similarities of a tile; returns it with the stride at which they lie in scratch.high. product(left, rows, right,
// columns, depth, high, cross) enqueues high = left[:, 0] right[:, 1]^T and cross = left right^T of bytes, where the
// left is high before low, the right low before high.
template <typename F>
KnnTile int8_tile(const KnnTables<float>& tables, const Int8Tables& steps, KnnTile tile, const Int8Shape& shape,
                  const Int8Scratch& scratch, bool left_kept, const F& product, cudaStream_t stream) {
  const int64_t rows = int8_padded(tile.rows), columns = int8_padded(tile.columns);
  if (!left_kept) {
    int8_panel(tables.queries, tables.d, tables.query_square, steps.query_step, tile.row, tile.rows, rows, shape.depth,
               false, scratch.left, stream);
  }
  int8_panel(tables.base, tables.d, tables.base_square, steps.base_step, tile.column, tile.columns, columns,
             shape.depth, true, scratch.right, stream);
  product(scratch.left, rows, scratch.right, columns, shape.depth, scratch.high, scratch.cross);
  tile.stride = columns;
  int8_similarities(scratch.high, scratch.cross, tile, steps.query_step, steps.base_step, stream);
  return tile;
}

// As knn_collect and knn_collect_strip.
template <typename F>
void int8_collect(const KnnLists<float>& lists, const KnnTables<float>& tables, const Int8Tables& steps,
                  const Int8Shape& shape, const Int8Scratch& scratch, const F& product, cudaStream_t stream) {
  for_each_knn_tile(tables.n, KnnShape{shape.rows, shape.columns, 0}, [&](const KnnTile& tile) {
    const KnnTile made = int8_tile(tables, steps, tile, shape, scratch, tile.column != tile.row, product, stream);
    knn_offer(lists, reinterpret_cast<const float*>(scratch.high), made, true, stream);
  });
}

template <typename F>
void int8_collect_strip(const KnnLists<float>& lists, const KnnTables<float>& tables, const Int8Tables& steps,
                        int64_t rows, const Int8Shape& shape, const Int8Scratch& scratch, const F& product,
                        cudaStream_t stream) {
  for_each_strip_tile(rows, tables.n, KnnShape{shape.rows, shape.columns, 0}, [&](const KnnTile& tile) {
    const KnnTile made = int8_tile(tables, steps, tile, shape, scratch, tile.column > 0, product, stream);
    knn_offer(lists, reinterpret_cast<const float*>(scratch.high), made, false, stream);
  });
}

}  // namespace smore::cuda
