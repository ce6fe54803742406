// CPU binding of table_linear: blocks of rows (forward) and panels of columns (gradient) on torch's threads.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "common/dispatch.h"
#include "cpu/aligned.h"
#include "cpu/output.h"
#include "cpu/parallel.h"
#include "tables/cpu/table_linear_kernel.h"
#include "tables/table_linear.h"

namespace smore {
namespace {

using at::Tensor;

template <typename T>
void forward(const Tensor& table, const Tensor& weight, const Tensor& bias, Tensor& out) {
  const int64_t n = table.size(0), width = table.size(1), d = weight.size(0);
  const AlignedBuffer<T> panels(table_packed_elements<T>(width, d));
  const T* from = weight.const_data_ptr<T>();
  parallel_ranges(table_depth_blocks(width), 1,
                  [&](int64_t begin, int64_t end) { table_pack(from, width, d, panels.get(), begin, end); });
  const TableForward<T> job{table.const_data_ptr<T>(), panels.get(), bias.const_data_ptr<T>(), n, width, d,
                            out.mutable_data_ptr<T>()};
  parallel_ranges((n + kTableRows - 1) / kTableRows, 1,
                  [&](int64_t begin, int64_t end) { table_forward(job, begin, end); });
}

template <typename T>
void backward(const Tensor& grad, const Tensor& table, Tensor& grad_weight, Tensor& grad_bias) {
  const int64_t n = table.size(0), width = table.size(1), d = grad.size(1);
  const T* rows = grad.const_data_ptr<T>();
  const TableWeightGradient<T> job{rows, table.const_data_ptr<T>(), n, width, d, grad_weight.mutable_data_ptr<T>()};
  parallel_ranges(table_panels<T>(width), 4,
                  [&](int64_t begin, int64_t end) { table_weight_gradient(job, begin, end); });
  std::vector<double> sums(static_cast<size_t>(d));
  for (int64_t r = 0; r < n; ++r) {
    for (int64_t c = 0; c < d; ++c) sums[static_cast<size_t>(c)] += static_cast<double>(rows[r * d + c]);
  }
  T* bias = grad_bias.mutable_data_ptr<T>();
  for (int64_t c = 0; c < d; ++c) bias[c] = static_cast<T>(sums[static_cast<size_t>(c)]);
}

Tensor table_linear_cpu(const Tensor& table, const Tensor& weight, const Tensor& bias) {
  check_table_linear(table, weight, bias);
  Tensor out = empty_output({table.size(0), weight.size(0)}, table.options());
  const Tensor t = table.contiguous(), w = weight.contiguous(), b = bias.contiguous();
  dispatch_floating(table, [&](auto type) { forward<decltype(type)>(t, w, b, out); });
  return out;
}

std::tuple<Tensor, Tensor> table_linear_backward_cpu(const Tensor& grad, const Tensor& table) {
  check_table_linear_backward(grad, table);
  Tensor grad_weight = empty_output({grad.size(1), table.size(1)}, table.options());
  Tensor grad_bias = at::empty({grad.size(1)}, table.options());
  const Tensor g = grad.contiguous(), t = table.contiguous();
  dispatch_floating(table, [&](auto type) { backward<decltype(type)>(g, t, grad_weight, grad_bias); });
  return {grad_weight, grad_bias};
}

}  // namespace

TORCH_LIBRARY_IMPL(smore_ext, CPU, m) {
  table_linear_op::bind(m, &table_linear_cpu);
  table_linear_backward_op::bind(m, &table_linear_backward_cpu);
}

}  // namespace smore
