// CPU binding of spmm and propagate: shares rows out over torch's threads.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include <atomic>

#include "cpu/output.h"
#include "cpu/parallel.h"
#include "cpu/spmm_kernel.h"
#include "ops/spmm.h"

namespace smore {
namespace {

using at::Tensor;

template <typename T, typename I>
void run_spmm(const char* op, const CsrMatrix<T, I>& a, const T* x, int64_t width, const SpmmOutput<T>& out) {
  SMORE_CHECK_INDEX(a.rowptr[0] == 0 && static_cast<int64_t>(a.rowptr[a.n_rows]) == a.n_edges, op,
                    "rowptr must run from 0 to the number of edges (", a.n_edges, "), got ",
                    static_cast<int64_t>(a.rowptr[0]), " to ", static_cast<int64_t>(a.rowptr[a.n_rows]));
  const int64_t work = (a.n_edges + a.n_rows) * width;
  const int64_t parts = work < (1 << 15) ? 1 : at::get_num_threads();
  std::atomic<bool> valid{true};
  parallel_ranges(parts, 1, [&](int64_t begin, int64_t end) {
    const int64_t first = balanced_row(a.rowptr, a.n_rows, begin, parts);
    const int64_t last = balanced_row(a.rowptr, a.n_rows, end, parts);
    if (first < last && !spmm_rows(a, x, width, out, first, last)) valid = false;
  });
  SMORE_CHECK_INDEX(valid, op, "rowptr must not decrease and every col must be in 0..", a.n_cols - 1,
                    ", got an entry outside");
}

template <typename F>
void dispatch(const Tensor& x, const Tensor& rowptr, const F& f) {
  if (x.scalar_type() == at::kFloat) {
    rowptr.scalar_type() == at::kInt ? f(float(), int32_t()) : f(float(), int64_t());
  } else {
    rowptr.scalar_type() == at::kInt ? f(double(), int32_t()) : f(double(), int64_t());
  }
}

// Contiguous copies (or the tensors themselves) that live as long as the raw view of them.
struct CsrTensors {
  Tensor rowptr, col, weight;
  CsrTensors(const Tensor& r, const Tensor& c, const Tensor& w)
      : rowptr(r.contiguous()), col(c.contiguous()), weight(w.contiguous()) {}
  template <typename T, typename I>
  CsrMatrix<T, I> view(int64_t n_cols) const {
    return {rowptr.const_data_ptr<I>(),
            col.const_data_ptr<I>(),
            weight.const_data_ptr<T>(),
            rowptr.size(0) - 1,
            n_cols,
            col.size(0)};
  }
};

Tensor spmm_cpu(const Tensor& rowptr, const Tensor& col, const Tensor& weight, const Tensor& t_rowptr,
                const Tensor& t_col, const Tensor& t_weight, const Tensor& x) {
  check_spmm("spmm", rowptr, col, weight, t_rowptr, t_col, t_weight, x);
  const CsrTensors csr(rowptr, col, weight);
  const Tensor dense = x.contiguous();
  Tensor y = empty_output({rowptr.size(0) - 1, x.size(1)}, x.options());
  dispatch(x, rowptr, [&](auto t, auto i) {
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
  Tensor layer = first;
  // The sum over A^0 x .. A^L x by Horner's scheme, y <- x + A y: nothing but the latest y is written, and two buffers
  // take turns.
  Tensor spare[2];
  for (int64_t l = 1; l <= n_layers; ++l) {
    Tensor& next = spare[l % 2];
    if (!next.defined()) next = empty_output(first.sizes(), x.options());
    dispatch(x, rowptr, [&](auto t, auto i) {
      using T = decltype(t);
      using I = decltype(i);
      SpmmOutput<T> out{nullptr, nullptr, nullptr, T(1)};
      if (mean) {
        out.addend = first.const_data_ptr<T>();
        out.sum = next.mutable_data_ptr<T>();
        if (l == n_layers) out.scale = T(1) / static_cast<T>(n_layers + 1);
      } else {
        out.product = next.mutable_data_ptr<T>();
      }
      run_spmm<T, I>("propagate", csr.view<T, I>(x.size(0)), layer.const_data_ptr<T>(), x.size(1), out);
    });
    layer = next;
  }
  return layer;
}

}  // namespace

TORCH_LIBRARY_IMPL(smore_ext, CPU, m) {
  m.impl("spmm", &spmm_cpu);
  m.impl("propagate", &propagate_cpu);
}

}  // namespace smore
