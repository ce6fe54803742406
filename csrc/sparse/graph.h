// A graph as it travels to the ops of this family, and its checks.
//
// CSR: rowptr [R+1] and col [E], both int32 or both int64. Its transpose comes along as t_rowptr [C+1] and t_col [E],
// so that backward is a forward on it and adds nothing twice. Weights are either constants of the graph,
//     weight [E] and t_weight [E], the same in the transpose's order, neither with a gradient;
// or values that may require one, weight [E] alone with a permutation of the edges, which it is then read by:
//     t_order [E]: edge e of the transpose is edge t_order[e] of the graph; or, if weight is in the transpose's order,
//     order [E]: edge e of the graph is edge order[e] of the transpose.
// Permutations are of the type of the indices. Their range is checked, that nothing occurs twice is not.
#pragma once

#include <ATen/core/Tensor.h>

#include "common/check.h"

namespace smore {

struct GraphTensors {
  at::Tensor rowptr, col, weight, t_rowptr, t_col;
  std::optional<at::Tensor> t_weight = std::nullopt, order = std::nullopt, t_order = std::nullopt;

  bool constant() const { return t_weight.has_value(); }
  c10::SymInt n_rows() const { return rowptr.sym_size(0) - 1; }
  c10::SymInt n_cols() const { return t_rowptr.sym_size(0) - 1; }
  // With weights that get no gradient, as of no product.
  GraphTensors detached() const {
    GraphTensors graph = *this;
    if (weight.requires_grad()) graph.weight = weight.detach();
    return graph;
  }
  GraphTensors t() const {
    if (constant()) return {t_rowptr, t_col, *t_weight, rowptr, col, weight};
    return {t_rowptr, t_col, weight, rowptr, col, std::nullopt, t_order, order};
  }
};

// What sums over rows of x are made in.
inline at::ScalarType accumulator_type(const at::Tensor& x) {
  return x.scalar_type() == at::kBFloat16 ? at::kFloat : x.scalar_type();
}

inline void check_dense_rows(const char* op, const char* name, const at::Tensor& x) {
  const at::ScalarType type = x.scalar_type();
  SMORE_CHECK_TYPE(type == at::kFloat || type == at::kDouble || type == at::kBFloat16, op, name,
                   " must be float32, float64 or bfloat16, got ", type, ": ", name, ".float() is, and ", name,
                   ".bfloat16()");
  check_dim(op, name, x, 2);
}

// One direction; `like` is a tensor whose device everything must be on.
inline void check_csr(const char* op, const char* prefix, const at::Tensor& rowptr, const at::Tensor& col,
                      const char* like_name, const at::Tensor& like) {
  const std::string rowptr_name = std::string(prefix) + "rowptr", col_name = std::string(prefix) + "col";
  check_index_type(op, rowptr_name.c_str(), rowptr);
  check_same_type(op, col_name.c_str(), col, rowptr_name.c_str(), rowptr);
  check_dim(op, rowptr_name.c_str(), rowptr, 1);
  check_dim(op, col_name.c_str(), col, 1);
  SMORE_CHECK_VALUE(rowptr.sym_size(0) >= 1, op, rowptr_name, " must have rows + 1 entries, got none");
  check_same_device(op, rowptr_name.c_str(), rowptr, like_name, like);
  check_same_device(op, col_name.c_str(), col, like_name, like);
}

inline void check_both_csr(const char* op, const at::Tensor& rowptr, const at::Tensor& col, const at::Tensor& t_rowptr,
                           const at::Tensor& t_col, const char* like_name, const at::Tensor& like) {
  check_csr(op, "", rowptr, col, like_name, like);
  check_csr(op, "t_", t_rowptr, t_col, like_name, like);
  check_shape(op, "t_col", t_col, col.sym_sizes());
  check_same_type(op, "t_rowptr", t_rowptr, "rowptr", rowptr);
}

inline void check_order(const char* op, const char* name, const at::Tensor& order, const at::Tensor& col) {
  check_same_type(op, name, order, "rowptr", col);
  check_shape(op, name, order, col.sym_sizes());
  check_same_device(op, name, order, "col", col);
}

inline void check_weight(const char* op, const char* name, const at::Tensor& weight, const at::Tensor& col,
                         const at::Tensor& x) {
  const at::ScalarType sums = accumulator_type(x);
  SMORE_CHECK_TYPE(weight.scalar_type() == sums, op, name, " must be ", sums, " for x of ", x.scalar_type(), ", got ",
                   weight.scalar_type());
  check_shape(op, name, weight, col.sym_sizes());
  check_same_device(op, name, weight, "x", x);
}

inline void check_graph(const char* op, const GraphTensors& g, const at::Tensor& x) {
  check_both_csr(op, g.rowptr, g.col, g.t_rowptr, g.t_col, "x", x);
  check_weight(op, "weight", g.weight, g.col, x);
  const int given = g.t_weight.has_value() + g.order.has_value() + g.t_order.has_value();
  SMORE_CHECK_VALUE(given == 1, op, "one of t_weight, order and t_order must be given, got ", given);
  if (g.order.has_value()) check_order(op, "order", *g.order, g.col);
  if (g.t_order.has_value()) check_order(op, "t_order", *g.t_order, g.col);
  if (!g.constant()) return;
  check_weight(op, "t_weight", *g.t_weight, g.t_col, x);
  SMORE_CHECK_VALUE(
      !g.weight.requires_grad() && !g.t_weight->requires_grad(), op,
      "weight is a constant of the graph beside t_weight and must not require grad: give t_order instead");
}

inline constexpr const char* kOrderEntry = "entry of order";

}  // namespace smore
