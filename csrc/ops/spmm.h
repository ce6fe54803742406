// Contract of spmm and propagate, shared by every device.
//
// A graph travels as CSR: rowptr [R+1], col [E] (both int32 or both int64), weight [E]; its transpose comes
// along as t_rowptr [C+1], t_col [E], t_weight [E], so that backward is a forward on it and adds nothing
// twice. Weights are constants: they receive no gradient. x is [C, width]; x and the weights are both float32
// or both float64.
#pragma once

#include <ATen/core/Tensor.h>

#include "common/check.h"

namespace smore {

inline void check_csr(const char* op, const char* prefix, const at::Tensor& rowptr, const at::Tensor& col,
                      const at::Tensor& weight, const at::Tensor& x) {
  const std::string p(prefix);
  check_index_type(op, (p + "rowptr").c_str(), rowptr);
  check_same_type(op, (p + "col").c_str(), col, (p + "rowptr").c_str(), rowptr);
  check_same_type(op, (p + "weight").c_str(), weight, "x", x);
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
                       const at::Tensor& x) {
  check_floating(op, "x", x);
  check_dim(op, "x", x, 2);
  check_csr(op, "", rowptr, col, weight, x);
  check_csr(op, "t_", t_rowptr, t_col, t_weight, x);
  check_shape(op, "t_col", t_col, col.sizes());
  SMORE_CHECK_VALUE(x.size(0) == t_rowptr.size(0) - 1, op, "x must have one row per column of the graph (",
                    t_rowptr.size(0) - 1, "), got ", x.size(0));
}

inline void check_propagate(const char* op, const at::Tensor& rowptr, const at::Tensor& col, const at::Tensor& weight,
                            const at::Tensor& t_rowptr, const at::Tensor& t_col, const at::Tensor& t_weight,
                            const at::Tensor& x, int64_t n_layers) {
  check_spmm(op, rowptr, col, weight, t_rowptr, t_col, t_weight, x);
  SMORE_CHECK_VALUE(rowptr.size(0) == t_rowptr.size(0), op, "the graph must be square, got ", rowptr.size(0) - 1,
                    " rows and ", t_rowptr.size(0) - 1, " columns");
  SMORE_CHECK_VALUE(n_layers >= 0, op, "n_layers must be at least 0, got ", n_layers);
}

inline void check_row_ends(const char* op, int64_t first, int64_t last, int64_t n_edges) {
  SMORE_CHECK_INDEX(first == 0 && last == n_edges, op, "rowptr must run from 0 to the number of edges (", n_edges,
                    "), got ", first, " to ", last);
}

inline void check_entries(const char* op, bool valid, int64_t n_cols) {
  SMORE_CHECK_INDEX(valid, op, "rowptr must not decrease and every col must be in 0..", n_cols - 1,
                    ", got an entry outside");
}

}  // namespace smore
