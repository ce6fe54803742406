// knn by products of bytes (int8_rows_kernel.h), where they are switched on and fit.
#pragma once

#include <ATen/core/Tensor.h>
#include <cuda_runtime.h>

#include "neighbours/knn_rules.h"

namespace smore {

// Rows [N, d] of float32 with their squared norms.
struct KnnRows {
  const at::Tensor &rows, &square;
};

// Whether products of bytes were asked for, on a device whose tensor cores have them. They wait for the device once.
bool knn_int8_wanted();

// The k nearest of each of the queries in the base (or, unless self is none, among themselves: the base is the queries
// then). False, with nothing written, where rows are too wide, too much memory is taken already, or the bound is too
// wide for the lists.
bool knn_int8(const KnnRows& queries, const KnnRows& base, int64_t k, KnnSelf self, at::Tensor& similarity,
              at::Tensor& index, cudaStream_t stream);

}  // namespace smore
