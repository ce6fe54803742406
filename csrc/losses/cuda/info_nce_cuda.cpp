// CUDA binding of info_nce.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "common/dispatch.h"
#include "losses/cuda/info_nce_kernel.h"
#include "losses/info_nce.h"

namespace smore {
namespace {

using at::Tensor;

template <typename T>
std::tuple<Tensor, Tensor> forward(const Tensor& x, const Tensor& y, double temperature) {
  const int64_t n = x.size(0), d = x.size(1);
  Tensor log_sum = at::empty({n}, x.options());
  if (n == 0) return {at::zeros({}, x.options()), log_sum};
  const Tensor left = x.contiguous(), right = y.contiguous();
  Tensor loss = at::empty({}, x.options()), scratch = at::empty({cuda::nce_forward_scratch<T>(n, d)}, x.options());
  cuda::nce_forward<T>({left.const_data_ptr<T>(), right.const_data_ptr<T>(), n, d, temperature},
                       loss.mutable_data_ptr<T>(), log_sum.mutable_data_ptr<T>(), scratch.mutable_data_ptr<T>(),
                       c10::cuda::getCurrentCUDAStream());
  return {loss, log_sum};
}

template <typename T>
std::tuple<Tensor, Tensor> backward(const Tensor& grad, const Tensor& x, const Tensor& y, const Tensor& log_sum,
                                    double temperature) {
  const int64_t n = x.size(0), d = x.size(1);
  Tensor grad_x = at::empty(x.sizes(), x.options()), grad_y = at::empty(x.sizes(), x.options());
  if (n == 0 || d == 0) return {grad_x, grad_y};
  const Tensor left = x.contiguous(), right = y.contiguous(), log_sums = log_sum.contiguous();
  Tensor scratch = at::empty({cuda::nce_backward_scratch<T>(n, d)}, x.options());
  cuda::nce_backward<T>({left.const_data_ptr<T>(), right.const_data_ptr<T>(), n, d, temperature},
                        grad.const_data_ptr<T>(), log_sums.const_data_ptr<T>(), grad_x.mutable_data_ptr<T>(),
                        grad_y.mutable_data_ptr<T>(), scratch.mutable_data_ptr<T>(), c10::cuda::getCurrentCUDAStream());
  return {grad_x, grad_y};
}

std::tuple<Tensor, Tensor> info_nce_cuda(const Tensor& x, const Tensor& y, double temperature) {
  check_info_nce("info_nce", x, y, temperature);
  const c10::cuda::CUDAGuard guard(x.device());
  return dispatch_floating(x, [&](auto t) { return forward<decltype(t)>(x, y, temperature); });
}

std::tuple<Tensor, Tensor> info_nce_backward_cuda(const Tensor& grad, const Tensor& x, const Tensor& y,
                                                  const Tensor& log_sum, double temperature) {
  check_info_nce_backward(grad, x, y, log_sum, temperature);
  const c10::cuda::CUDAGuard guard(x.device());
  return dispatch_floating(x, [&](auto t) { return backward<decltype(t)>(grad, x, y, log_sum, temperature); });
}

}  // namespace

TORCH_LIBRARY_IMPL(smore_ext, CUDA, m) {
  info_nce_op::bind(m, &info_nce_cuda);
  info_nce_backward_op::bind(m, &info_nce_backward_cuda);
  info_nce_counted_op::bind(m, &info_nce_counted_composed);
  info_nce_backward_counted_op::bind(m, &info_nce_backward_counted_composed);
}

}  // namespace smore
