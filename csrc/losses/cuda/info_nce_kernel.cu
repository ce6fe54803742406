// InfoNCE forward: sums of exponentials over ranges of columns; one block then puts the ranges together in order.
#include "losses/cuda/info_nce_kernel.h"

#include "losses/cuda/info_nce_unit.cuh"
#include "losses/cuda/score_sum.cuh"

namespace smore::cuda {
namespace {

constexpr int kCombineThreads = 1024;

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
  const int splits = nce_sum_splits(shape, shape);
  T *x_panels = scratch, *y_panels = x_panels + shape.elements(), *diagonal = y_panels + shape.elements();
  const Sums<T> sums{diagonal + shape.rows, diagonal + shape.rows * (1 + splits)};
  const T inverse = static_cast<T>(1.0 / input.temperature);
  nce_unit_rows<T>({input.x, x_panels, nullptr, nullptr}, {input.y, y_panels, nullptr, nullptr}, shape, diagonal,
                   stream);
  nce_sums<T, kFixedShift>(x_panels, y_panels, shape, shape, splits, inverse, sums, stream);
  SMORE_LAUNCH((nce_combine_kernel<T, kFixedShift>), (Launch{1, kCombineThreads, stream}), sums, splits, diagonal,
               shape, inverse, log_sum, loss);
}

}  // namespace

template <typename T>
int64_t nce_forward_scratch(int64_t n, int64_t d) {
  const NceShape<T> shape(n, d);
  return 2 * shape.elements() + shape.rows * (1 + 2 * nce_sum_splits(shape, shape));
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
