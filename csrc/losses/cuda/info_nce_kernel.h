// InfoNCE between rows of two matrices on the device, without a batch x batch matrix. No torch here.
//
// s_ij = u_i . v_j / temperature for rows of length one; loss = mean_i(log sum_j exp(s_ij) - s_ii). All sums run in a
// fixed order, which depends on the sizes alone.
#pragma once

#include "cuda/device.cuh"

namespace smore::cuda {

template <typename T>
struct NceInput {
  const T* x;  // [n, d]
  const T* y;  // [n, d]
  int64_t n, d;
  double temperature;
};

// Elements of T that the forward and the backward need as scratch, aligned to 16 bytes.
template <typename T>
int64_t nce_forward_scratch(int64_t n, int64_t d);
template <typename T>
int64_t nce_backward_scratch(int64_t n, int64_t d);

// loss: scalar; log_sum [n]: log sum_j exp(s_ij). n > 0.
template <typename T>
void nce_forward(const NceInput<T>& input, T* loss, T* log_sum, T* scratch, cudaStream_t stream);

// Gradients of grad[0] * loss. n > 0.
template <typename T>
void nce_backward(const NceInput<T>& input, const T* grad, const T* log_sum, T* grad_x, T* grad_y, T* scratch,
                  cudaStream_t stream);

}  // namespace smore::cuda
