#include "losses/info_nce.h"

#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

namespace smore {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct InfoNce : torch::autograd::Function<InfoNce> {
  static variable_list forward(AutogradContext* ctx, const Tensor& x, const Tensor& y, double temperature) {
    at::AutoDispatchBelowADInplaceOrView guard;
    auto [loss, lse] = info_nce_op::call(x, y, temperature);
    ctx->save_for_backward({x, y, lse});
    ctx->saved_data["temperature"] = temperature;
    ctx->mark_non_differentiable({lse});
    return {loss, lse};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    auto [grad_x, grad_y] =
        info_nce_backward_op::call(grads[0], saved[0], saved[1], saved[2], ctx->saved_data["temperature"].toDouble());
    return {grad_x, grad_y, Tensor()};
  }
};

std::tuple<Tensor, Tensor> info_nce_autograd(const Tensor& x, const Tensor& y, double temperature) {
  check_info_nce("info_nce", x, y, temperature);
  const variable_list outputs = InfoNce::apply(x, y, temperature);
  return {outputs[0], outputs[1]};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(smore_ext, m) {
  m.def("info_nce(Tensor x, Tensor y, float temperature) -> (Tensor, Tensor)");
  m.def(
      "info_nce_backward(Tensor grad, Tensor x, Tensor y, Tensor log_sum, float temperature) -> (Tensor, "
      "Tensor)");
}

TORCH_LIBRARY_IMPL(smore_ext, Autograd, m) {
  info_nce_op::bind(m, &info_nce_autograd);
  m.impl("info_nce_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace smore
