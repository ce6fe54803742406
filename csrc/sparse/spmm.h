// Contract of spmm and propagate, shared by every device.
//
// A graph travels as CSR: rowptr [R+1], col [E] (both int32 or both int64), weight [E]; its transpose comes
// along as t_rowptr [C+1], t_col [E], t_weight [E], so that backward is a forward on it and adds nothing
// twice. Weights are constants: they receive no gradient. x is [C, width] and so is gate, if there is one: the product
// is A (x * gate). scale [R], for propagate, says that the graph is square and that each weight is scale[row] *
// scale[col]: layers after the first then need no weights. x is float32 or float64 and the weights are of its type; or
// it is bfloat16, the weights are float32, and so are the sums.
#pragma once

#include <ATen/core/Tensor.h>

#include "common/check.h"
#include "common/op.h"

namespace smore {

SMORE_OP(spmm, at::Tensor(const at::Tensor& rowptr, const at::Tensor& col, const at::Tensor& weight,
                          const at::Tensor& t_rowptr, const at::Tensor& t_col, const at::Tensor& t_weight,
                          const at::Tensor& x, const std::optional<at::Tensor>& gate));
SMORE_OP(propagate, at::Tensor(const at::Tensor& rowptr, const at::Tensor& col, const at::Tensor& weight,
                               const at::Tensor& t_rowptr, const at::Tensor& t_col, const at::Tensor& t_weight,
                               const at::Tensor& x, int64_t n_layers, bool mean, const std::optional<at::Tensor>& gate,
                               const std::optional<at::Tensor>& scale));
SMORE_OP(gated_product_backward,
         std::tuple<at::Tensor, at::Tensor>(const at::Tensor& rowptr, const at::Tensor& col, const at::Tensor& weight,
                                            const at::Tensor& t_rowptr, const at::Tensor& t_col,
                                            const at::Tensor& t_weight, const at::Tensor& grad, const at::Tensor& x,
                                            const at::Tensor& gate, int64_t n_layers, bool mean,
                                            const std::optional<at::Tensor>& scale));

inline at::ScalarType accumulator_type(const at::Tensor& x) {
  return x.scalar_type() == at::kBFloat16 ? at::kFloat : x.scalar_type();
}

inline void check_csr(const char* op, const char* prefix, const at::Tensor& rowptr, const at::Tensor& col,
                      const at::Tensor& weight, const at::Tensor& x) {
  const std::string p(prefix);
  check_index_type(op, (p + "rowptr").c_str(), rowptr);
  check_same_type(op, (p + "col").c_str(), col, (p + "rowptr").c_str(), rowptr);
  const at::ScalarType sums = accumulator_type(x);
  SMORE_CHECK_TYPE(weight.scalar_type() == sums, op, p, "weight must be ", sums, " for x of ", x.scalar_type(),
                   ", got ", weight.scalar_type());
  check_dim(op, (p + "rowptr").c_str(), rowptr, 1);
  check_dim(op, (p + "col").c_str(), col, 1);
  check_shape(op, (p + "weight").c_str(), weight, col.sizes());
  SMORE_CHECK_VALUE(rowptr.size(0) >= 1, op, p, "rowptr must have rows + 1 entries, got none");
  check_same_device(op, (p + "rowptr").c_str(), rowptr, "x", x);
  check_same_device(op, (p + "col").c_str(), col, "x", x);
  check_same_device(op, (p + "weight").c_str(), weight, "x", x);
  SMORE_CHECK_VALUE(!weight.requires_grad(), op, p, "weight is a constant of the graph and must not require grad");
}

inline void check_spmm(const char* op, const at::Tensor& rowptr, const at::Tensor& col, const at::Tensor& weight,
                       const at::Tensor& t_rowptr, const at::Tensor& t_col, const at::Tensor& t_weight,
                       const at::Tensor& x, const std::optional<at::Tensor>& gate) {
  const at::ScalarType type = x.scalar_type();
  SMORE_CHECK_TYPE(type == at::kFloat || type == at::kDouble || type == at::kBFloat16, op,
                   "x must be float32, float64 or bfloat16, got ", type);
  check_dim(op, "x", x, 2);
  check_csr(op, "", rowptr, col, weight, x);
  check_csr(op, "t_", t_rowptr, t_col, t_weight, x);
  check_shape(op, "t_col", t_col, col.sizes());
  check_same_type(op, "t_rowptr", t_rowptr, "rowptr", rowptr);
  SMORE_CHECK_VALUE(x.size(0) == t_rowptr.size(0) - 1, op, "x must have one row per column of the graph (",
                    t_rowptr.size(0) - 1, "), got ", x.size(0));
  if (!gate.has_value()) return;
  check_same_type(op, "gate", *gate, "x", x);
  check_shape(op, "gate", *gate, x.sizes());
  check_same_device(op, "gate", *gate, "x", x);
}

inline void check_propagate(const char* op, const at::Tensor& rowptr, const at::Tensor& col, const at::Tensor& weight,
                            const at::Tensor& t_rowptr, const at::Tensor& t_col, const at::Tensor& t_weight,
                            const at::Tensor& x, int64_t n_layers, const std::optional<at::Tensor>& gate,
                            const std::optional<at::Tensor>& scale) {
  check_spmm(op, rowptr, col, weight, t_rowptr, t_col, t_weight, x, gate);
  SMORE_CHECK_VALUE(rowptr.size(0) == t_rowptr.size(0), op, "the graph must be square, got ", rowptr.size(0) - 1,
                    " rows and ", t_rowptr.size(0) - 1, " columns");
  SMORE_CHECK_VALUE(n_layers >= 0, op, "n_layers must be at least 0, got ", n_layers);
  if (!scale.has_value()) return;
  check_same_type(op, "scale", *scale, "weight", weight);
  check_shape(op, "scale", *scale, {x.size(0)});
  check_same_device(op, "scale", *scale, "x", x);
  SMORE_CHECK_VALUE(!scale->requires_grad(), op, "scale is a constant of the graph and must not require grad");
}

// Of spmm (n_layers 1, not mean) or propagate.
inline void check_gated_backward(const char* op, const at::Tensor& rowptr, const at::Tensor& col,
                                 const at::Tensor& weight, const at::Tensor& t_rowptr, const at::Tensor& t_col,
                                 const at::Tensor& t_weight, const at::Tensor& grad, const at::Tensor& x,
                                 const at::Tensor& gate, int64_t n_layers, bool mean,
                                 const std::optional<at::Tensor>& scale) {
  if (n_layers == 1 && !mean && !scale.has_value()) {
    check_spmm(op, rowptr, col, weight, t_rowptr, t_col, t_weight, x, gate);
  } else {
    check_propagate(op, rowptr, col, weight, t_rowptr, t_col, t_weight, x, n_layers, gate, scale);
  }
  check_same_type(op, "grad", grad, "x", x);
  check_shape(op, "grad", grad, {rowptr.size(0) - 1, x.size(1)});
  check_same_device(op, "grad", grad, "x", x);
}

}  // namespace smore
