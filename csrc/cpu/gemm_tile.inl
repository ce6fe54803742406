// Small matrix product held in registers. The building block of ranking and InfoNCE.
#include "cpu/tile.inl"

namespace smore::SMORE_LEVEL {

inline constexpr int kTileRows = SMORE_VECTOR_BYTES == 64 ? 8 : 4;  // accumulators: rows x 2 registers
inline constexpr int kTileVectors = 2;
template <typename T>
inline constexpr int kTileColumns = kTileVectors * kWidth<T>;

// The sums are kept apart from `acc` while the loop runs: a caller's array may be indexed at run time, and the compiler
// would then write all of it to memory at every step.
template <typename T>
SMORE_INLINE void gemm_chunk(const T* a, int64_t row_step, int64_t k_step, const T* b, int64_t b_step, int64_t depth,
                             Vec<T> (&acc)[kTileRows][kTileVectors]) {
  Vec<T> sum[kTileRows][kTileVectors];
#pragma GCC unroll 16
  for (int i = 0; i < kTileRows * kTileVectors; ++i)
    sum[i / kTileVectors][i % kTileVectors] = acc[i / kTileVectors][i % kTileVectors];
  for (int64_t k = 0; k < depth; ++k) {
    Vec<T> columns[kTileVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kTileVectors; ++v) columns[v] = load(b + k * b_step + v * kWidth<T>);
#pragma GCC unroll 16
    for (int r = 0; r < kTileRows; ++r) {
      const Vec<T> x = broadcast(a[r * row_step + k * k_step]);
#pragma GCC unroll 16
      for (int v = 0; v < kTileVectors; ++v) sum[r][v] = fma(x, columns[v], sum[r][v]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kTileRows * kTileVectors; ++i)
    acc[i / kTileVectors][i % kTileVectors] = sum[i / kTileVectors][i % kTileVectors];
}

// acc[r][v] += sum_k a[r * row_step + k * k_step] * b[k * b_step + v * W .. + W). Sums of 256 terms in the order of k,
// added in order: rounding errors grow slowly with the depth, and the result does not depend on where the tile lies.
template <typename T>
SMORE_INLINE void gemm_tile(const T* a, int64_t row_step, int64_t k_step, const T* b, int64_t b_step, int64_t depth,
                            Vec<T> (&acc)[kTileRows][kTileVectors]) {
  constexpr int64_t kChunk = 256;
  if (depth <= kChunk) return gemm_chunk<T>(a, row_step, k_step, b, b_step, depth, acc);
  for (int64_t k = 0; k < depth; k += kChunk) {
    Vec<T> part[kTileRows][kTileVectors] = {};
    gemm_chunk<T>(a + k * k_step, row_step, k_step, b + k * b_step, b_step, std::min(kChunk, depth - k), part);
    for (int r = 0; r < kTileRows; ++r) {
      for (int v = 0; v < kTileVectors; ++v) acc[r][v] += part[r][v];
    }
  }
}

template <typename T>
SMORE_INLINE void clear(Vec<T> (&acc)[kTileRows][kTileVectors]) {
  for (int r = 0; r < kTileRows; ++r) {
    for (int v = 0; v < kTileVectors; ++v) acc[r][v] = Vec<T>{};
  }
}

// Transposes rows [0, n) of a row-major [n, d] matrix into panels of kTileColumns rows: panel p, element k,
// column c holds rows[p * columns + c][k]. The last panel is filled up with zeros.
template <typename T>
void pack_panels(const T* rows, int64_t n, int64_t d, T* panels, int64_t first_panel, int64_t last_panel) {
  constexpr int64_t W = kWidth<T>;
  static_assert(kTileVectors == 2, "load_lanes leaves room for a second register");
  for (int64_t half = 2 * first_panel; half < 2 * last_panel; ++half) {
    const int64_t row = std::min(half * W, n);
    load_lanes(
        rows + row * d, d, n - row, d, [&](Vec<T> v) { return v; }, panels + half / 2 * 2 * W * d + half % 2 * W);
  }
}

}  // namespace smore::SMORE_LEVEL
