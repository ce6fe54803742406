// What backward of poly_filter does between its products, and its kernels on each device. No torch here.
#pragma once

#include <cstdint>

#include "common/bfloat16.h"
#include "common/place.h"

namespace smore {

// Numbers that share one partial sum of a dot product: fixed, so that the order of the sum is.
inline constexpr int64_t kPolyFilterChunk = 4096;
inline int64_t poly_filter_chunks(int64_t size) { return (size + kPolyFilterChunk - 1) / kPolyFilterChunk; }

// sum = before + c h, and the partial sums of <h, x>; S is the type in memory.
template <typename S>
struct PolyFilterStep {
  int64_t size;  // numbers of each array
  const S* h;    // (A^T)^l dL/dy
  const S* x;
  const Accumulator<S>* coefficient;  // c_l, one number
  const S* before;                    // null: nothing, which is for l = 0; may be `sum`
  S* sum;
  double* partial;  // [poly_filter_chunks(size)]
};

// A Range is one of chunks.
template <typename S>
void poly_filter_step(const PolyFilterStep<S>& job, Range chunks);
template <typename S>
void poly_filter_step(const PolyFilterStep<S>& job, CudaStream stream);

// result[l] = the sum of partial[l].
template <typename T>
struct PolyFilterSums {
  const double* partial;  // [terms, chunks]
  int64_t terms, chunks;
  T* result;  // [terms]
};

// A Range is one of terms.
template <typename T>
void poly_filter_sums(const PolyFilterSums<T>& job, Range terms);
template <typename T>
void poly_filter_sums(const PolyFilterSums<T>& job, CudaStream stream);

}  // namespace smore
