// Contract of knn, shared by every device. docs/spec.md, section 2: item kNN by cosine similarity of the raw features.
//
// features [N, D], float32 or float64, finite. Without a base the neighbours of a row are rows of features, itself
// included (first among its equals, so first of all) or left out; with one, they are rows of base [M, D]. 1 <= k <= the
// rows to choose from < 2^31. Returns similarity [N, k] (dtype of features) and index [N, k] (int64): the exact k
// nearest by cosine computed in float64 and rounded to the dtype, similarity descending, then index ascending. A zero
// row has similarity 0 with every row. Memory beyond inputs and outputs: at most 64 MB up to N = 63,001 (or M) and
// k = 40; never N x M. Not differentiable.
#pragma once

#include <ATen/core/Tensor.h>

#include <limits>
#include <optional>

#include "common/check.h"
#include "common/op.h"
#include "neighbours/knn_rules.h"

namespace smore {

SMORE_OP(knn, std::tuple<at::Tensor, at::Tensor>(const at::Tensor& features, int64_t k,
                                                 const std::optional<at::Tensor>& base, bool exclude_self));

inline KnnSelf knn_self(const std::optional<at::Tensor>& base, bool exclude_self) {
  return base.has_value() ? KnnSelf::none : exclude_self ? KnnSelf::left_out : KnnSelf::first;
}

inline void check_knn(const at::Tensor& features, int64_t k, const std::optional<at::Tensor>& base, bool exclude_self) {
  constexpr const char* op = "knn";
  constexpr int64_t limit = std::numeric_limits<int32_t>::max();
  check_floating(op, "features", features);
  check_dim(op, "features", features, 2);
  SMORE_CHECK_VALUE(features.size(0) < limit, op, "features must have fewer than 2^31 rows, got ", features.size(0));
  if (base.has_value()) {
    check_same_type(op, "base", *base, "features", features);
    check_same_device(op, "base", *base, "features", features);
    check_dim(op, "base", *base, 2);
    SMORE_CHECK_VALUE(base->size(1) == features.size(1), op, "base must have the width of features (", features.size(1),
                      "), got ", base->size(1));
    SMORE_CHECK_VALUE(base->size(0) < limit, op, "base must have fewer than 2^31 rows, got ", base->size(0));
    SMORE_CHECK_VALUE(!exclude_self, op, "exclude_self must be false where a base is given, got true");
    SMORE_CHECK_VALUE(k >= 1 && k <= base->size(0), op, "k must be in 1..", base->size(0),
                      " (the number of rows of base), got ", k);
  } else {
    const int64_t most = features.size(0) - (exclude_self ? 1 : 0);
    SMORE_CHECK_VALUE(features.size(0) == 0 || (k >= 1 && k <= most), op, "k must be in 1..", most, " (the number of ",
                      exclude_self ? "other " : "", "rows), got ", k);
    SMORE_CHECK_VALUE(k >= 1, op, "k must be at least 1, got ", k);
  }
}

}  // namespace smore
