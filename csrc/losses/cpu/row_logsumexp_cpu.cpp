// CPU binding of row_logsumexp: shares blocks of rows out over torch's threads.
#include <ATen/core/Tensor.h>
#include <ATen/ops/constant_pad_nd.h>
#include <torch/library.h>

#include <cmath>
#include <limits>

#include "common/dispatch.h"
#include "cpu/aligned.h"
#include "cpu/output.h"
#include "cpu/parallel.h"
#include "losses/cpu/row_logsumexp_kernel.h"
#include "losses/row_logsumexp.h"

namespace smore {
namespace {

using at::Tensor;

// Rows padded to whole blocks, times their weights if there are any. Scratch of O(rows x width).
template <typename T>
struct PaddedRows {
  int64_t n, d;
  AlignedBuffer<T> rows, norm;

  explicit PaddedRows(const Tensor& x, const T* weight = nullptr)
      : n(x.size(0)), d(x.size(1)), rows(nce_padded(n) * nce_padded(d)), norm(nce_padded(n)) {
    const Tensor dense = x.contiguous();
    const T* from = dense.template const_data_ptr<T>();
    parallel_ranges(nce_padded(n) / kNceBlock, 1, [&](int64_t begin, int64_t end) {
      lse_rows(from, weight, n, d, rows.get(), norm.get(), begin * kNceBlock, end * kNceBlock);
    });
  }

  // Infinite where one is not finite: then no shift is known.
  double largest_norm() const {
    double largest = 0;
    for (int64_t i = 0; i < n; ++i) {
      const double value = static_cast<double>(norm.get()[i]);
      largest = std::isfinite(value) ? std::max(largest, value) : std::numeric_limits<double>::infinity();
    }
    return largest;
  }
};

// The same rows as panels, where they are the columns of a product.
template <typename T>
struct Panels {
  AlignedBuffer<T> data;

  explicit Panels(const PaddedRows<T>& x) : data(nce_padded(x.n) * x.d) {
    parallel_ranges(nce_padded(x.n) / kNceBlock, 1,
                    [&](int64_t begin, int64_t end) { nce_pack(x.rows.get(), x.n, x.d, data.get(), begin, end); });
  }
};

template <typename T>
Tensor log_sums(const Tensor& a, const Tensor& b) {
  const int64_t n = a.size(0);
  const PaddedRows<T> rows(a), columns(b);
  const Panels<T> panels(columns);
  Tensor log_sum = empty_output({n}, a.options());
  const LseForward<T> job{rows.rows.get(),
                          rows.norm.get(),
                          panels.data.get(),
                          columns.largest_norm(),
                          n,
                          b.size(0),
                          a.size(1),
                          log_sum.mutable_data_ptr<T>()};
  parallel_ranges(nce_padded(n) / kNceBlock, 1, [&](int64_t begin, int64_t end) { lse_forward(job, begin, end); });
  return log_sum;
}

template <typename T>
std::tuple<Tensor, Tensor> gradients(const Tensor& grad, const Tensor& a, const Tensor& b, const Tensor& log_sum) {
  const int64_t n = a.size(0), m = b.size(0), d = a.size(1);
  Tensor grad_a = empty_output(a.sizes(), a.options()), grad_b = empty_output(b.sizes(), b.options());
  if (n == 0 || m == 0) return {grad_a.zero_(), grad_b.zero_()};
  const Tensor weight = grad.contiguous(), padded = at::constant_pad_nd(log_sum, {0, nce_padded(n) - n});
  const PaddedRows<T> rows(a), weighted(a, weight.const_data_ptr<T>()), columns(b);
  const Panels<T> panels(n >= m ? columns : rows);
  LseBackward<T> job{rows.rows.get(),
                     weighted.rows.get(),
                     columns.rows.get(),
                     panels.data.get(),
                     weight.const_data_ptr<T>(),
                     padded.const_data_ptr<T>(),
                     n,
                     m,
                     d,
                     grad_a.mutable_data_ptr<T>(),
                     grad_b.mutable_data_ptr<T>(),
                     nullptr};
  Tensor partial = empty_output({job.stripes(), nce_padded(job.shorter()), nce_padded(d)}, a.options());
  job.partial = partial.mutable_data_ptr<T>();
  parallel_ranges(job.stripes(), 1, [&](int64_t begin, int64_t end) { lse_backward(job, begin, end); });
  parallel_ranges(job.shorter(), 64, [&](int64_t begin, int64_t end) { lse_finish(job, begin, end); });
  return {grad_a, grad_b};
}

Tensor row_logsumexp_cpu(const Tensor& a, const Tensor& b) {
  check_row_logsumexp("row_logsumexp", a, b);
  return dispatch_floating(a, [&](auto t) { return log_sums<decltype(t)>(a, b); });
}

std::tuple<Tensor, Tensor> row_logsumexp_backward_cpu(const Tensor& grad, const Tensor& a, const Tensor& b,
                                                      const Tensor& log_sum) {
  check_row_logsumexp_backward(grad, a, b, log_sum);
  return dispatch_floating(a, [&](auto t) { return gradients<decltype(t)>(grad, a, b, log_sum); });
}

}  // namespace

TORCH_LIBRARY_IMPL(smore_ext, CPU, m) {
  row_logsumexp_op::bind(m, &row_logsumexp_cpu);
  row_logsumexp_backward_op::bind(m, &row_logsumexp_backward_cpu);
}

}  // namespace smore
