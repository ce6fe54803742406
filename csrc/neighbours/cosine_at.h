// Contract of cosine_at, shared by every device: cosine similarity of rows with others that are named.
//
// features [N, d], float32 or float64; index [N, k] int64, rows of base [M, d], which is features where it is absent.
// Returns [N, k] (dtype of features): the cosine of row i and row index[i, p], computed in float64 and rounded, as knn
// computes it: for knn's own index, knn's own bits. Zero rows have similarity 0, and neither they nor what is compared
// with them has a gradient from it; nor has a row from the comparison with itself. Gradients are dense. They are summed
// in float64 in a fixed order: a row's own comparisons first, then those with it, by the number of the other row.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "common/check.h"
#include "common/op.h"

namespace smore {

SMORE_OP(cosine_at,
         at::Tensor(const at::Tensor& features, const at::Tensor& index, const std::optional<at::Tensor>& base));
// of_features, of_base: the gradients that are wanted; others, and that of an absent base, come with no rows.
SMORE_OP(cosine_at_backward,
         std::tuple<at::Tensor, at::Tensor>(const at::Tensor& grad, const at::Tensor& features, const at::Tensor& index,
                                            const std::optional<at::Tensor>& base, const at::Tensor& similarity,
                                            bool of_features, bool of_base));

inline void check_cosine_at(const char* op, const at::Tensor& features, const at::Tensor& index,
                            const std::optional<at::Tensor>& base) {
  check_floating(op, "features", features);
  check_dim(op, "features", features, 2);
  check_int64(op, "index", index);
  check_same_device(op, "index", index, "features", features);
  check_dim(op, "index", index, 2);
  SMORE_CHECK_VALUE(index.sym_size(0) == features.sym_size(0), op, "index must have one row per row of features (",
                    features.sym_size(0), "), got ", index.sym_size(0));
  if (!base.has_value()) return;
  check_same_type(op, "base", *base, "features", features);
  check_same_device(op, "base", *base, "features", features);
  check_dim(op, "base", *base, 2);
  SMORE_CHECK_VALUE(base->sym_size(1) == features.sym_size(1), op, "base must have the width of features (",
                    features.sym_size(1), "), got ", base->sym_size(1));
}

inline void check_cosine_at_backward(const at::Tensor& grad, const at::Tensor& features, const at::Tensor& index,
                                     const std::optional<at::Tensor>& base, const at::Tensor& similarity) {
  constexpr const char* op = "cosine_at_backward";
  check_cosine_at(op, features, index, base);
  const std::pair<const char*, const at::Tensor*> values[] = {{"grad", &grad}, {"similarity", &similarity}};
  for (const auto& [name, tensor] : values) {
    check_shape(op, name, *tensor, index.sym_sizes());
    check_same_type(op, name, *tensor, "features", features);
    check_same_device(op, name, *tensor, "features", features);
  }
}

}  // namespace smore
