#include "losses/row_logsumexp.h"

#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

namespace smore {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct RowLogSumExp : torch::autograd::Function<RowLogSumExp> {
  static Tensor forward(AutogradContext* ctx, const Tensor& a, const Tensor& b) {
    at::AutoDispatchBelowADInplaceOrView guard;
    Tensor log_sum = row_logsumexp_op::call(a, b);
    ctx->save_for_backward({a, b, log_sum});
    return log_sum;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    auto [grad_a, grad_b] = row_logsumexp_backward_op::call(grads[0], saved[0], saved[1], saved[2]);
    return {grad_a, grad_b};
  }
};

Tensor row_logsumexp_autograd(const Tensor& a, const Tensor& b) {
  check_row_logsumexp("row_logsumexp", a, b);
  return RowLogSumExp::apply(a, b);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(smore_ext, m) {
  m.def("row_logsumexp(Tensor a, Tensor b) -> Tensor");
  m.def("row_logsumexp_backward(Tensor grad, Tensor a, Tensor b, Tensor log_sum) -> (Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(smore_ext, Autograd, m) {
  row_logsumexp_op::bind(m, &row_logsumexp_autograd);
  m.impl("row_logsumexp_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace smore
