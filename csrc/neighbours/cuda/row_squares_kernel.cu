// Two lanes a row.
#include "neighbours/cuda/row_squares_kernel.h"

#include <limits>

#include "cuda/launch.cuh"
#include "neighbours/cuda/dot_double.cuh"

namespace smore::cuda {
namespace {

constexpr int kThreads = 256;
constexpr double kMostDouble = std::numeric_limits<double>::max();
constexpr int kMostInt = std::numeric_limits<int>::max();

template <bool kPacked, typename T>
__global__ __launch_bounds__(kThreads, 4) void row_squares_kernel(const T* __restrict__ x, int64_t n, int64_t d,
                                                                  double* __restrict__ square,
                                                                  int* __restrict__ not_finite) {
  const int64_t place = static_cast<int64_t>(blockIdx.x) * (kThreads / 2) + threadIdx.x / 2;
  const int64_t row = place < n ? place : n - 1;
  const int half = static_cast<int>(threadIdx.x % 2);
  const double sum = dot_double<kPacked>(x + row * d, x + row * d, d, half);
  if (place >= n || half != 0) return;
  square[row] = sum;
  if (not_finite != nullptr && !(sum <= kMostDouble)) atomicMax(not_finite, kMostInt - static_cast<int>(row));
}

}  // namespace

template <typename T>
void row_squares(const T* x, int64_t n, int64_t d, double* square, int* not_finite, cudaStream_t stream) {
  if (not_finite != nullptr) check("row_squares", cudaMemsetAsync(not_finite, 0, sizeof(int), stream));
  const Launch at{blocks_for(n, kThreads / 2), kThreads, stream};
  if (packs_fit<T>(d, x)) {
    SMORE_LAUNCH((row_squares_kernel<true, T>), at, x, n, d, square, not_finite);
  } else {
    SMORE_LAUNCH((row_squares_kernel<false, T>), at, x, n, d, square, not_finite);
  }
}

template void row_squares<float>(const float*, int64_t, int64_t, double*, int*, cudaStream_t);
template void row_squares<double>(const double*, int64_t, int64_t, double*, int*, cudaStream_t);

}  // namespace smore::cuda
