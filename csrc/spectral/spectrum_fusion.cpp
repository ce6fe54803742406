// The contract of both spectral ops is in spectral/spectral.h.
#include "spectral/spectral.h"

#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

namespace smore {
namespace {

using at::Tensor;
using at::TensorList;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Keep = std::optional<int64_t>;

// Inputs are M arrays, M filters (or none) and the fusion filter; outputs an array a filter and the fused one. Only the
// inputs are kept: backward computes the spectra again, which costs less than reading them back.
struct SpectrumFusion : torch::autograd::Function<SpectrumFusion> {
  static variable_list forward(AutogradContext* ctx, TensorList xs, TensorList weights, const Tensor& fusion_weight,
                               Keep keep) {
    variable_list saved(xs.begin(), xs.end());
    saved.insert(saved.end(), weights.begin(), weights.end());
    saved.push_back(fusion_weight);
    ctx->save_for_backward(saved);
    ctx->saved_data["keep"] = keep;
    at::AutoDispatchBelowADInplaceOrView guard;
    auto [filtered, fused] = spectrum_fusion_op::call(xs, weights, fusion_weight, keep);
    filtered.push_back(fused);
    return filtered;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const size_t filters = grads.size() - 1, arrays = saved.size() - 1 - filters;
    const TensorList all(saved);
    auto [grad_xs, grad_weights, grad_fusion] = spectrum_fusion_backward_op::call(
        TensorList(grads).slice(0, filters), grads[filters], all.slice(0, arrays), all.slice(arrays, filters),
        saved.back(), ctx->saved_data["keep"].toOptional<int64_t>());
    variable_list result = std::move(grad_xs);
    result.insert(result.end(), grad_weights.begin(), grad_weights.end());
    result.insert(result.end(), {grad_fusion, Tensor()});
    return result;
  }
};

std::tuple<std::vector<Tensor>, Tensor> spectrum_fusion_autograd(TensorList xs, TensorList weights,
                                                                 const Tensor& fusion_weight, Keep keep) {
  const std::vector<Tensor> real = real_filters(weights);
  const Tensor fusion = real_filter(fusion_weight);
  check_spectrum_fusion(xs, real, fusion, keep);
  variable_list outputs = SpectrumFusion::apply(xs, TensorList(real), fusion, keep);
  Tensor fused = outputs.back();
  outputs.pop_back();
  return {std::move(outputs), fused};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(smore_ext, m) {
  m.def("spectrum_fusion(Tensor[] xs, Tensor[] weights, Tensor fusion_weight, int? keep=None) -> (Tensor[], Tensor)");
  m.def(
      "spectrum_fusion_backward(Tensor[] grads, Tensor grad_fused, Tensor[] xs, Tensor[] weights, "
      "Tensor fusion_weight, int? keep=None) -> (Tensor[], Tensor[], Tensor)");
}

TORCH_LIBRARY_IMPL(smore_ext, Autograd, m) {
  spectrum_fusion_op::bind(m, &spectrum_fusion_autograd);
  // Double backward is not offered: asking for it raises instead of giving a wrong zero.
  m.impl("spectrum_fusion_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace smore
