// CPU binding of info_nce: shares blocks of rows out over torch's threads.
#include <ATen/core/Tensor.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "common/dispatch.h"
#include "cpu/aligned.h"
#include "cpu/output.h"
#include "cpu/parallel.h"
#include "losses/cpu/info_nce_kernel.h"
#include "losses/info_nce.h"

namespace smore {
namespace {

using at::Tensor;

// Rows of length one, and the same as panels where they are the columns of a product. Scratch of O(rows x width).
template <typename T>
struct UnitRows {
  AlignedBuffer<T> rows, norm, panels;

  UnitRows(const Tensor& x, bool columns)
      : rows(nce_padded(x.size(0)) * nce_padded(x.size(1))),
        norm(nce_padded(x.size(0))),
        panels(columns ? nce_padded(x.size(0)) * x.size(1) : 0) {
    const int64_t n = x.size(0), d = x.size(1);
    const Tensor dense = x.contiguous();
    const T* from = dense.template const_data_ptr<T>();
    parallel_ranges(nce_padded(n) / kNceBlock, 1, [&](int64_t begin, int64_t end) {
      nce_normalise(from, n, d, rows.get(), norm.get(), begin * kNceBlock, end * kNceBlock);
      if (columns) nce_pack(rows.get(), n, d, panels.get(), begin, end);
    });
  }
};

// How often each row occurs, as numbers to calculate with, and how many that makes; without counts, once each.
template <typename T>
struct Occurrences {
  std::vector<T> of;
  double total;

  Occurrences(const std::optional<Tensor>& counts, int64_t n) : total(static_cast<double>(n)) {
    if (!counts) return;
    const Tensor dense = counts->contiguous();
    const int64_t* from = dense.const_data_ptr<int64_t>();
    of.resize(static_cast<size_t>(nce_padded(n)));
    total = 0;
    for (int64_t i = 0; i < n; ++i) {
      SMORE_CHECK_VALUE(from[i] >= 1, "info_nce", "counts must be at least 1, got ", from[i], " at position ", i);
      of[static_cast<size_t>(i)] = static_cast<T>(from[i]);
      total += static_cast<double>(from[i]);
    }
  }
  const T* data() const { return of.empty() ? nullptr : of.data(); }
};

template <typename T>
std::tuple<Tensor, Tensor> forward(const Tensor& x, const Tensor& y, const std::optional<Tensor>& counts,
                                   double temperature) {
  const int64_t n = x.size(0), blocks = nce_padded(n) / kNceBlock;
  const Occurrences<T> occurrences(counts, n);
  const UnitRows<T> ux(x, false), uy(y, true);
  Tensor lse = at::zeros({nce_padded(n)}, x.options());
  std::vector<T> loss(static_cast<size_t>(n));
  const NceForward<T> job{ux.rows.get(),     uy.rows.get(), uy.panels.get(),           n,
                          x.size(1),         temperature,   lse.mutable_data_ptr<T>(), loss.data(),
                          occurrences.data()};
  parallel_ranges(blocks, 1, [&](int64_t begin, int64_t end) { nce_forward(job, begin, end); });
  double sum = 0;
  for (const T value : loss) sum += static_cast<double>(value);
  return {scalar_output<T>(n > 0 ? sum / occurrences.total : 0.0, x.options()), lse.narrow(0, 0, n).clone()};
}

template <typename T>
std::tuple<Tensor, Tensor> backward(const Tensor& grad, const Tensor& x, const Tensor& y,
                                    const std::optional<Tensor>& counts, const Tensor& lse, double temperature) {
  const int64_t n = x.size(0), d = x.size(1);
  const Occurrences<T> occurrences(counts, n);
  const UnitRows<T> ux(x, false), uy(y, true);
  Tensor grad_x = empty_output(x.sizes(), x.options()), grad_y = empty_output(x.sizes(), x.options());
  if (n == 0) return {grad_x, grad_y};
  const double scale = static_cast<double>(*grad.const_data_ptr<T>()) / (occurrences.total * temperature);
  const Tensor log_sum = at::constant_pad_nd(lse, {0, nce_padded(n) - n});
  Tensor partial = empty_output({nce_stripes(n), nce_padded(n), nce_padded(d)}, x.options());
  const NceBackward<T> job{ux.rows.get(),
                           ux.norm.get(),
                           uy.rows.get(),
                           uy.panels.get(),
                           log_sum.const_data_ptr<T>(),
                           n,
                           d,
                           temperature,
                           scale,
                           grad_x.mutable_data_ptr<T>(),
                           partial.mutable_data_ptr<T>(),
                           occurrences.data()};
  parallel_ranges(nce_stripes(n), 1, [&](int64_t begin, int64_t end) { nce_backward(job, begin, end); });
  const NceFinish<T> finish{partial.const_data_ptr<T>(), uy.rows.get(), uy.norm.get(), n, d, scale,
                            grad_y.mutable_data_ptr<T>()};
  parallel_ranges(n, 64, [&](int64_t begin, int64_t end) { nce_finish(finish, begin, end); });
  return {grad_x, grad_y};
}

std::tuple<Tensor, Tensor> info_nce_cpu(const Tensor& x, const Tensor& y, double temperature) {
  check_info_nce("info_nce", x, y, temperature);
  return dispatch_floating(x, [&](auto t) { return forward<decltype(t)>(x, y, std::nullopt, temperature); });
}

std::tuple<Tensor, Tensor> info_nce_backward_cpu(const Tensor& grad, const Tensor& x, const Tensor& y,
                                                 const Tensor& log_sum, double temperature) {
  check_info_nce_backward(grad, x, y, log_sum, temperature);
  return dispatch_floating(
      x, [&](auto t) { return backward<decltype(t)>(grad, x, y, std::nullopt, log_sum, temperature); });
}

std::tuple<Tensor, Tensor> info_nce_counted_cpu(const Tensor& x, const Tensor& y, const Tensor& counts,
                                                double temperature) {
  check_info_nce_counted("info_nce", x, y, counts, temperature);
  return dispatch_floating(x, [&](auto t) { return forward<decltype(t)>(x, y, counts, temperature); });
}

std::tuple<Tensor, Tensor> info_nce_backward_counted_cpu(const Tensor& grad, const Tensor& x, const Tensor& y,
                                                         const Tensor& counts, const Tensor& log_sum,
                                                         double temperature) {
  check_info_nce_backward(grad, x, y, log_sum, temperature);
  check_info_nce_counted("info_nce_backward", x, y, counts, temperature);
  return dispatch_floating(x, [&](auto t) { return backward<decltype(t)>(grad, x, y, counts, log_sum, temperature); });
}

}  // namespace

TORCH_LIBRARY_IMPL(smore_ext, CPU, m) {
  info_nce_op::bind(m, &info_nce_cpu);
  info_nce_backward_op::bind(m, &info_nce_backward_cpu);
  info_nce_counted_op::bind(m, &info_nce_counted_cpu);
  info_nce_backward_counted_op::bind(m, &info_nce_backward_counted_cpu);
}

}  // namespace smore
