// CPU binding of spmm and propagate: shares rows out over torch's threads.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include <atomic>

#include "cpu/output.h"
#include "cpu/parallel.h"
#include "cpu/spmm_kernel.h"
#include "ops/spmm.h"
#include "ops/spmm_run.h"

namespace smore {
namespace {

using at::Tensor;

template <typename T, typename I>
void run_spmm(const char* op, const CsrMatrix<T, I>& a, const T* x, int64_t width, const SpmmOutput<T>& out) {
  check_row_ends(op, a.rowptr[0], a.rowptr[a.n_rows], a.n_edges);
  const int64_t work = (a.n_edges + a.n_rows) * width;
  const int64_t parts = work < (1 << 15) ? 1 : at::get_num_threads();
  std::atomic<bool> valid{true};
  parallel_ranges(parts, 1, [&](int64_t begin, int64_t end) {
    const int64_t first = balanced_row(a.rowptr, a.n_rows, begin, parts);
    const int64_t last = balanced_row(a.rowptr, a.n_rows, end, parts);
    if (first < last && !spmm_rows(a, x, width, out, first, last)) valid = false;
  });
  check_entries(op, valid, a.n_cols);
}

Tensor spmm_cpu(const Tensor& rowptr, const Tensor& col, const Tensor& weight, const Tensor& t_rowptr,
                const Tensor& t_col, const Tensor& t_weight, const Tensor& x) {
  check_spmm("spmm", rowptr, col, weight, t_rowptr, t_col, t_weight, x);
  const CsrTensors csr(rowptr, col, weight);
  const Tensor dense = x.contiguous();
  Tensor y = empty_output({rowptr.size(0) - 1, x.size(1)}, x.options());
  dispatch_spmm(x, rowptr, [&](auto t, auto i) {
    using T = decltype(t);
    using I = decltype(i);
    run_spmm<T, I>("spmm", csr.view<T, I>(x.size(0)), dense.const_data_ptr<T>(), x.size(1),
                   {y.mutable_data_ptr<T>(), nullptr, nullptr, T(1)});
  });
  return y;
}

Tensor propagate_cpu(const Tensor& rowptr, const Tensor& col, const Tensor& weight, const Tensor& t_rowptr,
                     const Tensor& t_col, const Tensor& t_weight, const Tensor& x, int64_t n_layers, bool mean) {
  check_propagate("propagate", rowptr, col, weight, t_rowptr, t_col, t_weight, x, n_layers);
  if (n_layers == 0) return x.clone(at::MemoryFormat::Contiguous);
  const CsrTensors csr(rowptr, col, weight);
  const Tensor first = x.contiguous();
  Tensor result;
  dispatch_spmm(x, rowptr, [&](auto t, auto i) {
    using T = decltype(t);
    using I = decltype(i);
    const CsrMatrix<T, I> a = csr.view<T, I>(x.size(0));
    result = propagate_layers<T>(
        first, n_layers, mean, [&] { return empty_output(first.sizes(), x.options()); },
        [&](const T* from, const SpmmOutput<T>& out) { run_spmm("propagate", a, from, x.size(1), out); });
  });
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(smore_ext, CPU, m) {
  m.impl("spmm", &spmm_cpu);
  m.impl("propagate", &propagate_cpu);
}

}  // namespace smore
