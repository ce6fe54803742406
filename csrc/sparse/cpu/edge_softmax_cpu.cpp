// CPU binding of edge_softmax: shares rows out over torch's threads.
#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include "cpu/output.h"
#include "sparse/cpu/edge_softmax_kernel.h"
#include "sparse/cpu/parallel_rows.h"
#include "sparse/edge_softmax.h"
#include "sparse/rows_dispatch.h"

namespace smore {
namespace {

using at::Tensor;

constexpr int64_t kSteps = 16;  // of an edge, counted as spmm's

// kernel(rowptr, n_edges, result, first row, last row) over all rows; the type is that of `like`.
template <typename F>
Tensor over_rows(const char* op, const Tensor& rowptr, const Tensor& like, const F& kernel) {
  const Tensor pointers = rowptr.contiguous(), result = empty_output(like.sizes(), like.options());
  const int64_t n_rows = rowptr.size(0) - 1, n_edges = like.size(0);
  dispatch_floating(like, [&](auto t) {
    using T = decltype(t);
    dispatch_index(rowptr, [&](auto i) {
      const auto* p = read<decltype(i)>(pointers);
      const bool valid =
          parallel_rows(op, p, n_rows, n_edges, n_edges * kSteps + n_rows,
                        [&](int64_t first, int64_t last) { return kernel(p, n_edges, write<T>(result), first, last); });
      check_entries(op, valid, kAnyColumn);
    });
  });
  return result;
}

Tensor edge_softmax_cpu(const Tensor& rowptr, const Tensor& col, const Tensor& logits) {
  check_edge_softmax("edge_softmax", rowptr, col, logits);
  const Tensor from = logits.contiguous();
  return over_rows("edge_softmax", rowptr, logits, [&](auto* p, int64_t edges, auto* y, int64_t first, int64_t last) {
    return edge_softmax_rows(p, edges, read<std::remove_pointer_t<decltype(y)>>(from), y, first, last);
  });
}

Tensor edge_softmax_backward_cpu(const Tensor& rowptr, const Tensor& col, const Tensor& y, const Tensor& grad) {
  check_edge_softmax_backward(rowptr, col, y, grad);
  const Tensor values = y.contiguous(), incoming = grad.contiguous();
  return over_rows("edge_softmax_backward", rowptr, y,
                   [&](auto* p, int64_t edges, auto* out, int64_t first, int64_t last) {
                     using T = std::remove_pointer_t<decltype(out)>;
                     return edge_softmax_backward_rows(p, edges, read<T>(values), read<T>(incoming), out, first, last);
                   });
}

}  // namespace

TORCH_LIBRARY_IMPL(smore_ext, CPU, m) {
  edge_softmax_op::bind(m, &edge_softmax_cpu);
  edge_softmax_backward_op::bind(m, &edge_softmax_backward_cpu);
}

}  // namespace smore
