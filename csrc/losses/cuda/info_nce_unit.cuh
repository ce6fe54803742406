// Rows of length one for InfoNCE, laid out as info_nce_tile.cuh says.
#pragma once

#include "losses/cuda/info_nce_tile.cuh"

namespace smore::cuda {

inline constexpr int kUnitThreads = 256;
inline constexpr int kUnitRows = 16;  // of each side, a block
inline constexpr int kUnitRowsOfWarp = kUnitRows / (kUnitThreads / kWarp);

// Where the unit rows of one side go; null: not wanted.
template <typename T>
struct UnitSide {
  const T* from;  // [n, d]
  T* panels;
  T* rows;
  T* norm;  // [n], before normalising
};

template <typename T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int bits = kWarp / 2; bits > 0; bits /= 2) value += __shfl_xor_sync(kAllLanes, value, bits);
  return value;
}

// What a row is divided by to have length one.
template <typename T>
__device__ __forceinline__ T row_norm(const T* __restrict__ row, int64_t d) {
  double square = 0;
  for (int64_t k = static_cast<int>(threadIdx.x) % kWarp; k < d; k += kWarp) {
    square += static_cast<double>(row[k]) * static_cast<double>(row[k]);
  }
  return static_cast<T>(sqrt(warp_sum(square)));
}

// Both sides of kUnitRows rows, and u_i . v_i into `diagonal` unless null.
template <typename T>
__global__ void __launch_bounds__(kUnitThreads)
    nce_unit_kernel(UnitSide<T> x, UnitSide<T> y, NceShape<T> shape, T* __restrict__ diagonal) {
  constexpr int P = kPanel<T>, R = kUnitRowsOfWarp;
  SMORE_SHARED(T, tile, [2][kUnitRows][P + 1]);
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) * kUnitRows, n = shape.n, d = shape.d;
  T x_divisor[R], y_divisor[R];
  double dot[R] = {};
#pragma unroll
  for (int r = 0; r < R; ++r) {
    const int64_t i = first_row + warp * R + r;
    const T x_norm = i < n ? row_norm(x.from + i * d, d) : T(1), y_norm = i < n ? row_norm(y.from + i * d, d) : T(1);
    const T least = static_cast<T>(1e-12);
    x_divisor[r] = x_norm < least ? least : x_norm;
    y_divisor[r] = y_norm < least ? least : y_norm;
    if (lane == 0 && i < n && x.norm != nullptr) x.norm[i] = x_norm;
    if (lane == 0 && i < n && y.norm != nullptr) y.norm[i] = y_norm;
  }
  for (int64_t first = 0; first < shape.width; first += P) {
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const int64_t i = first_row + warp * R + r;
#pragma unroll
      for (int at = 0; at < P; at += kWarp) {
        const int64_t k = first + at + lane;
        const bool real = i < n && k < d;
        const T u = real ? x.from[i * d + k] / x_divisor[r] : T(0), v = real ? y.from[i * d + k] / y_divisor[r] : T(0);
        dot[r] += static_cast<double>(u) * static_cast<double>(v);
        if (x.rows != nullptr) x.rows[i * shape.width + k] = u;
        if (y.rows != nullptr) y.rows[i * shape.width + k] = v;
        tile[0][warp * R + r][at + lane] = u;
        tile[1][warp * R + r][at + lane] = v;
      }
    }
    __syncthreads();
    const int64_t panel = first_row / P * P * shape.width + first * P + first_row % P;
    for (int i = static_cast<int>(threadIdx.x); i < P * kUnitRows; i += kUnitThreads) {
      const int row = i % kUnitRows, k = i / kUnitRows;
      x.panels[panel + k * P + row] = tile[0][row][k];
      y.panels[panel + k * P + row] = tile[1][row][k];
    }
    __syncthreads();
  }
#pragma unroll
  for (int r = 0; r < R; ++r) {
    const int64_t i = first_row + warp * R + r;
    const double sum = warp_sum(dot[r]);
    if (lane == 0 && i < n && diagonal != nullptr) diagonal[i] = static_cast<T>(sum);
  }
}

template <typename T>
void nce_unit_rows(const UnitSide<T>& x, const UnitSide<T>& y, const NceShape<T>& shape, T* diagonal,
                   cudaStream_t stream) {
  SMORE_LAUNCH((nce_unit_kernel<T>), (Launch{blocks_for(shape.rows, kUnitRows), kUnitThreads, stream}), x, y, shape,
               diagonal);
}

}  // namespace smore::cuda
