// A block takes a chunk, its threads every so-manieth number; their dot products are added in double, as one tree.
#include "cuda/launch.cuh"
#include "sparse/poly_filter_kernel.h"

namespace smore {
namespace {

constexpr int kThreads = 256;

cudaStream_t handle(CudaStream stream) { return static_cast<cudaStream_t>(stream.handle); }

// The sum of a number of each thread, in thread 0.
__device__ __forceinline__ double block_sum(double own) {
  SMORE_SHARED(double, numbers, [kThreads]);
  const int thread = static_cast<int>(threadIdx.x);
  numbers[thread] = own;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (thread < half) numbers[thread] += numbers[thread + half];
  }
  return numbers[0];
}

template <typename S>
__global__ void __launch_bounds__(kThreads) poly_filter_step_kernel(const PolyFilterStep<S> job) {
  using T = Accumulator<S>;
  const int64_t begin = int64_t{blockIdx.x} * kPolyFilterChunk + threadIdx.x;
  const T c = *job.coefficient;
  T dot = 0;
#pragma unroll
  for (int64_t i = begin; i < begin + kPolyFilterChunk; i += kThreads) {
    if (i >= job.size) continue;
    const T h = widened(job.h[i]);
    dot += h * widened(job.x[i]);
    job.sum[i] = narrowed<S>((job.before != nullptr ? widened(job.before[i]) : T(0)) + c * h);
  }
  const double total = block_sum(static_cast<double>(dot));
  if (threadIdx.x == 0) job.partial[blockIdx.x] = total;
}

template <typename T>
__global__ void __launch_bounds__(kThreads) poly_filter_sums_kernel(const PolyFilterSums<T> job) {
  const double* partial = job.partial + int64_t{blockIdx.x} * job.chunks;
  double sum = 0;
  for (int64_t chunk = threadIdx.x; chunk < job.chunks; chunk += kThreads) sum += partial[chunk];
  const double total = block_sum(sum);
  if (threadIdx.x == 0) job.result[blockIdx.x] = static_cast<T>(total);
}

}  // namespace

template <typename S>
void poly_filter_step(const PolyFilterStep<S>& job, CudaStream stream) {
  const unsigned blocks = cuda::blocks_for(job.size, kPolyFilterChunk);
  SMORE_LAUNCH(poly_filter_step_kernel<S>, (cuda::Launch{blocks, kThreads, handle(stream)}), job);
}

template void poly_filter_step<float>(const PolyFilterStep<float>&, CudaStream);
template void poly_filter_step<double>(const PolyFilterStep<double>&, CudaStream);
template void poly_filter_step<BFloat16>(const PolyFilterStep<BFloat16>&, CudaStream);

template <typename T>
void poly_filter_sums(const PolyFilterSums<T>& job, CudaStream stream) {
  const unsigned blocks = cuda::blocks_for(job.terms, 1);
  SMORE_LAUNCH(poly_filter_sums_kernel<T>, (cuda::Launch{blocks, kThreads, handle(stream)}), job);
}

template void poly_filter_sums<float>(const PolyFilterSums<float>&, CudaStream);
template void poly_filter_sums<double>(const PolyFilterSums<double>&, CudaStream);

}  // namespace smore
