// CPU binding of spmm, propagate and poly_filter: shares rows out over torch's threads.
#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include "cpu/output.h"
#include "sparse/cpu/gather_kernel.h"
#include "sparse/cpu/parallel_rows.h"
#include "sparse/cpu/spmm_kernel.h"
#include "sparse/spmm_run.h"

namespace smore {
namespace {

using at::Tensor;

class Cpu {
 public:
  Cpu(const char* op, const CsrTensors&, const Tensor&) : op_(op) {}

  static Tensor empty(at::IntArrayRef sizes, const at::TensorOptions& options) { return empty_output(sizes, options); }

  static Tensor gather(const char* op, const GraphTensors& graph) {
    const Tensor weight = graph.weight.contiguous(), order = graph.order->contiguous();
    const Tensor result = empty_output(weight.sizes(), weight.options());
    std::atomic<bool> valid{true};
    dispatch_floating(weight, [&](auto t) {
      using T = decltype(t);
      dispatch_index(order, [&](auto i) {
        parallel_ranges(order.size(0), 1 << 14, [&](int64_t begin, int64_t end) {
          if (!gather_weights(read<T>(weight), read<decltype(i)>(order), order.size(0), write<T>(result), begin, end)) {
            valid = false;
          }
        });
      });
    });
    check_entries(op, valid, order.size(0), kOrderEntry);
    return result;
  }

  template <typename S, typename I>
  void multiply(const CsrMatrix<Accumulator<S>, I>& a, const S* x, int64_t width, const SpmmOutput<S>& out) const {
    const bool valid =
        parallel_rows(op_, a.rowptr, a.n_rows, a.n_edges, (a.n_edges + a.n_rows) * width,
                      [&](int64_t first, int64_t last) { return spmm_rows(a, x, width, out, first, last); });
    check_entries(op_, valid, a.n_cols);
  }

 private:
  const char* op_;
};

}  // namespace

TORCH_LIBRARY_IMPL(smore_ext, CPU, m) {
  spmm_op::bind(m, &SpmmOps<Cpu>::spmm);
  propagate_op::bind(m, &SpmmOps<Cpu>::propagate);
  poly_filter_op::bind(m, &SpmmOps<Cpu>::poly_filter);
  gated_product_backward_op::bind(m, &SpmmOps<Cpu>::gated_backward);
}

}  // namespace smore
