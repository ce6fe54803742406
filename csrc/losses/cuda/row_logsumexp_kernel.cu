// log sum exp over rows of a @ b^T: the tiles of InfoNCE for two sides of their own numbers of rows, with the largest
// score so far as shift.
#include "losses/cuda/row_logsumexp_kernel.h"

#include "losses/cuda/score_gradient.cuh"
#include "losses/cuda/score_sum.cuh"

namespace smore::cuda {
namespace {

constexpr int kPackThreads = 256;
constexpr int kRowThreads = 256;

// Rows of one side as panels and, unless null, plain and times their weights (null: 1).
template <typename T>
__global__ void __launch_bounds__(kPackThreads)
    lse_pack_kernel(const T* __restrict__ from, const T* __restrict__ weight, NceShape<T> shape, T* __restrict__ panels,
                    T* __restrict__ terms) {
  constexpr int P = kPanel<T>;
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kPackThreads + threadIdx.x;
  if (at >= shape.elements()) return;
  const int64_t row = at / shape.width, k = at % shape.width;
  const T value = row < shape.n && k < shape.d ? from[row * shape.d + k] : T(0);
  panels[row / P * P * shape.width + k * P + row % P] = value;
  if (terms != nullptr) terms[at] = weight != nullptr && row < shape.n ? value * weight[row] : value;
}

template <typename T>
void pack(const T* from, const T* weight, const NceShape<T>& shape, T* panels, T* terms, cudaStream_t stream) {
  SMORE_LAUNCH((lse_pack_kernel<T>), (Launch{blocks_for(shape.elements(), kPackThreads), kPackThreads, stream}), from,
               weight, shape, panels, terms);
}

template <typename T>
__global__ void __launch_bounds__(kRowThreads)
    lse_combine_kernel(Sums<T> sums, int splits, NceShape<T> shape, T* __restrict__ log_sum) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kRowThreads + threadIdx.x;
  if (i >= shape.n) return;
  T shift = kLowest<T>, sum = 0;
  for (int s = 0; s < splits; ++s) shift = max(shift, sums.best[s * shape.rows + i]);
  for (int s = 0; s < splits; ++s) {
    sum += sums.sum[s * shape.rows + i] * exponential(sums.best[s * shape.rows + i] - shift);
  }
  // Scores beyond T are infinite, and so is their sum: +, here also where another score is no number, and - where all
  // are, which are below the columns that do not exist.
  const T finite = shift + log(sum);
  const bool none = shift <= kLowest<T> && finite == finite;
  log_sum[i] = shift > -kLowest<T> ? shift : none ? log(T(0)) : finite;
}

// Block z is the piece of the width that it sums up.
template <typename T, bool kOnePiece>
__global__ void __launch_bounds__(kNceThreads, 3)
    lse_gradient_kernel(ScoreSide<T> own, ScoreSide<T> other, NceShape<T> shape, NceShape<T> other_shape, bool of_own,
                        const T* __restrict__ log_sum, T* __restrict__ partial) {
  score_gradient<T, kOnePiece, false>(own, other, shape, other_shape, of_own, log_sum, T(1),
                                      static_cast<int>(blockIdx.z) * kPanel<T>, partial);
}

// The ranges' sums in order, times the row's weight (null: 1).
template <typename T>
__global__ void __launch_bounds__(kRowThreads)
    lse_finish_kernel(const T* __restrict__ partial, int splits, const T* __restrict__ weight, NceShape<T> shape,
                      T* __restrict__ grad) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kRowThreads + threadIdx.x;
  if (at >= shape.n * shape.d) return;
  const int64_t row = at / shape.d, k = at % shape.d;
  T sum = 0;
  for (int s = 0; s < splits; ++s) sum += partial[s * shape.elements() + row * shape.width + k];
  grad[at] = weight != nullptr ? sum * weight[row] : sum;
}

template <typename T>
int gradient_splits(const NceShape<T>& own, const NceShape<T>& other) {
  return score_gradient_splits(own.row_tiles, own, other);
}

// The gradient of one side. `partial` has room for its ranges.
template <typename T>
void gradient(const ScoreSide<T>& own, const ScoreSide<T>& other, const NceShape<T>& shape,
              const NceShape<T>& other_shape, bool of_own, const T* log_sum, const T* weight, T* partial, T* grad,
              cudaStream_t stream) {
  const int splits = gradient_splits(shape, other_shape);
  const Launch at{dim3(static_cast<unsigned>(shape.row_tiles), static_cast<unsigned>(splits),
                       static_cast<unsigned>(shape.width / kPanel<T>)),
                  kNceThreads, stream, kScoreGradientShared<T>};
  if (shape.width == kPanel<T>) {
    SMORE_LAUNCH((lse_gradient_kernel<T, true>), at, own, other, shape, other_shape, of_own, log_sum, partial);
  } else {
    SMORE_LAUNCH((lse_gradient_kernel<T, false>), at, own, other, shape, other_shape, of_own, log_sum, partial);
  }
  SMORE_LAUNCH((lse_finish_kernel<T>), (Launch{blocks_for(shape.n * shape.d, kRowThreads), kRowThreads, stream}),
               partial, splits, weight, shape, grad);
}

}  // namespace

template <typename T>
int64_t lse_forward_scratch(int64_t n, int64_t m, int64_t d) {
  const NceShape<T> rows(n, d), columns(m, d);
  return rows.elements() + columns.elements() + 2 * nce_sum_splits(rows, columns) * rows.rows;
}

template <typename T>
int64_t lse_backward_scratch(int64_t n, int64_t m, int64_t d) {
  const NceShape<T> rows(n, d), columns(m, d);
  return (2 + gradient_splits(rows, columns)) * rows.elements() +
         (2 + gradient_splits(columns, rows)) * columns.elements();
}

template <typename T>
void lse_forward(const LseInput<T>& input, T* log_sum, T* scratch, cudaStream_t stream) {
  const NceShape<T> rows(input.n, input.d), columns(input.m, input.d);
  const int splits = nce_sum_splits(rows, columns);
  T *a_panels = scratch, *b_panels = a_panels + rows.elements(), *sum = b_panels + columns.elements();
  const Sums<T> sums{sum, sum + splits * rows.rows};
  pack<T>(input.a, nullptr, rows, a_panels, nullptr, stream);
  pack<T>(input.b, nullptr, columns, b_panels, nullptr, stream);
  nce_sums<T, false>(a_panels, b_panels, rows, columns, splits, T(1), sums, stream);
  SMORE_LAUNCH((lse_combine_kernel<T>), (Launch{blocks_for(input.n, kRowThreads), kRowThreads, stream}), sums, splits,
               rows, log_sum);
}

template <typename T>
void lse_backward(const LseInput<T>& input, const T* weight, const T* log_sum, T* grad_a, T* grad_b, T* scratch,
                  cudaStream_t stream) {
  const NceShape<T> rows(input.n, input.d), columns(input.m, input.d);
  T *a_panels = scratch, *a_terms = a_panels + rows.elements(), *a_sums = a_terms + rows.elements();
  T *b_panels = a_sums + gradient_splits(rows, columns) * rows.elements(), *b_terms = b_panels + columns.elements();
  T* b_sums = b_terms + columns.elements();
  pack(input.a, weight, rows, a_panels, a_terms, stream);
  pack<T>(input.b, nullptr, columns, b_panels, b_terms, stream);
  const ScoreSide<T> a{a_panels, a_terms}, b{b_panels, b_terms};
  gradient<T>(a, b, rows, columns, true, log_sum, weight, a_sums, grad_a, stream);
  gradient<T>(b, a, columns, rows, false, log_sum, nullptr, b_sums, grad_b, stream);
}

#define SMORE_INSTANTIATE(T)                                              \
  template int64_t lse_forward_scratch<T>(int64_t, int64_t, int64_t);     \
  template int64_t lse_backward_scratch<T>(int64_t, int64_t, int64_t);    \
  template void lse_forward<T>(const LseInput<T>&, T*, T*, cudaStream_t); \
  template void lse_backward<T>(const LseInput<T>&, const T*, const T*, T*, T*, T*, cudaStream_t);
SMORE_INSTANTIATE(float)
SMORE_INSTANTIATE(double)
#undef SMORE_INSTANTIATE

}  // namespace smore::cuda
