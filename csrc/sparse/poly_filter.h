// Contract of poly_filter: y = sum_l c_l A^l x for a square graph A, l = 0 .. L, and coefficients c [L+1] in the type
// that sums are made in. Any polynomial of the graph is one: LightGCN's mean over layers, APPNP's and GPRGNN's steps, a
// low pass of the normalised Laplacian. graph.h says how the graph travels; x and scale are as in propagate (spmm.h).
//
// Forward is Horner's scheme, y <- c_l x + A y. Gradients: x, the coefficients, and weight where it comes with a
// permutation. With h_l = (A^T)^l dL/dy, dL/dx = sum_l c_l h_l and dL/dc_l = <h_l, x>: L products give both, and
// nothing is kept of any layer.
#pragma once

#include "common/op.h"
#include "sparse/spmm.h"

namespace smore {

SMORE_OP(poly_filter,
         at::Tensor(const at::Tensor& rowptr, const at::Tensor& col, const at::Tensor& weight,
                    const at::Tensor& t_rowptr, const at::Tensor& t_col, const std::optional<at::Tensor>& t_weight,
                    const at::Tensor& x, const at::Tensor& coefficients, const std::optional<at::Tensor>& scale,
                    const std::optional<at::Tensor>& order, const std::optional<at::Tensor>& t_order));
SMORE_OP(poly_filter_backward,
         std::tuple<at::Tensor, at::Tensor>(const at::Tensor& rowptr, const at::Tensor& col, const at::Tensor& weight,
                                            const at::Tensor& t_rowptr, const at::Tensor& t_col,
                                            const std::optional<at::Tensor>& t_weight, const at::Tensor& grad,
                                            const at::Tensor& x, const at::Tensor& coefficients,
                                            const std::optional<at::Tensor>& order,
                                            const std::optional<at::Tensor>& t_order));

inline void check_poly_filter(const char* op, const GraphTensors& graph, const at::Tensor& x,
                              const at::Tensor& coefficients, const std::optional<at::Tensor>& scale) {
  check_propagate(op, graph, x, 0, std::nullopt, scale);
  const at::ScalarType sums = accumulator_type(x);
  SMORE_CHECK_TYPE(coefficients.scalar_type() == sums, op, "coefficients must be ", sums, " for x of ", x.scalar_type(),
                   ", got ", coefficients.scalar_type());
  check_dim(op, "coefficients", coefficients, 1);
  SMORE_CHECK_VALUE(coefficients.sym_size(0) >= 1, op, "coefficients must hold at least one number, got none");
  check_same_device(op, "coefficients", coefficients, "x", x);
}

}  // namespace smore
