#include "neighbours/cosine_at.h"

#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

namespace smore {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<at::Tensor>;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct CosineAt : torch::autograd::Function<CosineAt> {
  static Tensor forward(AutogradContext* ctx, const Tensor& features, const Tensor& index, const OptionalTensor& base) {
    at::AutoDispatchBelowADInplaceOrView guard;
    const Tensor similarity = cosine_at_op::call(features, index, base);
    variable_list saved{features, index, similarity};
    if (base.has_value()) saved.push_back(*base);
    ctx->save_for_backward(saved);
    return similarity;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const OptionalTensor base = saved.size() > 3 ? OptionalTensor(saved[3]) : std::nullopt;
    const bool of_features = ctx->needs_input_grad(0), of_base = base.has_value() && ctx->needs_input_grad(2);
    const auto [grad_features, grad_base] =
        cosine_at_backward_op::call(grads[0], saved[0], saved[1], base, saved[2], of_features, of_base);
    return {of_features ? grad_features : Tensor(), Tensor(), of_base ? grad_base : Tensor()};
  }
};

Tensor cosine_at_autograd(const Tensor& features, const Tensor& index, const OptionalTensor& base) {
  check_cosine_at("cosine_at", features, index, base);
  return CosineAt::apply(features, index, base);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(smore_ext, m) {
  m.def("cosine_at(Tensor features, Tensor index, Tensor? base=None) -> Tensor");
  m.def(
      "cosine_at_backward(Tensor grad, Tensor features, Tensor index, Tensor? base, Tensor similarity, "
      "bool of_features=True, bool of_base=True) -> (Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(smore_ext, Autograd, m) {
  cosine_at_op::bind(m, &cosine_at_autograd);
  m.impl("cosine_at_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace smore
