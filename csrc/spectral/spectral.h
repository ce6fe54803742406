// Contract of spectral_filter and spectrum_fusion, shared by every device. docs/spec.md, section 1, step 2: spectrum
// modality fusion (paper 3.2).
//
// x: [N, d], N >= 0, d >= 1. weight: [d/2+1, 2], the real view of a complex filter (a complex [d/2+1] tensor
// is taken as its real view). With S = rfft(x, norm="ortho") a filtered row is irfft(S * w), the fused row
// irfft(prod S_m * w_f). The imaginary parts of bin 0, and of bin d/2 for even d, have no effect and receive
// a gradient of exactly zero.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/view_as_real.h>

#include "common/check.h"
#include "common/op.h"

namespace smore {

SMORE_OP(spectral_filter, at::Tensor(const at::Tensor& x, const at::Tensor& weight));
SMORE_OP(spectral_filter_backward,
         std::tuple<at::Tensor, at::Tensor>(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight));
SMORE_OP(spectrum_fusion, std::tuple<std::vector<at::Tensor>, at::Tensor>(at::TensorList xs, at::TensorList weights,
                                                                          const at::Tensor& fusion_weight));
SMORE_OP(spectrum_fusion_backward, std::tuple<std::vector<at::Tensor>, std::vector<at::Tensor>, at::Tensor>(
                                       at::TensorList grads, const at::Tensor& grad_fused, at::TensorList xs,
                                       at::TensorList weights, const at::Tensor& fusion_weight));

// A filter as the kernels take it: real, [d/2+1, 2].
inline at::Tensor real_filter(const at::Tensor& weight) {
  return weight.is_complex() ? at::view_as_real(weight.resolve_conj()) : weight;
}

inline std::vector<at::Tensor> real_filters(at::TensorList weights) {
  std::vector<at::Tensor> result;
  for (const at::Tensor& w : weights) result.push_back(real_filter(w));
  return result;
}

inline void check_filter(const char* op, const char* name, const at::Tensor& weight, const at::Tensor& x) {
  check_same_type(op, name, weight, "x", x);
  check_same_device(op, name, weight, "x", x);
  check_shape(op, name, weight, {x.size(1) / 2 + 1, 2});
}

inline void check_rows(const char* op, const at::Tensor& x) {
  check_floating(op, "x", x);
  check_dim(op, "x", x, 2);
  SMORE_CHECK_VALUE(x.size(1) >= 1, op, "x must have at least 1 column, got shape ", x.sizes());
}

inline void check_spectral_filter(const at::Tensor& x, const at::Tensor& weight) {
  check_rows("spectral_filter", x);
  check_filter("spectral_filter", "weight", weight, x);
}

inline void check_spectrum_fusion(at::TensorList xs, at::TensorList weights, const at::Tensor& fusion_weight) {
  constexpr const char* op = "spectrum_fusion";
  SMORE_CHECK_VALUE(!xs.empty(), op, "xs must hold at least one tensor, got none");
  SMORE_CHECK_VALUE(weights.size() == xs.size(), op, "weights must hold one filter per tensor of xs (", xs.size(),
                    "), got ", weights.size());
  check_rows(op, xs[0]);
  for (size_t m = 0; m < xs.size(); ++m) {
    const std::string x_name = "xs[" + std::to_string(m) + "]", w_name = "weights[" + std::to_string(m) + "]";
    check_same_type(op, x_name.c_str(), xs[m], "xs[0]", xs[0]);
    check_same_device(op, x_name.c_str(), xs[m], "xs[0]", xs[0]);
    check_shape(op, x_name.c_str(), xs[m], xs[0].sizes());
    check_filter(op, w_name.c_str(), weights[m], xs[0]);
  }
  check_filter(op, "fusion_weight", fusion_weight, xs[0]);
}

inline void check_gradient(const char* op, const char* name, const at::Tensor& grad, const char* x_name,
                           const at::Tensor& x) {
  check_shape(op, name, grad, x.sizes());
  check_same_type(op, name, grad, x_name, x);
  check_same_device(op, name, grad, x_name, x);
}

inline void check_spectral_filter_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight) {
  check_spectral_filter(x, weight);
  check_gradient("spectral_filter_backward", "grad", grad, "x", x);
}

inline void check_spectrum_fusion_backward(at::TensorList grads, const at::Tensor& grad_fused, at::TensorList xs,
                                           at::TensorList weights, const at::Tensor& fusion_weight) {
  constexpr const char* op = "spectrum_fusion_backward";
  check_spectrum_fusion(xs, weights, fusion_weight);
  SMORE_CHECK_VALUE(grads.size() == xs.size(), op, "grads must hold one tensor per tensor of xs (", xs.size(),
                    "), got ", grads.size());
  for (const at::Tensor& g : grads) check_gradient(op, "grads", g, "xs[0]", xs[0]);
  check_gradient(op, "grad_fused", grad_fused, "xs[0]", xs[0]);
}

}  // namespace smore
