// Contract of table_linear, shared by every device: the linear layer over a feature table.
//
// table [N, D], weight [d, D], bias [d], d >= 1, all float32 or all float64. Returns table @ weight^T + bias, [N, d].
// table_linear_backward(grad [N, d], table) returns (grad^T @ table [d, D], column sums of grad [d]); the table's own
// gradient is the plain product grad @ weight, formed only if asked for. Sums have a fixed order. Differentiable once.
#pragma once

#include <ATen/core/Tensor.h>

#include "common/check.h"
#include "common/op.h"

namespace smore {

SMORE_OP(table_linear, at::Tensor(const at::Tensor& table, const at::Tensor& weight, const at::Tensor& bias));
SMORE_OP(table_linear_backward, std::tuple<at::Tensor, at::Tensor>(const at::Tensor& grad, const at::Tensor& table));

inline void check_table_linear(const at::Tensor& table, const at::Tensor& weight, const at::Tensor& bias) {
  constexpr const char* op = "table_linear";
  check_floating(op, "table", table);
  check_dim(op, "table", table, 2);
  check_dim(op, "weight", weight, 2);
  SMORE_CHECK_VALUE(weight.sym_size(0) >= 1, op, "weight must have at least 1 row, got shape ", weight.sym_sizes());
  check_shape(op, "weight", weight, {weight.sym_size(0), table.sym_size(1)});
  check_shape(op, "bias", bias, {weight.sym_size(0)});
  check_same_type(op, "weight", weight, "table", table);
  check_same_type(op, "bias", bias, "table", table);
  check_same_device(op, "weight", weight, "table", table);
  check_same_device(op, "bias", bias, "table", table);
}

inline void check_table_linear_backward(const at::Tensor& grad, const at::Tensor& table) {
  constexpr const char* op = "table_linear_backward";
  check_floating(op, "table", table);
  check_dim(op, "table", table, 2);
  check_dim(op, "grad", grad, 2);
  check_shape(op, "grad", grad, {table.sym_size(0), grad.sym_size(1)});
  check_same_type(op, "grad", grad, "table", table);
  check_same_device(op, "grad", grad, "table", table);
}

}  // namespace smore
