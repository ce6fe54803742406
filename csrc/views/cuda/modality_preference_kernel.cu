// A warp a row: its elements are the lanes', 32 apart, and only the softmax asks the others.
#include "views/modality_preference_kernel.h"

#include "cuda/launch.cuh"

namespace smore {
namespace {

using cuda::kAllLanes;
using cuda::kWarp;

constexpr int kThreads = 256;
constexpr int kRows = kThreads / kWarp;

__device__ __forceinline__ float exponential(float x) { return expf(x); }
__device__ __forceinline__ double exponential(double x) { return exp(x); }

template <typename T>
__device__ __forceinline__ T sigmoid(T x) {
  return T(1) / (T(1) + exponential(-x));
}

// The same sum in every lane, also where a product is contracted with an addition.
template <typename T>
__device__ __forceinline__ T warp_total(T value) {
#pragma unroll
  for (int other = kWarp / 2; other >= 1; other /= 2) value += __shfl_xor_sync(kAllLanes, value, other);
  return __shfl_sync(kAllLanes, value, 0);
}

template <typename T>
__device__ __forceinline__ T warp_largest(T value) {
#pragma unroll
  for (int other = kWarp / 2; other >= 1; other /= 2) value = max(value, __shfl_xor_sync(kAllLanes, value, other));
  return value;
}

template <typename T>
struct Softmax {
  T top, inverse;
  __device__ T operator()(T logit) const { return exponential(logit - top) * inverse; }
};

template <typename T>
__device__ Softmax<T> softmax_of(const T* __restrict__ logits, int64_t d, int lane) {
  T top = -cuda::kInfinity<T>, sum = 0;
  for (int64_t i = lane; i < d; i += kWarp) top = max(top, logits[i]);
  top = warp_largest(top);
  for (int64_t i = lane; i < d; i += kWarp) sum += exponential(logits[i] - top);
  return {top, T(1) / warp_total(sum)};
}

// A row in the hands of a lane.
template <typename T>
struct Row {
  const Preference<T>& of;
  int64_t r;
  uint64_t offset;  // of dropout, where anything is dropped

  __device__ int64_t place(int64_t m, int64_t i) const { return r * of.width() + m * of.d + i; }
  __device__ const T* attention(int64_t m) const { return of.attention + (m * of.n + r) * of.d; }
  __device__ T factor(int64_t m, int64_t i) const {
    return of.dropout.threshold > 0 ? of.dropout.factor(place(m, i), offset) : T(1);
  }
  // Before the factor is on it; a dropped one is 0, be it NaN.
  __device__ T gate(int64_t m, int64_t i, T factor) const { return factor > 0 ? sigmoid(of.gates[place(m, i)]) : T(0); }
  __device__ T view(int64_t m, int64_t i) const { return of.views[place(m, i)]; }
};

template <typename T>
__device__ Row<T> row_of(const Preference<T>& of, int64_t r) {
  return {of, r, of.dropout.threshold > 0 ? of.dropout.offset_now() : 0};
}

template <typename T>
__global__ void __launch_bounds__(kThreads, 2) preference_kernel(const PreferenceForward<T> job) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t r = int64_t{blockIdx.x} * kRows + threadIdx.x / kWarp, d = job.of.d, M = job.of.modalities;
  if (r >= job.of.n) return;
  const Row<T> row = row_of(job.of, r);
  T* const side = job.side + r * d;  // each lane reads and writes its own elements only
  for (int64_t i = lane; i < d; i += kWarp) {
    const T factor = row.factor(M, i);
    side[i] = row.gate(M, i, factor) * factor * row.view(M, i);
  }
  for (int64_t m = 0; m < M; ++m) {
    const T* const logits = row.attention(m);
    const Softmax<T> weight = softmax_of(logits, d, lane);
    for (int64_t i = lane; i < d; i += kWarp) {
      const T factor = row.factor(m, i);
      side[i] += row.gate(m, i, factor) * factor * weight(logits[i]) * row.view(m, i);
    }
  }
  for (int64_t i = lane; i < d; i += kWarp) side[i] *= job.of.share();
}

template <typename T>
__global__ void __launch_bounds__(kThreads, 2) preference_backward_kernel(const PreferenceBackward<T> job) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t r = int64_t{blockIdx.x} * kRows + threadIdx.x / kWarp, d = job.of.d, M = job.of.modalities;
  if (r >= job.of.n) return;
  const Row<T> row = row_of(job.of, r);
  const T* const grad = job.grad + r * d;
  const T share = job.of.share();
  for (int64_t i = lane; i < d; i += kWarp) {
    const T factor = row.factor(M, i), G = grad[i] * share * factor, s = row.gate(M, i, factor);
    job.grad_gates[row.place(M, i)] = G * row.view(M, i) * (s * (T(1) - s));
    job.grad_views[row.place(M, i)] = G * s;
  }
  for (int64_t m = 0; m < M; ++m) {
    const T* const logits = row.attention(m);
    T* const grad_logits = job.grad_attention + (logits - job.of.attention);
    const Softmax<T> weight = softmax_of(logits, d, lane);
    T sum = 0;
    for (int64_t i = lane; i < d; i += kWarp) {
      const T factor = row.factor(m, i), G = grad[i] * share * factor, s = row.gate(m, i, factor);
      const T p = weight(logits[i]), v = row.view(m, i);
      const T along = G * s * v;  // gradient of the attention's weights
      sum += p * along;
      grad_logits[i] = along;  // until the row's mean is known
      job.grad_gates[row.place(m, i)] = G * p * v * (s * (T(1) - s));
      job.grad_views[row.place(m, i)] = G * s * p;
    }
    const T mean = warp_total(sum);
    for (int64_t i = lane; i < d; i += kWarp) grad_logits[i] = weight(logits[i]) * (grad_logits[i] - mean);
  }
}

template <typename T>
cuda::Launch rows_at(const Preference<T>& of, CudaStream stream) {
  return {cuda::blocks_for(of.n, kRows), kThreads, static_cast<cudaStream_t>(stream.handle)};
}

}  // namespace

template <typename T>
void modality_preference(const PreferenceForward<T>& job, CudaStream stream) {
  SMORE_LAUNCH((preference_kernel<T>), rows_at(job.of, stream), job);
}

template <typename T>
void modality_preference_backward(const PreferenceBackward<T>& job, CudaStream stream) {
  SMORE_LAUNCH((preference_backward_kernel<T>), rows_at(job.of, stream), job);
}

template void modality_preference<float>(const PreferenceForward<float>&, CudaStream);
template void modality_preference<double>(const PreferenceForward<double>&, CudaStream);
template void modality_preference_backward<float>(const PreferenceBackward<float>&, CudaStream);
template void modality_preference_backward<double>(const PreferenceBackward<double>&, CudaStream);

}  // namespace smore
