// Logarithms of sums of exponentials over rows of a @ b^T on the device, without that matrix. No torch here.
//
// All sums run in a fixed order, which depends on the sizes alone.
#pragma once

#include "cuda/device.cuh"

namespace smore::cuda {

template <typename T>
struct LseInput {
  const T* a;  // [n, d]
  const T* b;  // [m, d]
  int64_t n, m, d;
};

// Elements of T that the forward and the backward need as scratch, aligned to 16 bytes.
template <typename T>
int64_t lse_forward_scratch(int64_t n, int64_t m, int64_t d);
template <typename T>
int64_t lse_backward_scratch(int64_t n, int64_t m, int64_t d);

// log_sum [n]: log sum_j exp(a_i . b_j). n, m > 0.
template <typename T>
void lse_forward(const LseInput<T>& input, T* log_sum, T* scratch, cudaStream_t stream);

// Gradients of sum_i weight_i log_sum_i, [n, d] and [m, d]. n, m, d > 0.
template <typename T>
void lse_backward(const LseInput<T>& input, const T* weight, const T* log_sum, T* grad_a, T* grad_b, T* scratch,
                  cudaStream_t stream);

}  // namespace smore::cuda
