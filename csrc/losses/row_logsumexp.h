// Contract of row_logsumexp, shared by every device: full-softmax and contrastive losses without their score matrix.
//
// a [N, d], b [M, d], both float32 or both float64. Returns [N]: log sum_j exp(a_i . b_j), -infinity for M = 0.
// Backward computes the scores again: grad_a_i = grad_i sum_j p_ij b_j and grad_b_j = sum_i grad_i p_ij a_i with p_ij =
// exp(a_i . b_j - log_sum_i). Differentiable once.
#pragma once

#include <ATen/core/Tensor.h>

#include "common/check.h"
#include "common/op.h"

namespace smore {

SMORE_OP(row_logsumexp, at::Tensor(const at::Tensor& a, const at::Tensor& b));
SMORE_OP(row_logsumexp_backward, std::tuple<at::Tensor, at::Tensor>(const at::Tensor& grad, const at::Tensor& a,
                                                                    const at::Tensor& b, const at::Tensor& log_sum));

inline void check_row_logsumexp(const char* op, const at::Tensor& a, const at::Tensor& b) {
  check_floating(op, "a", a);
  check_dim(op, "a", a, 2);
  check_same_type(op, "b", b, "a", a);
  check_same_device(op, "b", b, "a", a);
  check_dim(op, "b", b, 2);
  SMORE_CHECK_VALUE(a.sym_size(1) == b.sym_size(1), op, "a and b must have the same width, got ", a.sym_size(1),
                    " and ", b.sym_size(1));
}

inline void check_row_logsumexp_backward(const at::Tensor& grad, const at::Tensor& a, const at::Tensor& b,
                                         const at::Tensor& log_sum) {
  constexpr const char* op = "row_logsumexp_backward";
  check_row_logsumexp(op, a, b);
  const std::pair<const char*, const at::Tensor*> values[] = {{"grad", &grad}, {"log_sum", &log_sum}};
  for (const auto& [name, tensor] : values) {
    check_shape(op, name, *tensor, {a.sym_size(0)});
    check_same_type(op, name, *tensor, "a", a);
    check_same_device(op, name, *tensor, "a", a);
  }
}

}  // namespace smore
