// Contract of knn, shared by every device. docs/spec.md, section 2: item kNN by cosine similarity of the raw features.
//
// features [N, D], float32 or float64, finite; 1 <= k <= N < 2^31. Returns similarity [N, k] (dtype of
// features) and index [N, k] (int64): the exact k nearest rows of each row, itself included, by cosine
// computed in float64 and rounded to the dtype, similarity descending, then index ascending. A zero row has
// similarity 0 with every row. Memory beyond inputs and outputs: at most 64 MB up to N = 63,001 and k = 40;
// never N x N. Not differentiable.
#pragma once

#include <ATen/core/Tensor.h>

#include <limits>

#include "common/check.h"
#include "common/op.h"

namespace smore {

SMORE_OP(knn, std::tuple<at::Tensor, at::Tensor>(const at::Tensor& features, int64_t k));

inline void check_knn(const at::Tensor& features, int64_t k) {
  constexpr const char* op = "knn";
  check_floating(op, "features", features);
  check_dim(op, "features", features, 2);
  SMORE_CHECK_VALUE(features.size(0) == 0 || (k >= 1 && k <= features.size(0)), op, "k must be in 1..",
                    features.size(0), " (the number of rows), got ", k);
  SMORE_CHECK_VALUE(k >= 1, op, "k must be at least 1, got ", k);
  SMORE_CHECK_VALUE(features.size(0) < std::numeric_limits<int32_t>::max(), op,
                    "features must have fewer than 2^31 "
                    "rows, got ",
                    features.size(0));
}

}  // namespace smore
