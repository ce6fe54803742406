// A thread makes one call of the generator and drops the four elements that have its words.
#include "sampling/dropout_kernel.h"

#include "cuda/launch.cuh"

namespace smore {
namespace {

constexpr int kDropoutThreads = 256;

template <typename S>
__global__ void __launch_bounds__(kDropoutThreads) dropout_kernel(const Dropout<S> job) {
  const int64_t counter = int64_t{blockIdx.x} * kDropoutThreads + threadIdx.x;
  const int64_t first = counter / kDropoutLanes * kDropoutGroup + counter % kDropoutLanes;
  if (first >= job.size) return;
  const uint64_t offset = job.rule.offset_now();
  const Philox words = philox(job.rule.seed, static_cast<uint64_t>(counter) | kDropoutCounters, offset);
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    const int64_t e = first + w * kDropoutLanes;
    if (e >= job.size) return;
    const bool dropped = words.out[w] < job.rule.threshold;
    job.y[e] = narrowed<S>(dropped ? Accumulator<S>(0) : widened(job.x[e]) * job.rule.scale);
  }
}

}  // namespace

template <typename S>
void dropout(const Dropout<S>& job, CudaStream stream) {
  const unsigned blocks = cuda::blocks_for(job.groups() * kDropoutLanes, kDropoutThreads);
  SMORE_LAUNCH((dropout_kernel<S>), (cuda::Launch{blocks, kDropoutThreads, static_cast<cudaStream_t>(stream.handle)}),
               job);
}

template void dropout<float>(const Dropout<float>&, CudaStream);
template void dropout<double>(const Dropout<double>&, CudaStream);
template void dropout<BFloat16>(const Dropout<BFloat16>&, CudaStream);

}  // namespace smore
