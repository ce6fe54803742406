// Tiles of InfoNCE: how unit rows lie in memory, and a product of two tiles in registers.
//
// A block has kNceThreads threads in 16 row groups and 8 column groups. For packs of V elements, a tile of scores has
// 32 V rows and 16 V columns, and a thread 2 V x 2 V of it: packs of V rows (columns), two of them, half a tile apart.
// So one step of a product reads four packs for 4 V * V multiply-adds, and the lanes of a warp read neighbouring packs.
#pragma once

#include <limits>

#include "common/host_device.h"
#include "cuda/launch.cuh"
#include "cuda/pack.cuh"

namespace smore::cuda {

// A score of nothing: it weighs nothing beside any other.
template <typename T>
inline constexpr T kLowest = std::numeric_limits<T>::lowest();

inline constexpr int kNceThreads = 128;
inline constexpr int kRowGroups = 16, kColumnGroups = 8;

template <typename T>
inline constexpr int kPanel = 2 * kColumnGroups * kFullPack<T>;  // columns of a tile, and its depth
template <typename T>
inline constexpr int kTileRows = 2 * kRowGroups * kFullPack<T>;  // two panels
template <typename T>
inline constexpr int kEdge = 2 * kFullPack<T>;  // rows and columns of a thread

// Unit rows in scratch memory, padded with zeros to whole tiles, twice: as panels (panel p, element k, row r of the
// panel) for scores, which sum over k, and plain for gradients, which sum over rows.
template <typename T>
struct NceShape {
  int64_t n, d;           // of the input
  int64_t rows;           // padded
  int width;              // padded
  int row_tiles, panels;  // panels of which at least one row is real

  NceShape(int64_t n, int64_t d)
      : n(n),
        d(d),
        rows(ceil_div(n, kTileRows<T>) * kTileRows<T>),
        width(static_cast<int>(ceil_div(d > 0 ? d : 1, kPanel<T>) * kPanel<T>)),
        row_tiles(static_cast<int>(rows / kTileRows<T>)),
        panels(static_cast<int>(ceil_div(n, kPanel<T>))) {
    if (rows > INT32_MAX || width > INT32_MAX / kPanel<T>)
      throw std::length_error("smore_ext: info_nce: more than 2^31 rows");
  }
  SMORE_HOST_DEVICE int64_t elements() const { return rows * width; }
};

struct NceThread {
  int row_group, column_group;
  // Lanes 0..3 of a warp are row groups: a pack of P that a quarter of a warp writes falls into 32 different banks.
  __device__ NceThread()
      : row_group(static_cast<int>(threadIdx.x) / kWarp * 4 + static_cast<int>(threadIdx.x) % 4),
        column_group(static_cast<int>(threadIdx.x) % kWarp / 4) {}
  // Element e of the thread's edge, in the tile.
  template <typename T>
  __device__ int row(int e) const {
    constexpr int V = kFullPack<T>;
    return e / V * (kTileRows<T> / 2) + row_group * V + e % V;
  }
  template <typename T>
  __device__ int column(int e) const {
    constexpr int V = kFullPack<T>;
    return e / V * (kPanel<T> / 2) + column_group * V + e % V;
  }
};

// sum[r][c] += a[k][row r] * b[k][column c] over k = 0 .. kPanel-1, in order; a and b in shared memory.
template <int kSteps, typename T>
__device__ __forceinline__ void multiply_tiles(const NceThread& thread, const T* a, int a_step, const T* b,
                                               T (&sum)[kEdge<T>][kEdge<T>]) {
  constexpr int V = kFullPack<T>, E = kEdge<T>;
  a += thread.row_group * V;
  b += thread.column_group * V;
#pragma unroll(kSteps)
  for (int k = 0; k < kPanel<T>; ++k) {
    T x[E], y[E];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const Pack<T, V> from_a = load_pack<V>(a + k * a_step + half * (kTileRows<T> / 2));
      const Pack<T, V> from_b = load_pack<V>(b + k * kPanel<T> + half * (kPanel<T> / 2));
#pragma unroll
      for (int v = 0; v < V; ++v) {
        x[half * V + v] = from_a.at[v];
        y[half * V + v] = from_b.at[v];
      }
    }
#pragma unroll
    for (int r = 0; r < E; ++r) {
#pragma unroll
      for (int c = 0; c < E; ++c) sum[r][c] += x[r] * y[c];
    }
  }
}

// Copies packs to shared memory with all threads, each kAtOnce at a time; from(i) says where pack i comes from.
template <int kAtOnce, int kPacks, typename T, typename F>
__device__ __forceinline__ void copy_packs(T* to, const F& from) {
  static_assert(kPacks % kNceThreads == 0);
#pragma unroll(kAtOnce)
  for (int j = 0; j < kPacks / kNceThreads; ++j) {
    const int i = j * kNceThreads + static_cast<int>(threadIdx.x);
    store_pack(to + i * kFullPack<T>, load_pack<kFullPack<T>>(from(i)));
  }
}

// Elements [first, first + kPanel) of the two panels of a row tile, as [k][row].
template <int kAtOnce, typename T>
__device__ __forceinline__ void copy_row_tile(const T* panels, int width, int64_t tile, int first, T* to) {
  constexpr int V = kFullPack<T>, P = kPanel<T>;
  const T* from = panels + tile * kTileRows<T> * width + first * P;
  copy_packs<kAtOnce, P * kTileRows<T> / V>(to, [&](int i) {
    const int k = i / (kTileRows<T> / V), row = i % (kTileRows<T> / V) * V;
    return from + row / P * (P * width) + k * P + row % P;
  });
}

// Elements [first, first + kPanel) of one panel, as [k][row].
template <int kAtOnce, typename T>
__device__ __forceinline__ void copy_panel(const T* panels, int width, int64_t panel, int first, T* to) {
  constexpr int V = kFullPack<T>, P = kPanel<T>;
  const T* from = panels + panel * P * width + first * P;
  copy_packs<kAtOnce, P * P / V>(to, [&](int i) { return from + i * V; });
}

// The same of the plain rows, as [row][k].
template <int kAtOnce, typename T>
__device__ __forceinline__ void copy_panel_rows(const T* rows, int width, int64_t panel, int first, T* to) {
  constexpr int V = kFullPack<T>, P = kPanel<T>;
  const T* from = rows + panel * P * width + first;
  copy_packs<kAtOnce, P * P / V>(to, [&](int i) { return from + i / (P / V) * width + i % (P / V) * V; });
}

__device__ __forceinline__ float exponential(float x) { return expf(x); }
__device__ __forceinline__ double exponential(double x) { return exp(x); }

// Where range number `split` of the block's row of the grid begins, among n tiles.
__device__ __forceinline__ int range_begin(int n, unsigned split) {
  return static_cast<int>(static_cast<int64_t>(n) * split / gridDim.y);
}

// Into how many ranges the columns of each row tile are split, so that `row_tiles` times as many blocks fill the
// multiprocessors, `slots` at a time, with little left over. `overhead` is what a block costs beyond its tiles, in
// tiles.
inline int nce_splits(int64_t row_tiles, int64_t tiles, int64_t slots, double overhead) {
  constexpr int64_t kMost = 32;
  int best = 1;
  double best_time = 0;
  for (int64_t splits = 1; splits <= kMost && splits <= tiles; ++splits) {
    const double waves = static_cast<double>(ceil_div(row_tiles * splits, slots));
    const double time = waves * (static_cast<double>(ceil_div(tiles, splits)) + overhead);
    if (splits == 1 || time < best_time) {
      best = static_cast<int>(splits);
      best_time = time;
    }
  }
  return best;
}

}  // namespace smore::cuda
