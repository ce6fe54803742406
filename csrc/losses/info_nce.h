// Contract of info_nce, shared by every device. docs/spec.md, section 1: InfoNCE (paper 3.4; the code's form).
//
// x, y: [B, d], rows of the same index belong together; temperature > 0. With u, v the rows divided by
// max(norm, 1e-12): loss = mean_i(log sum_j exp(u_i . v_j / temperature) - u_i . v_i / temperature), a
// scalar; 0 for B = 0. The sum runs over all rows of the batch, duplicates included. The log-sums [B] are a
// second output, kept for backward.
//
// info_nce.rows is the general form, composed of row_logsumexp and torch's ops: log sum_j exp(u_i . w_j / temperature)
// - u_i . v_i / temperature for each row, [B], with w the unit rows of keys [M, d] (y where there are none), M >= 1,
// and a temperature of one element that may receive a gradient.
//
// info_nce.counted takes each pair of rows once, with how often the batch has it, counts [B] >= 1: with n = sum of
// counts, loss = 1/n sum_i counts_i (log sum_j counts_j exp(u_i . v_j / temperature) - u_i . v_i / temperature), what
// info_nce gives for the rows repeated. A kernel of its own on the CPU; composed like info_nce.rows elsewhere.
#pragma once

#include <ATen/core/Tensor.h>

#include "common/check.h"
#include "common/op.h"

namespace smore {

SMORE_OP(info_nce, std::tuple<at::Tensor, at::Tensor>(const at::Tensor& x, const at::Tensor& y, double temperature));
SMORE_OP(info_nce_backward,
         std::tuple<at::Tensor, at::Tensor>(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& y,
                                            const at::Tensor& log_sum, double temperature));

SMORE_OVERLOAD(info_nce, counted,
               std::tuple<at::Tensor, at::Tensor>(const at::Tensor& x, const at::Tensor& y, const at::Tensor& counts,
                                                  double temperature));
SMORE_OVERLOAD(info_nce_backward, counted,
               std::tuple<at::Tensor, at::Tensor>(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& y,
                                                  const at::Tensor& counts, const at::Tensor& log_sum,
                                                  double temperature));

// Both directions of info_nce.counted by torch's ops and row_logsumexp: what a GPU computes.
std::tuple<at::Tensor, at::Tensor> info_nce_counted_composed(const at::Tensor& x, const at::Tensor& y,
                                                             const at::Tensor& counts, double temperature);
std::tuple<at::Tensor, at::Tensor> info_nce_backward_counted_composed(const at::Tensor& grad, const at::Tensor& x,
                                                                      const at::Tensor& y, const at::Tensor& counts,
                                                                      const at::Tensor& log_sum, double temperature);

inline void check_info_nce_sides(const char* op, const at::Tensor& x, const at::Tensor& y) {
  check_floating(op, "x", x);
  check_dim(op, "x", x, 2);
  check_same_type(op, "y", y, "x", x);
  check_same_device(op, "y", y, "x", x);
  check_shape(op, "y", y, x.sym_sizes());
}

inline void check_info_nce(const char* op, const at::Tensor& x, const at::Tensor& y, double temperature) {
  check_info_nce_sides(op, x, y);
  SMORE_CHECK_VALUE(temperature > 0, op, "temperature must be greater than 0, got ", temperature);
}

inline void check_info_nce_counted(const char* op, const at::Tensor& x, const at::Tensor& y, const at::Tensor& counts,
                                   double temperature) {
  check_info_nce(op, x, y, temperature);
  check_int64(op, "counts", counts);
  check_same_device(op, "counts", counts, "x", x);
  check_shape(op, "counts", counts, {x.sym_size(0)});
}

inline void check_info_nce_rows(const at::Tensor& x, const at::Tensor& y, const std::optional<at::Tensor>& keys,
                                const at::Tensor& temperature) {
  constexpr const char* op = "info_nce";
  check_info_nce_sides(op, x, y);
  if (keys) {
    check_same_type(op, "keys", *keys, "x", x);
    check_same_device(op, "keys", *keys, "x", x);
    check_dim(op, "keys", *keys, 2);
    SMORE_CHECK_VALUE(keys->sym_size(1) == x.sym_size(1), op, "keys must have the width of x (", x.sym_size(1),
                      "), got ", keys->sym_size(1));
    SMORE_CHECK_VALUE(keys->sym_size(0) >= 1, op, "keys must have at least one row, got none");
  }
  check_same_type(op, "temperature", temperature, "x", x);
  check_same_device(op, "temperature", temperature, "x", x);
  SMORE_CHECK_VALUE(temperature.sym_numel() == 1, op, "temperature must have one element, got shape ",
                    temperature.sym_sizes());
}

inline void check_info_nce_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& y,
                                    const at::Tensor& log_sum, double temperature) {
  constexpr const char* op = "info_nce_backward";
  check_info_nce(op, x, y, temperature);
  check_shape(op, "grad", grad, {});
  check_same_type(op, "grad", grad, "x", x);
  check_same_device(op, "grad", grad, "x", x);
  check_shape(op, "log_sum", log_sum, {x.sym_size(0)});
  check_same_type(op, "log_sum", log_sum, "x", x);
  check_same_device(op, "log_sum", log_sum, "x", x);
}

}  // namespace smore
