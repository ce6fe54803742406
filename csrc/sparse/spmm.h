// Contract of spmm and propagate, shared by every device.
//
// graph.h says how a graph travels. x is [C, width] and so is gate, if there is one: the product is A (x * gate). scale
// [R], for propagate, says that the graph is square, its weights are constant and each is scale[row] * scale[col]:
// layers after the first then need no weights. x is float32 or float64 and the weights are of its type; or it is
// bfloat16, the weights are float32, and so are the sums.
//
// Gradients: x, gate, and weight where it comes with a permutation. That of a weight is the dot product of the rows at
// its edge's ends (edge_dot), for propagate one of each layer, added: there, backward needs what every layer read, and
// the layers are products of their own that keep it.
#pragma once

#include "common/op.h"
#include "sparse/graph.h"

namespace smore {

SMORE_OP(spmm,
         at::Tensor(const at::Tensor& rowptr, const at::Tensor& col, const at::Tensor& weight,
                    const at::Tensor& t_rowptr, const at::Tensor& t_col, const std::optional<at::Tensor>& t_weight,
                    const at::Tensor& x, const std::optional<at::Tensor>& gate, const std::optional<at::Tensor>& order,
                    const std::optional<at::Tensor>& t_order));
SMORE_OP(propagate, at::Tensor(const at::Tensor& rowptr, const at::Tensor& col, const at::Tensor& weight,
                               const at::Tensor& t_rowptr, const at::Tensor& t_col,
                               const std::optional<at::Tensor>& t_weight, const at::Tensor& x, int64_t n_layers,
                               bool mean, const std::optional<at::Tensor>& gate, const std::optional<at::Tensor>& scale,
                               const std::optional<at::Tensor>& order, const std::optional<at::Tensor>& t_order));
SMORE_OP(gated_product_backward,
         std::tuple<at::Tensor, at::Tensor>(const at::Tensor& rowptr, const at::Tensor& col, const at::Tensor& weight,
                                            const at::Tensor& t_rowptr, const at::Tensor& t_col,
                                            const std::optional<at::Tensor>& t_weight, const at::Tensor& grad,
                                            const at::Tensor& x, const at::Tensor& gate, int64_t n_layers, bool mean,
                                            const std::optional<at::Tensor>& scale,
                                            const std::optional<at::Tensor>& order,
                                            const std::optional<at::Tensor>& t_order));

inline void check_spmm(const char* op, const GraphTensors& graph, const at::Tensor& x,
                       const std::optional<at::Tensor>& gate) {
  check_dense_rows(op, "x", x);
  check_graph(op, graph, x);
  SMORE_CHECK_VALUE(x.sym_size(0) == graph.n_cols(), op, "x must have one row per column of the graph (",
                    graph.n_cols(), "), got ", x.sym_size(0));
  if (!gate.has_value()) return;
  check_same_type(op, "gate", *gate, "x", x);
  check_shape(op, "gate", *gate, x.sym_sizes());
  check_same_device(op, "gate", *gate, "x", x);
}

inline void check_propagate(const char* op, const GraphTensors& graph, const at::Tensor& x, int64_t n_layers,
                            const std::optional<at::Tensor>& gate, const std::optional<at::Tensor>& scale) {
  check_spmm(op, graph, x, gate);
  SMORE_CHECK_VALUE(graph.n_rows() == graph.n_cols(), op, "the graph must be square, got ", graph.n_rows(),
                    " rows and ", graph.n_cols(), " columns");
  SMORE_CHECK_VALUE(n_layers >= 0, op, "n_layers must be at least 0, got ", n_layers);
  if (!scale.has_value()) return;
  SMORE_CHECK_VALUE(graph.constant(), op, "scale is of constant weights, which come with t_weight, got none");
  check_same_type(op, "scale", *scale, "weight", graph.weight);
  check_shape(op, "scale", *scale, {x.sym_size(0)});
  check_same_device(op, "scale", *scale, "x", x);
  SMORE_CHECK_VALUE(!scale->requires_grad(), op, "scale is a constant of the graph and must not require grad");
}

// Of spmm (n_layers 1, not mean) or propagate.
inline void check_gated_backward(const char* op, const GraphTensors& graph, const at::Tensor& grad, const at::Tensor& x,
                                 const at::Tensor& gate, int64_t n_layers, bool mean,
                                 const std::optional<at::Tensor>& scale) {
  if (n_layers == 1 && !mean && !scale.has_value()) {
    check_spmm(op, graph, x, gate);
  } else {
    check_propagate(op, graph, x, n_layers, gate, scale);
  }
  check_same_type(op, "grad", grad, "x", x);
  check_shape(op, "grad", grad, {graph.n_rows(), x.sym_size(1)});
  check_same_device(op, "grad", grad, "x", x);
}

}  // namespace smore
