#include "sparse/cuda/gather_kernel.h"

#include "cuda/launch.cuh"

namespace smore::cuda {
namespace {

constexpr int kThreads = 256;

template <typename T, typename I>
__global__ void __launch_bounds__(kThreads)
    gather_weights_kernel(const T* __restrict__ weight, const I* __restrict__ order, int64_t n_edges, T* out) {
  const int64_t e = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (e >= n_edges) return;
  const int64_t from = order[e];
  out[e] = from >= 0 && from < n_edges ? weight[from] : kNan<T>;
}

}  // namespace

template <typename T, typename I>
void gather_weights(const T* weight, const I* order, int64_t n_edges, T* out, cudaStream_t stream) {
  SMORE_LAUNCH((gather_weights_kernel<T, I>), (Launch{blocks_for(n_edges, kThreads), kThreads, stream}), weight, order,
               n_edges, out);
}

#define SMORE_INSTANTIATE(T, I) template void gather_weights<T, I>(const T*, const I*, int64_t, T*, cudaStream_t);
SMORE_INSTANTIATE(float, int32_t)
SMORE_INSTANTIATE(float, int64_t)
SMORE_INSTANTIATE(double, int32_t)
SMORE_INSTANTIATE(double, int64_t)
#undef SMORE_INSTANTIATE

}  // namespace smore::cuda
