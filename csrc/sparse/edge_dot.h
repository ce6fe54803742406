// Contract of edge_dot, shared by every device.
//
// e = <u[row], v[col]> for each edge of a graph, in stored order: u [R, width], v [C, width] -> [E]. graph.h says how
// the graph travels; of its weights only t_order is here, by which backward, two products of the graph with dL/de as
// its weights, reads them. u and v are float32 or float64 and so is the result; or they are bfloat16 and it is float32.
#pragma once

#include "common/op.h"
#include "sparse/graph.h"

namespace smore {

SMORE_OP(edge_dot,
         at::Tensor(const at::Tensor& rowptr, const at::Tensor& col, const at::Tensor& t_rowptr,
                    const at::Tensor& t_col, const at::Tensor& t_order, const at::Tensor& u, const at::Tensor& v));

inline void check_edge_dot(const char* op, const at::Tensor& rowptr, const at::Tensor& col, const at::Tensor& t_rowptr,
                           const at::Tensor& t_col, const at::Tensor& t_order, const at::Tensor& u,
                           const at::Tensor& v) {
  check_dense_rows(op, "u", u);
  check_same_type(op, "v", v, "u", u);
  check_dim(op, "v", v, 2);
  check_same_device(op, "v", v, "u", u);
  check_both_csr(op, rowptr, col, t_rowptr, t_col, "u", u);
  check_order(op, "t_order", t_order, col);
  SMORE_CHECK_VALUE(u.sym_size(0) == rowptr.sym_size(0) - 1, op, "u must have one row per row of the graph (",
                    rowptr.sym_size(0) - 1, "), got ", u.sym_size(0));
  SMORE_CHECK_VALUE(v.sym_size(0) == t_rowptr.sym_size(0) - 1, op, "v must have one row per column of the graph (",
                    t_rowptr.sym_size(0) - 1, "), got ", v.sym_size(0));
  SMORE_CHECK_VALUE(u.sym_size(1) == v.sym_size(1), op, "u and v must have the same width, got ", u.sym_size(1),
                    " and ", v.sym_size(1));
}

}  // namespace smore
