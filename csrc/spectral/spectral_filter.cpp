// The contract of both spectral ops is in spectral/spectral.h.
#include "spectral/spectral.h"

#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

namespace smore {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Keep = std::optional<int64_t>;

struct SpectralFilter : torch::autograd::Function<SpectralFilter> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight, Keep keep) {
    ctx->save_for_backward({x, weight});
    ctx->saved_data["keep"] = keep;
    at::AutoDispatchBelowADInplaceOrView guard;
    return spectral_filter_op::call(x, weight, keep);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const Keep keep = ctx->saved_data["keep"].toOptional<int64_t>();
    auto [grad_x, grad_weight] = spectral_filter_backward_op::call(grads[0], saved[0], saved[1], keep);
    return {grad_x, grad_weight, Tensor()};
  }
};

Tensor spectral_filter_autograd(const Tensor& x, const Tensor& weight, Keep keep) {
  const Tensor real = real_filter(weight);
  check_spectral_filter(x, real, keep);
  return SpectralFilter::apply(x, real, keep);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(smore_ext, m) {
  m.def("spectral_filter(Tensor x, Tensor weight, int? keep=None) -> Tensor");
  m.def("spectral_filter_backward(Tensor grad, Tensor x, Tensor weight, int? keep=None) -> (Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(smore_ext, Autograd, m) {
  spectral_filter_op::bind(m, &spectral_filter_autograd);
  // Double backward is not offered: asking for it raises instead of giving a wrong zero.
  m.impl("spectral_filter_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace smore
