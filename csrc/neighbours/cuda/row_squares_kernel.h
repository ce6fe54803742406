// Squared norms of rows in double, on the device. No torch here.
#pragma once

#include <cstdint>

#include "cuda/device.cuh"

namespace smore::cuda {

// square[i] = |x_i|^2 for the n rows of x [n, d], as the CPU sums it. *not_finite, unless null: 0, or 2^31 - 1 minus
// the first row whose square is not finite.
template <typename T>
void row_squares(const T* x, int64_t n, int64_t d, double* square, int* not_finite, cudaStream_t stream);

}  // namespace smore::cuda
