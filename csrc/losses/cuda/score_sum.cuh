// Sums of exponentials of scores, which are never kept: a block sums over a range of columns for a tile of rows.
#pragma once

#include "losses/cuda/info_nce_tile.cuh"

namespace smore::cuda {

// Sums of exp(s_ij - shift), of one range of columns each: [split][rows].
template <typename T>
struct Sums {
  T* sum;
  T* best;  // the shift: the largest s_ij of the range. Unused if the shift is `inverse`
};

// One step of a running sum of exponentials relative to the largest one.
template <typename T>
__device__ __forceinline__ void join(T& best, T& sum, T other_best, T other_sum) {
  const T top = max(best, other_best);
  sum = sum * exponential(best - top) + other_sum * exponential(other_best - top);
  best = top;
}

// s_ij = x_i . y_j * inverse. Rows of length one have scores in +-inverse: while that range fits the exponential,
// inverse is a safe shift (kFixedShift). Otherwise the largest score so far is.
template <typename T, bool kFixedShift>
__global__ void __launch_bounds__(kNceThreads, 4)
    nce_sum_kernel(const T* __restrict__ x_panels, const T* __restrict__ y_panels, NceShape<T> shape,
                   NceShape<T> columns_shape, T inverse, Sums<T> out) {
  constexpr int P = kPanel<T>, E = kEdge<T>, V = kFullPack<T>;
  SMORE_DYNAMIC_SHARED(T, rows);  // [P][kTileRows], then the columns, [P][P]
  T* columns = rows + P * kTileRows<T>;
  const NceThread thread;
  T sum[E] = {}, best[E];
#pragma unroll
  for (int r = 0; r < E; ++r) best[r] = kFixedShift ? inverse : kLowest<T>;
  const int begin = range_begin(columns_shape.panels, blockIdx.y),
            end = range_begin(columns_shape.panels, blockIdx.y + 1);
  for (int panel = begin; panel < end; ++panel) {
    T s[E][E] = {};
    for (int first = 0; first < shape.width; first += P) {
      __syncthreads();
      if (panel == begin || shape.width > P) copy_row_tile<4>(x_panels, shape.width, blockIdx.x, first, rows);
      copy_panel<4>(y_panels, shape.width, panel, first, columns);
      __syncthreads();
      multiply_tiles<2>(thread, rows, kTileRows<T>, columns, s);
    }
    const int64_t real = columns_shape.n - static_cast<int64_t>(panel) * P;
    if (real < P) {  // the last one: columns that do not exist weigh nothing
#pragma unroll
      for (int c = 0; c < E; ++c) {
        if (thread.column<T>(c) < real) continue;
#pragma unroll
        for (int r = 0; r < E; ++r) s[r][c] = kLowest<T>;
      }
    }
#pragma unroll
    for (int r = 0; r < E; ++r) {
      if (!kFixedShift) {
        T top = best[r];
#pragma unroll
        for (int c = 0; c < E; ++c) top = max(top, s[r][c] * inverse);
        sum[r] *= exponential(best[r] - top);
        best[r] = top;
      }
#pragma unroll
      for (int c = 0; c < E; ++c) sum[r] += exponential(s[r][c] * inverse - best[r]);
    }
  }
  // Lanes that share rows lie 4 apart.
#pragma unroll
  for (int r = 0; r < E; ++r) {
#pragma unroll
    for (int bits = 4; bits < kWarp; bits *= 2) {
      const T other = __shfl_xor_sync(kAllLanes, sum[r], bits);
      if (kFixedShift) {
        sum[r] += other;
      } else {
        join(best[r], sum[r], __shfl_xor_sync(kAllLanes, best[r], bits), other);
      }
    }
  }
  if (thread.column_group != 0) return;
  const int64_t at = blockIdx.y * shape.rows + static_cast<int64_t>(blockIdx.x) * kTileRows<T>;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    Pack<T, V> sums, shifts;
#pragma unroll
    for (int v = 0; v < V; ++v) {
      sums.at[v] = sum[half * V + v];
      shifts.at[v] = best[half * V + v];
    }
    store_pack(out.sum + at + thread.row<T>(half * V), sums);
    if (!kFixedShift) store_pack(out.best + at + thread.row<T>(half * V), shifts);
  }
}

// Into how many ranges the columns are split.
template <typename T>
int nce_sum_splits(const NceShape<T>& rows, const NceShape<T>& columns) {
  constexpr int64_t kSlots = 4 * 132;  // blocks that an H100 runs at a time
  constexpr double kOverhead = 0.6;    // the tile of rows, in tiles
  return nce_splits(rows.row_tiles, columns.panels, kSlots, kOverhead);
}

template <typename T, bool kFixedShift>
void nce_sums(const T* x_panels, const T* y_panels, const NceShape<T>& rows, const NceShape<T>& columns, int splits,
              T inverse, const Sums<T>& out, cudaStream_t stream) {
  const Launch at{dim3(static_cast<unsigned>(rows.row_tiles), static_cast<unsigned>(splits)), kNceThreads, stream,
                  static_cast<size_t>(kPanel<T> * (kTileRows<T> + kPanel<T>)) * sizeof(T)};
  SMORE_LAUNCH((nce_sum_kernel<T, kFixedShift>), at, x_panels, y_panels, rows, columns, inverse, out);
}

}  // namespace smore::cuda
