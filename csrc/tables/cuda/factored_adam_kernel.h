// Adam for a parameter whose gradient is a product of two thin factors, which is never formed. No torch here.
#pragma once

#include "cuda/device.cuh"

namespace smore::cuda {

// A number that is read on the device if there is a pointer, so that a recorded launch sees the value of the moment
// when it runs.
struct Scalar {
  double value = 0;
  const float* float_on_device = nullptr;
  const double* double_on_device = nullptr;
};

template <typename T>
struct FactoredAdam {
  T* param;            // [n, width]
  T* average;          // [n, width]: running mean of the gradient
  T* square;           // [n, width]: running mean of its square
  const T* grad_rows;  // [n, d]: the gradient of param is grad_rows @ factor
  const T* factor;     // [d, width]
  int64_t n, width, d;
  double beta1, beta2, eps;
  Scalar step, lr;  // the step is 1 at the first
};

// How many tiles of rows a thread block passes over with one share of the factor: more save traffic, fewer keep a small
// table spread over the device.
template <typename T>
int adam_rounds(int64_t n, int64_t width);

template <typename T>
void factored_adam(const FactoredAdam<T>& job, int rounds, cudaStream_t stream);

}  // namespace smore::cuda
