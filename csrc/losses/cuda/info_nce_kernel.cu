// InfoNCE forward: a block sums exponentials over a range of columns for a tile of rows; one block then puts the ranges
// together in order.
#include "losses/cuda/info_nce_kernel.h"

#include "losses/cuda/info_nce_tile.cuh"
#include "losses/cuda/info_nce_unit.cuh"

namespace smore::cuda {
namespace {

constexpr int64_t kSlots = 4 * 132;  // blocks that an H100 runs at a time
constexpr double kOverhead = 0.6;    // the tile of rows, in tiles
constexpr int kCombineThreads = 1024;

template <typename T>
int forward_splits(const NceShape<T>& shape) {
  return nce_splits(shape.row_tiles, shape.panels, kSlots, kOverhead);
}

// Sums of exp(s_ij - shift), of one range of columns each: [split][rows].
template <typename T>
struct Sums {
  T* sum;
  T* best;  // the shift: the largest s_ij of the range. Unused if the shift is 1 / temperature
};

// One step of a running sum of exponentials relative to the largest one.
template <typename T>
__device__ __forceinline__ void join(T& best, T& sum, T other_best, T other_sum) {
  const T top = max(best, other_best);
  sum = sum * exponential(best - top) + other_sum * exponential(other_best - top);
  best = top;
}

// Scores lie in +-1/temperature. While the whole range fits the exponential, 1/temperature is a safe shift
// (kFixedShift); below that, the largest score so far is.
template <typename T, bool kFixedShift>
__global__ void __launch_bounds__(kNceThreads, 4)
    nce_sum_kernel(const T* __restrict__ x_panels, const T* __restrict__ y_panels, NceShape<T> shape, T inverse,
                   Sums<T> out) {
  constexpr int P = kPanel<T>, E = kEdge<T>, V = kFullPack<T>;
  SMORE_DYNAMIC_SHARED(T, rows);  // [P][kTileRows], then the columns, [P][P]
  T* columns = rows + P * kTileRows<T>;
  const NceThread thread;
  T sum[E] = {}, best[E];
#pragma unroll
  for (int r = 0; r < E; ++r) best[r] = kFixedShift ? inverse : kLowest<T>;
  const int begin = range_begin(shape.panels, blockIdx.y), end = range_begin(shape.panels, blockIdx.y + 1);
  for (int panel = begin; panel < end; ++panel) {
    T s[E][E] = {};
    for (int first = 0; first < shape.width; first += P) {
      __syncthreads();
      if (panel == begin || shape.width > P) copy_row_tile<4>(x_panels, shape.width, blockIdx.x, first, rows);
      copy_panel<4>(y_panels, shape.width, panel, first, columns);
      __syncthreads();
      multiply_tiles<2>(thread, rows, kTileRows<T>, columns, s);
    }
    const int64_t real = shape.n - static_cast<int64_t>(panel) * P;
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

template <typename T, bool kFixedShift>
__global__ void __launch_bounds__(kCombineThreads)
    nce_combine_kernel(Sums<T> sums, int splits, const T* __restrict__ diagonal, NceShape<T> shape, T inverse,
                       T* __restrict__ log_sum, T* __restrict__ loss) {
  SMORE_SHARED(double, of_warps, [kWarp]);
  double total = 0;
  for (int64_t i = static_cast<int>(threadIdx.x); i < shape.n; i += kCombineThreads) {
    T shift = inverse, sum = 0;
    if (!kFixedShift) {
      shift = kLowest<T>;
      for (int s = 0; s < splits; ++s) shift = max(shift, sums.best[s * shape.rows + i]);
    }
#pragma unroll 4
    for (int s = 0; s < splits; ++s) {
      const T part = sums.sum[s * shape.rows + i];
      sum += kFixedShift ? part : part * exponential(sums.best[s * shape.rows + i] - shift);
    }
    const T lse = shift + log(sum);
    log_sum[i] = lse;
    total += static_cast<double>(lse - diagonal[i] * inverse);
  }
  total = warp_sum(total);
  if (threadIdx.x % kWarp == 0) of_warps[threadIdx.x / kWarp] = total;
  __syncthreads();
  if (threadIdx.x >= kWarp) return;
  total = warp_sum(of_warps[threadIdx.x]);
  if (threadIdx.x == 0) *loss = static_cast<T>(total / static_cast<double>(shape.n));
}

template <typename T, bool kFixedShift>
void forward(const NceInput<T>& input, T* loss, T* log_sum, T* scratch, cudaStream_t stream) {
  const NceShape<T> shape(input.n, input.d);
  const int splits = forward_splits(shape);
  T *x_panels = scratch, *y_panels = x_panels + shape.elements(), *diagonal = y_panels + shape.elements();
  const Sums<T> sums{diagonal + shape.rows, diagonal + shape.rows * (1 + splits)};
  const T inverse = static_cast<T>(1.0 / input.temperature);
  nce_unit_rows<T>({input.x, x_panels, nullptr, nullptr}, {input.y, y_panels, nullptr, nullptr}, shape, diagonal,
                   stream);
  const Launch at{dim3(static_cast<unsigned>(shape.row_tiles), static_cast<unsigned>(splits)), kNceThreads, stream,
                  static_cast<size_t>(kPanel<T> * (kTileRows<T> + kPanel<T>)) * sizeof(T)};
  SMORE_LAUNCH((nce_sum_kernel<T, kFixedShift>), at, x_panels, y_panels, shape, inverse, sums);
  SMORE_LAUNCH((nce_combine_kernel<T, kFixedShift>), (Launch{1, kCombineThreads, stream}), sums, splits, diagonal,
               shape, inverse, log_sum, loss);
}

}  // namespace

template <typename T>
int64_t nce_forward_scratch(int64_t n, int64_t d) {
  const NceShape<T> shape(n, d);
  return 2 * shape.elements() + shape.rows * (1 + 2 * forward_splits(shape));
}

template <typename T>
void nce_forward(const NceInput<T>& input, T* loss, T* log_sum, T* scratch, cudaStream_t stream) {
  if (2.0 / input.temperature <= 80.0) {
    forward<T, true>(input, loss, log_sum, scratch, stream);
  } else {
    forward<T, false>(input, loss, log_sum, scratch, stream);
  }
}

#define SMORE_INSTANTIATE(T)                                 \
  template int64_t nce_forward_scratch<T>(int64_t, int64_t); \
  template void nce_forward<T>(const NceInput<T>&, T*, T*, T*, cudaStream_t);
SMORE_INSTANTIATE(float)
SMORE_INSTANTIATE(double)
#undef SMORE_INSTANTIATE

}  // namespace smore::cuda
