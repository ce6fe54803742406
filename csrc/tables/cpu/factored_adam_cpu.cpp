// CPU binding of factored_adam_: packs the factor once and shares blocks of rows out over torch's threads.
#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include <cmath>

#include "common/dispatch.h"
#include "cpu/aligned.h"
#include "cpu/parallel.h"
#include "tables/cpu/factored_adam_kernel.h"
#include "tables/factored_adam.h"

namespace smore {
namespace {

using at::Tensor;

template <typename T>
void run(const Tensor& param, const Tensor& exp_avg, const Tensor& exp_avg_sq, const Tensor& grad_rows,
         const Tensor& factor, double step, double lr, double beta1, double beta2, double eps) {
  const int64_t n = param.size(0), width = param.size(1), d = factor.size(0);
  const Tensor rows = grad_rows.contiguous(), dense = factor.contiguous();
  const T* from = dense.const_data_ptr<T>();
  const int64_t panels = adam_panels<T>(width);
  const AlignedBuffer<T> packed(panels * adam_panel_elements<T>(d));
  parallel_ranges(panels, 4, [&](int64_t begin, int64_t end) { adam_pack(from, d, width, packed.get(), begin, end); });
  const FactoredAdam<T> job{param.mutable_data_ptr<T>(),
                            exp_avg.mutable_data_ptr<T>(),
                            exp_avg_sq.mutable_data_ptr<T>(),
                            rows.const_data_ptr<T>(),
                            packed.get(),
                            n,
                            width,
                            d,
                            lr / (1 - std::pow(beta1, step)),
                            beta1,
                            beta2,
                            std::sqrt(1 - std::pow(beta2, step)),
                            eps};
  parallel_ranges((n + kAdamRows - 1) / kAdamRows, 1,
                  [&](int64_t begin, int64_t end) { factored_adam(job, begin, end); });
}

double value_of(const Tensor& scalar) {
  return dispatch_floating(scalar, [&](auto t) { return double(*scalar.const_data_ptr<decltype(t)>()); });
}

void factored_adam_cpu(const Tensor& param, const Tensor& exp_avg, const Tensor& exp_avg_sq, const Tensor& grad_rows,
                       const Tensor& factor, const Tensor& step, double lr, double beta1, double beta2, double eps,
                       const std::optional<Tensor>& lr_tensor) {
  check_learning_rate(lr_tensor);
  if (lr_tensor.has_value()) lr = value_of(*lr_tensor);
  check_factored_adam(param, exp_avg, exp_avg_sq, grad_rows, factor, step, lr, beta1, beta2, eps);
  const double t = value_of(step);
  SMORE_CHECK_VALUE(t >= 1, "factored_adam_", "step must be at least 1, got ", t);
  if (param.numel() == 0) return;
  dispatch_floating(param, [&](auto type) {
    run<decltype(type)>(param, exp_avg, exp_avg_sq, grad_rows, factor, t, lr, beta1, beta2, eps);
  });
}

}  // namespace

TORCH_LIBRARY_IMPL(smore_ext, CPU, m) { factored_adam__op::bind(m, &factored_adam_cpu); }

}  // namespace smore
