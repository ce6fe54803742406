// CPU binding of spmm and propagate: shares rows out over torch's threads.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include <atomic>

#include "cpu/output.h"
#include "cpu/parallel.h"
#include "sparse/cpu/spmm_kernel.h"
#include "sparse/spmm_run.h"

namespace smore {
namespace {

using at::Tensor;

class Cpu {
 public:
  Cpu(const char* op, const CsrTensors&, const Tensor&) : op_(op) {}

  static Tensor empty(at::IntArrayRef sizes, const at::TensorOptions& options) { return empty_output(sizes, options); }

  template <typename S, typename I>
  void multiply(const CsrMatrix<Accumulator<S>, I>& a, const S* x, int64_t width, const SpmmOutput<S>& out) const {
    check_row_ends(op_, a.rowptr[0], a.rowptr[a.n_rows], a.n_edges);
    const int64_t work = (a.n_edges + a.n_rows) * width;
    const int64_t parts = work < (1 << 15) ? 1 : at::get_num_threads();
    std::atomic<bool> valid{true};
    parallel_ranges(parts, 1, [&](int64_t begin, int64_t end) {
      const int64_t first = balanced_row(a.rowptr, a.n_rows, begin, parts);
      const int64_t last = balanced_row(a.rowptr, a.n_rows, end, parts);
      if (first < last && !spmm_rows(a, x, width, out, first, last)) valid = false;
    });
    check_entries(op_, valid, a.n_cols);
  }

 private:
  const char* op_;
};

}  // namespace

TORCH_LIBRARY_IMPL(smore_ext, CPU, m) {
  spmm_op::bind(m, &SpmmOps<Cpu>::spmm);
  propagate_op::bind(m, &SpmmOps<Cpu>::propagate);
  gated_product_backward_op::bind(m, &SpmmOps<Cpu>::gated_backward);
}

}  // namespace smore
