#include "tables/table_linear.h"

#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

namespace smore {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct TableLinear : torch::autograd::Function<TableLinear> {
  static Tensor forward(AutogradContext* ctx, const Tensor& table, const Tensor& weight, const Tensor& bias) {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({table, weight});
    return table_linear_op::call(table, weight, bias);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    variable_list out(3);
    if (ctx->needs_input_grad(0)) out[0] = at::mm(grads[0], saved[1]);
    if (ctx->needs_input_grad(1) || ctx->needs_input_grad(2))
      std::tie(out[1], out[2]) = table_linear_backward_op::call(grads[0], saved[0]);
    return out;
  }
};

Tensor table_linear_autograd(const Tensor& table, const Tensor& weight, const Tensor& bias) {
  check_table_linear(table, weight, bias);
  return TableLinear::apply(table, weight, bias);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(smore_ext, m) {
  m.def("table_linear(Tensor table, Tensor weight, Tensor bias) -> Tensor");
  m.def("table_linear_backward(Tensor grad, Tensor table) -> (Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(smore_ext, Autograd, m) {
  table_linear_op::bind(m, &table_linear_autograd);
  m.impl("table_linear_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace smore
