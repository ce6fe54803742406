// InfoNCE backward. With P_ij = exp(s_ij - log_sum_i) - [i = j], the gradient in u_i is sum_j P_ij v_j, and in v_j it
// is sum_i P_ij u_i. One launch does both sides.
#include "losses/cuda/info_nce_kernel.h"

#include "losses/cuda/info_nce_unit.cuh"
#include "losses/cuda/score_gradient.cuh"

namespace smore::cuda {
namespace {

constexpr int kFinishThreads = 256;

template <typename T>
int backward_splits(const NceShape<T>& shape) {
  return score_gradient_splits(2 * shape.row_tiles, shape, shape);
}

// Block z is side + 2 * the piece of the width that it sums up. partial[side][split][rows][width].
template <typename T, bool kOnePiece>
__global__ void __launch_bounds__(kNceThreads, 3)
    nce_gradient_kernel(ScoreSide<T> x, ScoreSide<T> y, NceShape<T> shape, const T* __restrict__ log_sum, T inverse,
                        T* __restrict__ partial) {
  const bool of_x = blockIdx.z % 2 == 0;
  score_gradient<T, kOnePiece, true>(of_x ? x : y, of_x ? y : x, shape, shape, of_x, log_sum, inverse,
                                     static_cast<int>(blockIdx.z / 2) * kPanel<T>,
                                     partial + (of_x ? 0 : gridDim.y * shape.elements()));
}

// What a row's gradient needs beyond the sums.
template <typename T>
struct FinishSide {
  const T* unit;  // plain rows
  const T* norm;
  T* sums;  // [split][rows][width]; the first is overwritten
  T* grad;  // [n, d]
};

// One warp a row: the splits' sums in order, then back through u = x / max(|x|, 1e-12).
template <typename T>
__global__ void __launch_bounds__(kFinishThreads, 4)
    nce_finish_kernel(FinishSide<T> x, FinishSide<T> y, NceShape<T> shape, int splits, const T* __restrict__ grad,
                      double temperature) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t index = (static_cast<int64_t>(blockIdx.x) * kFinishThreads + threadIdx.x) / kWarp;
  if (index >= 2 * shape.n) return;
  const bool of_x = index < shape.n;
  const int64_t i = of_x ? index : index - shape.n, d = shape.d, stride = shape.rows * shape.width;
  const T* u = (of_x ? x.unit : y.unit) + i * shape.width;
  T* sums = (of_x ? x.sums : y.sums) + i * shape.width;
  T* to = (of_x ? x.grad : y.grad) + i * d;
  double dot = 0;
  for (int64_t k = lane; k < d; k += kWarp) {
    T sum = 0;
#pragma unroll 4
    for (int s = 0; s < splits; ++s) sum += sums[s * stride + k];
    sums[k] = sum;
    dot += static_cast<double>(sum) * static_cast<double>(u[k]);
  }
  const T norm = of_x ? x.norm[i] : y.norm[i], least = static_cast<T>(1e-12);
  const bool clamped = !(norm > least);
  const T along = clamped ? T(0) : static_cast<T>(warp_sum(dot));
  const T scale = static_cast<T>(static_cast<double>(*grad) / (static_cast<double>(shape.n) * temperature));
  const T factor = scale / (clamped ? least : norm);
  for (int64_t k = lane; k < d; k += kWarp) to[k] = factor * (sums[k] - along * u[k]);
}

}  // namespace

template <typename T>
int64_t nce_backward_scratch(int64_t n, int64_t d) {
  const NceShape<T> shape(n, d);
  return (4 + 2 * backward_splits(shape)) * shape.elements() + 2 * shape.rows;
}

template <typename T>
void nce_backward(const NceInput<T>& input, const T* grad, const T* log_sum, T* grad_x, T* grad_y, T* scratch,
                  cudaStream_t stream) {
  const NceShape<T> shape(input.n, input.d);
  const int splits = backward_splits(shape);
  const int64_t size = shape.elements();
  T *x_panels = scratch, *y_panels = x_panels + size, *x_rows = y_panels + size, *y_rows = x_rows + size;
  T *x_sums = y_rows + size, *y_sums = x_sums + splits * size, *x_norm = y_sums + splits * size;
  T* y_norm = x_norm + shape.rows;
  nce_unit_rows<T>({input.x, x_panels, x_rows, x_norm}, {input.y, y_panels, y_rows, y_norm}, shape, nullptr, stream);
  const dim3 grid(static_cast<unsigned>(shape.row_tiles), static_cast<unsigned>(splits),
                  static_cast<unsigned>(2 * shape.width / kPanel<T>));
  const Launch at{grid, kNceThreads, stream, kScoreGradientShared<T>};
  const ScoreSide<T> x{x_panels, x_rows}, y{y_panels, y_rows};
  const T inverse = static_cast<T>(1.0 / input.temperature);
  if (shape.width == kPanel<T>) {
    SMORE_LAUNCH((nce_gradient_kernel<T, true>), at, x, y, shape, log_sum, inverse, x_sums);
  } else {
    SMORE_LAUNCH((nce_gradient_kernel<T, false>), at, x, y, shape, log_sum, inverse, x_sums);
  }
  SMORE_LAUNCH((nce_finish_kernel<T>),
               (Launch{blocks_for(2 * input.n, kFinishThreads / kWarp), kFinishThreads, stream}),
               (FinishSide<T>{x_rows, x_norm, x_sums, grad_x}), (FinishSide<T>{y_rows, y_norm, y_sums, grad_y}), shape,
               splits, grad, input.temperature);
}

#define SMORE_INSTANTIATE(T)                                  \
  template int64_t nce_backward_scratch<T>(int64_t, int64_t); \
  template void nce_backward<T>(const NceInput<T>&, const T*, const T*, T*, T*, T*, cudaStream_t);
SMORE_INSTANTIATE(float)
SMORE_INSTANTIATE(double)
#undef SMORE_INSTANTIATE

}  // namespace smore::cuda
