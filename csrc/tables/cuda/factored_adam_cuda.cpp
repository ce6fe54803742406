// CUDA binding of factored_adam_.
#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "common/dispatch.h"
#include "cuda/capture.h"
#include "tables/cuda/factored_adam_kernel.h"
#include "tables/factored_adam.h"

namespace smore {
namespace {

using at::Tensor;

constexpr const char* kOp = "factored_adam_";

// One element for the kernel to read. Its value is read back for the checks, except while a graph is captured: then
// nothing can be, and `unknown` stands in.
cuda::Scalar read(const char* name, const Tensor& scalar, const Tensor& param, double unknown) {
  if (scalar.is_cpu()) return {scalar.item().toDouble()};
  check_same_device(kOp, name, scalar, "param", param);
  cuda::Scalar out{cuda::capturing() ? unknown : scalar.item().toDouble()};
  if (scalar.scalar_type() == at::kFloat) {
    out.float_on_device = scalar.const_data_ptr<float>();
  } else {
    out.double_on_device = scalar.const_data_ptr<double>();
  }
  return out;
}

template <typename T>
void run(const Tensor& param, const Tensor& exp_avg, const Tensor& exp_avg_sq, const Tensor& grad_rows,
         const Tensor& factor, const cuda::Scalar& step, const cuda::Scalar& lr, double beta1, double beta2,
         double eps) {
  const int64_t n = param.size(0), width = param.size(1);
  const Tensor rows = grad_rows.contiguous(), dense = factor.contiguous();
  const cuda::FactoredAdam<T> job{param.mutable_data_ptr<T>(),
                                  exp_avg.mutable_data_ptr<T>(),
                                  exp_avg_sq.mutable_data_ptr<T>(),
                                  rows.const_data_ptr<T>(),
                                  dense.const_data_ptr<T>(),
                                  n,
                                  width,
                                  factor.size(0),
                                  beta1,
                                  beta2,
                                  eps,
                                  step,
                                  lr};
  cuda::factored_adam(job, cuda::adam_rounds<T>(n, width), c10::cuda::getCurrentCUDAStream());
}

void factored_adam_cuda(const Tensor& param, const Tensor& exp_avg, const Tensor& exp_avg_sq, const Tensor& grad_rows,
                        const Tensor& factor, const Tensor& step, double lr, double beta1, double beta2, double eps,
                        const std::optional<Tensor>& lr_tensor) {
  check_learning_rate(lr_tensor);
  check_factored_adam(param, exp_avg, exp_avg_sq, grad_rows, factor, step, lr, beta1, beta2, eps);
  const c10::cuda::CUDAGuard guard(param.device());
  cuda::Scalar rate{lr};
  if (lr_tensor.has_value()) {
    rate = read("lr", *lr_tensor, param, 0);
    check_factored_adam(param, exp_avg, exp_avg_sq, grad_rows, factor, step, rate.value, beta1, beta2, eps);
  }
  const cuda::Scalar number = read("step", step, param, 1);
  SMORE_CHECK_VALUE(number.value >= 1, kOp, "step must be at least 1, got ", number.value);
  if (param.numel() == 0) return;
  dispatch_floating(param, [&](auto type) {
    run<decltype(type)>(param, exp_avg, exp_avg_sq, grad_rows, factor, number, rate, beta1, beta2, eps);
  });
}

}  // namespace

TORCH_LIBRARY_IMPL(smore_ext, CUDA, m) { factored_adam__op::bind(m, &factored_adam_cuda); }

}  // namespace smore
