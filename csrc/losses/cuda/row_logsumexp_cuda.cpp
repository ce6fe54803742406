// CUDA binding of row_logsumexp.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <limits>

#include "common/dispatch.h"
#include "losses/cuda/row_logsumexp_kernel.h"
#include "losses/row_logsumexp.h"

namespace smore {
namespace {

using at::Tensor;

template <typename T>
cuda::LseInput<T> lse_input(const Tensor& a, const Tensor& b) {
  return {a.const_data_ptr<T>(), b.const_data_ptr<T>(), a.size(0), b.size(0), a.size(1)};
}

Tensor row_logsumexp_cuda(const Tensor& a, const Tensor& b) {
  check_row_logsumexp("row_logsumexp", a, b);
  const c10::cuda::CUDAGuard guard(a.device());
  const int64_t n = a.size(0), m = b.size(0);
  if (n == 0 || m == 0) return at::full({n}, -std::numeric_limits<double>::infinity(), a.options());
  const Tensor rows = a.contiguous(), columns = b.contiguous();
  Tensor log_sum = at::empty({n}, a.options());
  dispatch_floating(a, [&](auto t) {
    using T = decltype(t);
    Tensor scratch = at::empty({cuda::lse_forward_scratch<T>(n, m, a.size(1))}, a.options());
    cuda::lse_forward<T>(lse_input<T>(rows, columns), log_sum.mutable_data_ptr<T>(), scratch.mutable_data_ptr<T>(),
                         c10::cuda::getCurrentCUDAStream());
  });
  return log_sum;
}

std::tuple<Tensor, Tensor> row_logsumexp_backward_cuda(const Tensor& grad, const Tensor& a, const Tensor& b,
                                                       const Tensor& log_sum) {
  check_row_logsumexp_backward(grad, a, b, log_sum);
  const c10::cuda::CUDAGuard guard(a.device());
  const int64_t n = a.size(0), m = b.size(0), d = a.size(1);
  if (n == 0 || m == 0 || d == 0) return {at::zeros(a.sizes(), a.options()), at::zeros(b.sizes(), b.options())};
  const Tensor rows = a.contiguous(), columns = b.contiguous();
  const Tensor weight = grad.contiguous(), log_sums = log_sum.contiguous();
  Tensor grad_a = at::empty(a.sizes(), a.options()), grad_b = at::empty(b.sizes(), b.options());
  dispatch_floating(a, [&](auto t) {
    using T = decltype(t);
    Tensor scratch = at::empty({cuda::lse_backward_scratch<T>(n, m, d)}, a.options());
    cuda::lse_backward<T>(lse_input<T>(rows, columns), weight.const_data_ptr<T>(), log_sums.const_data_ptr<T>(),
                          grad_a.mutable_data_ptr<T>(), grad_b.mutable_data_ptr<T>(), scratch.mutable_data_ptr<T>(),
                          c10::cuda::getCurrentCUDAStream());
  });
  return {grad_a, grad_b};
}

}  // namespace

TORCH_LIBRARY_IMPL(smore_ext, CUDA, m) {
  row_logsumexp_op::bind(m, &row_logsumexp_cuda);
  row_logsumexp_backward_op::bind(m, &row_logsumexp_backward_cuda);
}

}  // namespace smore
