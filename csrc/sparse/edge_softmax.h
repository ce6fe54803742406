// Contract of edge_softmax, shared by every device.
//
// y = exp(l - max l) / sum exp(l - max l) over the edges of each row of a CSR matrix, rowptr [R+1] and col [E], for
// logits l [E] in stored order; float32 or float64. A row without edges has nothing to say. As in torch, a row with
// NaN, with plus infinity or of minus infinities alone is NaN. Columns do not matter; they identify the graph to a
// device that remembers which ones it has checked. Backward: y * (g - sum y g).
#pragma once

#include "common/op.h"
#include "sparse/graph.h"

namespace smore {

SMORE_OP(edge_softmax, at::Tensor(const at::Tensor& rowptr, const at::Tensor& col, const at::Tensor& logits));
SMORE_OP(edge_softmax_backward,
         at::Tensor(const at::Tensor& rowptr, const at::Tensor& col, const at::Tensor& y, const at::Tensor& grad));

inline void check_edge_softmax(const char* op, const at::Tensor& rowptr, const at::Tensor& col,
                               const at::Tensor& logits) {
  check_floating(op, "logits", logits);
  check_csr(op, "", rowptr, col, "logits", logits);
  check_shape(op, "logits", logits, col.sym_sizes());
}

inline void check_edge_softmax_backward(const at::Tensor& rowptr, const at::Tensor& col, const at::Tensor& y,
                                        const at::Tensor& grad) {
  constexpr const char* op = "edge_softmax_backward";
  check_edge_softmax(op, rowptr, col, y);
  check_same_type(op, "grad", grad, "y", y);
  check_shape(op, "grad", grad, y.sym_sizes());
  check_same_device(op, "grad", grad, "y", y);
}

}  // namespace smore
