// Rows in bytes: a warp a row; and the similarities that their products stand for.
#include "neighbours/cuda/int8_rows_kernel.h"

#include <cstring>

#include "cuda/launch.cuh"

namespace smore::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarp;
constexpr double kMost = 32512;      // 127 * 256: the largest |q|, which rounding may exceed by one
constexpr double kUpwards = 1.0001;  // of lengths that were summed in double and are kept as floats

__device__ __forceinline__ double largest_of_warp(double value) {
  for (int bits = kWarp / 2; bits > 0; bits /= 2) {
    const double other = __shfl_xor_sync(kAllLanes, value, bits);
    value = other > value ? other : value;
  }
  return value;
}

__device__ __forceinline__ double sum_of_warp(double value) {
  for (int bits = kWarp / 2; bits > 0; bits /= 2) value += __shfl_xor_sync(kAllLanes, value, bits);
  return value;
}

// Elements of a row of length 1 in whole steps.
struct Steps {
  double inverse_norm, inverse_step;
  __device__ double unit(float x) const { return static_cast<double>(x) * inverse_norm; }
  __device__ int whole(double unit) const { return static_cast<int>(rint(unit * inverse_step)); }
};

__device__ __forceinline__ Steps steps_of(double square, float step) {
  return {square > 0 ? 1.0 / sqrt(square) : 0.0, step > 0 ? 1.0 / static_cast<double>(step) : 0.0};
}

// The low byte of q, in -128..127; the high one is (q - low) / 256.
__device__ __forceinline__ int low_of(int q) { return ((q + 128) & 255) - 128; }

__global__ __launch_bounds__(kThreads, 4) void int8_steps_kernel(const float* __restrict__ x, int64_t n, int64_t d,
                                                                 const double* __restrict__ square,
                                                                 float* __restrict__ step, float* __restrict__ rest,
                                                                 float* __restrict__ low) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const int64_t r = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (r >= n) return;
  const float* const own = x + r * d;
  const Steps lengths = steps_of(square[r], 0.0f);
  double most = 0;
  for (int64_t i = lane; i < d; i += kWarp) {
    const double size = fabs(lengths.unit(own[i]));
    most = size > most ? size : most;
  }
  const float found = static_cast<float>(largest_of_warp(most) / kMost);
  const Steps steps = steps_of(square[r], found);
  double off = 0, small = 0;
  for (int64_t i = lane; i < d; i += kWarp) {
    const double unit = steps.unit(own[i]);
    const int q = steps.whole(unit);
    const double left = unit - static_cast<double>(found) * q, part = low_of(q);
    off += left * left;
    small += part * part;
  }
  off = sum_of_warp(off);
  small = sum_of_warp(small);
  if (lane != 0) return;
  step[r] = found;
  rest[r] = static_cast<float>(kUpwards * sqrt(off));
  low[r] = static_cast<float>(kUpwards * static_cast<double>(found) * sqrt(small));
}

__global__ __launch_bounds__(kThreads, 4) void int8_panel_kernel(const float* __restrict__ x, int64_t d,
                                                                 const double* __restrict__ square,
                                                                 const float* __restrict__ step, int64_t row,
                                                                 int64_t rows, int64_t padded, int64_t depth,
                                                                 bool low_first, int8_t* __restrict__ parts) {
  const int64_t r = static_cast<int64_t>(blockIdx.y) * kWarps + threadIdx.y;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kWarp + threadIdx.x;
  if (r >= padded || i >= depth) return;
  int q = 0;
  if (r < rows && i < d) {
    const Steps steps = steps_of(square[row + r], step[row + r]);
    q = steps.whole(steps.unit(x[(row + r) * d + i]));
  }
  const int low = low_of(q), high = (q - low) / 256;
  int8_t* const own = parts + r * 2 * depth + i;
  own[low_first ? depth : 0] = static_cast<int8_t>(high);
  own[low_first ? 0 : depth] = static_cast<int8_t>(low);
}

__global__ __launch_bounds__(kThreads) void int8_similarities_kernel(int32_t* high, const int32_t* __restrict__ cross,
                                                                     KnnTile tile, const float* __restrict__ query_step,
                                                                     const float* __restrict__ base_step) {
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kWarp + threadIdx.x;
  const int64_t r = static_cast<int64_t>(blockIdx.y) * kWarps + threadIdx.y;
  if (r >= tile.rows || c >= tile.columns) return;
  const int64_t at = r * tile.stride + c;
  const double whole = 65536.0 * high[at] + 256.0 * cross[at];
  const float similarity = static_cast<float>(static_cast<double>(query_step[tile.row + r]) *
                                              static_cast<double>(base_step[tile.column + c]) * whole);
  memcpy(high + at, &similarity, sizeof similarity);
}

}  // namespace

void int8_steps(const float* x, int64_t n, int64_t d, const double* square, float* step, float* rest, float* low,
                cudaStream_t stream) {
  SMORE_LAUNCH(int8_steps_kernel, (Launch{blocks_for(n, kWarps), kThreads, stream}), x, n, d, square, step, rest, low);
}

void int8_panel(const float* x, int64_t d, const double* square, const float* step, int64_t row, int64_t rows,
                int64_t padded, int64_t depth, bool low_first, int8_t* parts, cudaStream_t stream) {
  const dim3 grid(blocks_for(depth, kWarp), blocks_for(padded, kWarps));
  SMORE_LAUNCH(int8_panel_kernel, (Launch{grid, dim3(kWarp, kWarps), stream}), x, d, square, step, row, rows, padded,
               depth, low_first, parts);
}

void int8_similarities(int32_t* high, const int32_t* cross, const KnnTile& tile, const float* query_step,
                       const float* base_step, cudaStream_t stream) {
  const dim3 grid(blocks_for(tile.columns, kWarp), blocks_for(tile.rows, kWarps));
  SMORE_LAUNCH(int8_similarities_kernel, (Launch{grid, dim3(kWarp, kWarps), stream}), high, cross, tile, query_step,
               base_step);
}

}  // namespace smore::cuda
