// Contract of spectral_filter and spectrum_fusion, shared by every device. docs/spec.md, section 1, step 2: spectrum
// modality fusion (paper 3.2).
//
// x: [.., d], any number of leading dimensions and of rows, d >= 1. weight: [d/2+1, 2] or, as published, [1, d/2+1, 2]:
// the real view of a complex filter (a complex [d/2+1] or [1, d/2+1] tensor is taken as its real view). With
// S = rfft(x, norm="ortho") a filtered row is irfft(S * w), the fused row irfft(prod S_m * w_f). The imaginary parts of
// bin 0, and of bin d/2 for even d, have no effect and receive a gradient of exactly zero; so do, with keep = n, all
// bins from n on, which are taken for zero. The fusion may come without filters of its arrays: then only the fused
// array is made.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/view_as_real.h>

#include <cmath>

#include "common/check.h"
#include "common/op.h"

namespace smore {

SMORE_OP(spectral_filter, at::Tensor(const at::Tensor& x, const at::Tensor& weight, std::optional<int64_t> keep));
SMORE_OP(spectral_filter_backward,
         std::tuple<at::Tensor, at::Tensor>(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight,
                                            std::optional<int64_t> keep));
SMORE_OP(spectrum_fusion,
         std::tuple<std::vector<at::Tensor>, at::Tensor>(at::TensorList xs, at::TensorList weights,
                                                         const at::Tensor& fusion_weight, std::optional<int64_t> keep));
SMORE_OP(spectrum_fusion_backward,
         std::tuple<std::vector<at::Tensor>, std::vector<at::Tensor>, at::Tensor>(
             at::TensorList grads, const at::Tensor& grad_fused, at::TensorList xs, at::TensorList weights,
             const at::Tensor& fusion_weight, std::optional<int64_t> keep));

// A filter as the kernels take it: real, [d/2+1, 2] or [1, d/2+1, 2].
inline at::Tensor real_filter(const at::Tensor& weight) {
  return weight.is_complex() ? at::view_as_real(weight.resolve_conj()) : weight;
}

inline std::vector<at::Tensor> real_filters(at::TensorList weights) {
  std::vector<at::Tensor> result;
  for (const at::Tensor& w : weights) result.push_back(real_filter(w));
  return result;
}

inline std::vector<at::Tensor> all_to(at::TensorList list, at::ScalarType type) {
  std::vector<at::Tensor> result;
  for (const at::Tensor& t : list) result.push_back(t.to(type));
  return result;
}

// Rows of x lie along its last dimension.
inline int64_t row_length(const at::Tensor& x) { return x.size(-1); }
inline int64_t row_count(const at::Tensor& x) { return x.numel() / row_length(x); }
inline int64_t kept_bins(const at::Tensor& x, std::optional<int64_t> keep) {
  return keep.value_or(row_length(x) / 2 + 1);
}

inline void check_filter(const char* op, const char* name, const at::Tensor& weight, const at::Tensor& x) {
  check_same_type(op, name, weight, "x", x);
  check_same_device(op, name, weight, "x", x);
  const c10::SymInt published[] = {1, x.sym_size(-1) / 2 + 1, 2};
  const c10::SymIntArrayRef shape(published);
  check_shape(op, name, weight, weight.dim() == 3 ? shape : shape.slice(1));
}

inline void check_rows(const char* op, const at::Tensor& x, std::optional<int64_t> keep) {
  check_floating(op, "x", x);
  SMORE_CHECK_VALUE(x.dim() >= 1, op, "x must have at least 1 dimension, got shape ", x.sym_sizes());
  SMORE_CHECK_VALUE(x.sym_size(-1) >= 1, op, "x must have at least 1 column, got shape ", x.sym_sizes());
  if (!keep.has_value()) return;
  const c10::SymInt bins = x.sym_size(-1) / 2 + 1;
  SMORE_CHECK_VALUE(*keep >= 1 && bins >= *keep, op, "keep must be a number of frequencies in 1..", bins, ", got ",
                    *keep);
}

inline void check_spectral_filter(const at::Tensor& x, const at::Tensor& weight, std::optional<int64_t> keep) {
  check_rows("spectral_filter", x, keep);
  check_filter("spectral_filter", "weight", weight, x);
}

inline void check_spectrum_fusion(at::TensorList xs, at::TensorList weights, const at::Tensor& fusion_weight,
                                  std::optional<int64_t> keep) {
  constexpr const char* op = "spectrum_fusion";
  SMORE_CHECK_VALUE(!xs.empty(), op, "xs must hold at least one tensor, got none");
  SMORE_CHECK_VALUE(weights.empty() || weights.size() == xs.size(), op,
                    "weights must hold one filter per tensor of xs (", xs.size(), ") or none, got ", weights.size());
  check_rows(op, xs[0], keep);
  for (size_t m = 0; m < xs.size(); ++m) {
    const std::string name = "xs[" + std::to_string(m) + "]";
    check_same_type(op, name.c_str(), xs[m], "xs[0]", xs[0]);
    check_same_device(op, name.c_str(), xs[m], "xs[0]", xs[0]);
    check_shape(op, name.c_str(), xs[m], xs[0].sym_sizes());
  }
  for (size_t m = 0; m < weights.size(); ++m) {
    check_filter(op, ("weights[" + std::to_string(m) + "]").c_str(), weights[m], xs[0]);
  }
  check_filter(op, "fusion_weight", fusion_weight, xs[0]);
}

// Bits of the largest number that a product of the spectra may reach: kernels scale rows to 1, so that no bin is above
// 2 d, and the filter of the fusion brings the product back.
inline double product_bits(at::TensorList xs) {
  return static_cast<double>(xs.size()) * std::log2(2.0 * static_cast<double>(row_length(xs[0])));
}

// A fusion whose product would leave the range of float32 is made in float64.
inline bool beyond_float(at::TensorList xs) { return xs[0].scalar_type() == at::kFloat && product_bits(xs) > 100; }

inline void check_product(const char* op, at::TensorList xs) {
  constexpr double kMost = 1000;
  SMORE_CHECK_VALUE(product_bits(xs) <= kMost, op, "xs must hold at most ",
                    static_cast<int64_t>(kMost / product_bits(xs[0])), " tensors of width ", row_length(xs[0]),
                    ", whose product float64 can hold, got ", xs.size());
}

inline void check_gradient(const char* op, const char* name, const at::Tensor& grad, const char* x_name,
                           const at::Tensor& x) {
  check_shape(op, name, grad, x.sym_sizes());
  check_same_type(op, name, grad, x_name, x);
  check_same_device(op, name, grad, x_name, x);
}

inline void check_spectral_filter_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight,
                                           std::optional<int64_t> keep) {
  check_spectral_filter(x, weight, keep);
  check_gradient("spectral_filter_backward", "grad", grad, "x", x);
}

inline void check_spectrum_fusion_backward(at::TensorList grads, const at::Tensor& grad_fused, at::TensorList xs,
                                           at::TensorList weights, const at::Tensor& fusion_weight,
                                           std::optional<int64_t> keep) {
  constexpr const char* op = "spectrum_fusion_backward";
  check_spectrum_fusion(xs, weights, fusion_weight, keep);
  SMORE_CHECK_VALUE(grads.size() == weights.size(), op, "grads must hold one tensor per filter of weights (",
                    weights.size(), "), got ", grads.size());
  for (const at::Tensor& g : grads) check_gradient(op, "grads", g, "xs[0]", xs[0]);
  check_gradient(op, "grad_fused", grad_fused, "xs[0]", xs[0]);
}

}  // namespace smore
