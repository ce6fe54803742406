// CPU binding of spectral_filter, spectrum_fusion and their backward ops: shares chunks of rows out over
// torch's threads.
#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "common/dispatch.h"
#include "cpu/output.h"
#include "cpu/parallel.h"
#include "spectral/cpu/spectral_kernel.h"
#include "spectral/spectral.h"

namespace smore {
namespace {

using at::Tensor;
using at::TensorList;
using Keep = std::optional<int64_t>;

// Contiguous tensors and their data pointers, as the kernels take them.
template <typename T>
struct Arrays {
  std::vector<Tensor> tensors;
  std::vector<const T*> pointers;
  explicit Arrays(TensorList list) {
    for (const Tensor& t : list) {
      tensors.push_back(t.contiguous());
      pointers.push_back(tensors.back().const_data_ptr<T>());
    }
  }
};

template <typename T>
struct Results {
  std::vector<Tensor> tensors;
  std::vector<T*> pointers;
  Results(size_t count, const Tensor& like) {
    for (size_t i = 0; i < count; ++i) {
      tensors.push_back(empty_output(like.sizes(), like.options()));
      pointers.push_back(tensors.back().mutable_data_ptr<T>());
    }
  }
};

// The filtered arrays, one a filter, then the fused one if there is a filter for it.
template <typename T>
std::vector<Tensor> forward(TensorList xs, TensorList weights, const Tensor* fusion_weight, Keep keep) {
  const int64_t n = row_count(xs[0]);
  const auto plan = spectral_plan<T>(row_length(xs[0]), kept_bins(xs[0], keep));
  const Arrays<T> x(xs), w(weights);
  const Tensor fusion = fusion_weight != nullptr ? fusion_weight->contiguous() : Tensor();
  Results<T> y(weights.size() + (fusion_weight != nullptr ? 1 : 0), xs[0]);
  const SpectralForward<T> job{plan.get(),
                               n,
                               static_cast<int64_t>(xs.size()),
                               x.pointers.data(),
                               weights.empty() ? nullptr : w.pointers.data(),
                               y.pointers.data(),
                               fusion.defined() ? fusion.const_data_ptr<T>() : nullptr,
                               fusion.defined() ? y.pointers.back() : nullptr};
  parallel_ranges(spectral_chunks(n), 1, [&](int64_t begin, int64_t end) { spectral_forward(job, begin, end); });
  return y.tensors;
}

struct Gradients {
  std::vector<Tensor> xs, weights;  // weights: a gradient a filter, then the fusion filter's if there is one
};

template <typename T>
Gradients backward(TensorList grads, const Tensor* grad_fused, TensorList xs, TensorList weights,
                   const Tensor* fusion_weight, Keep keep) {
  const int64_t n = row_count(xs[0]), d = row_length(xs[0]), bins = d / 2 + 1, kept = kept_bins(xs[0], keep);
  const auto plan = spectral_plan<T>(d, kept);
  const Arrays<T> x(xs), w(weights), g(grads);
  const Tensor fusion = fusion_weight != nullptr ? fusion_weight->contiguous() : Tensor();
  const Tensor fused = grad_fused != nullptr ? grad_fused->contiguous() : Tensor();
  Results<T> gx(xs.size(), xs[0]);
  std::vector<Tensor> filters(weights.begin(), weights.end());
  if (fusion.defined()) filters.push_back(fusion);
  const int64_t chunks = spectral_chunks(n), per_chunk = static_cast<int64_t>(filters.size()) * bins * 2;
  std::vector<double> partial(static_cast<size_t>(chunks * per_chunk));
  const SpectralBackward<T> job{plan.get(),
                                n,
                                static_cast<int64_t>(xs.size()),
                                x.pointers.data(),
                                weights.empty() ? nullptr : w.pointers.data(),
                                fusion.defined() ? fusion.const_data_ptr<T>() : nullptr,
                                g.pointers.data(),
                                fused.defined() ? fused.const_data_ptr<T>() : nullptr,
                                gx.pointers.data(),
                                partial.data()};
  parallel_ranges(chunks, 1, [&](int64_t begin, int64_t end) { spectral_backward(job, begin, end); });
  Gradients result{gx.tensors, {}};
  for (const Tensor& filter : filters) {
    const auto first = static_cast<int64_t>(result.weights.size()) * bins * 2;
    Tensor gw = at::zeros(filter.sizes(), filter.options());
    T* out = gw.mutable_data_ptr<T>();
    for (int64_t i = 0; i < kept * 2; ++i) {
      double sum = 0;  // chunks in order: the same sum for any number of threads
      for (int64_t c = 0; c < chunks; ++c) sum += partial[static_cast<size_t>(c * per_chunk + first + i)];
      out[i] = static_cast<T>(sum);
    }
    result.weights.push_back(gw);
  }
  return result;
}

Tensor spectral_filter_cpu(const Tensor& x, const Tensor& weight, Keep keep) {
  const Tensor real = real_filter(weight);
  check_spectral_filter(x, real, keep);
  return dispatch_floating(x, [&](auto t) { return forward<decltype(t)>({x}, {real}, nullptr, keep)[0]; });
}

std::tuple<Tensor, Tensor> spectral_filter_backward_cpu(const Tensor& grad, const Tensor& x, const Tensor& weight,
                                                        Keep keep) {
  check_spectral_filter_backward(grad, x, weight, keep);
  const Gradients g = dispatch_floating(
      x, [&](auto t) { return backward<decltype(t)>({grad}, nullptr, {x}, {weight}, nullptr, keep); });
  return {g.xs[0], g.weights[0]};
}

std::tuple<std::vector<Tensor>, Tensor> spectrum_fusion_cpu(TensorList xs, TensorList weights,
                                                            const Tensor& fusion_weight, Keep keep) {
  const std::vector<Tensor> real = real_filters(weights);
  const Tensor fusion = real_filter(fusion_weight);
  check_spectrum_fusion(xs, real, fusion, keep);
  check_product("spectrum_fusion", xs);
  if (beyond_float(xs)) {
    const auto [filtered, fused] =
        spectrum_fusion_cpu(all_to(xs, at::kDouble), all_to(real, at::kDouble), fusion.to(at::kDouble), keep);
    return {all_to(filtered, at::kFloat), fused.to(at::kFloat)};
  }
  std::vector<Tensor> y =
      dispatch_floating(xs[0], [&](auto t) { return forward<decltype(t)>(xs, real, &fusion, keep); });
  Tensor fused = y.back();
  y.pop_back();
  return {std::move(y), fused};
}

std::tuple<std::vector<Tensor>, std::vector<Tensor>, Tensor> spectrum_fusion_backward_cpu(
    TensorList grads, const Tensor& grad_fused, TensorList xs, TensorList weights, const Tensor& fusion_weight,
    Keep keep) {
  check_spectrum_fusion_backward(grads, grad_fused, xs, weights, fusion_weight, keep);
  check_product("spectrum_fusion_backward", xs);
  if (beyond_float(xs)) {
    const auto [grad_xs, grad_weights, grad_fusion] =
        spectrum_fusion_backward_cpu(all_to(grads, at::kDouble), grad_fused.to(at::kDouble), all_to(xs, at::kDouble),
                                     all_to(weights, at::kDouble), fusion_weight.to(at::kDouble), keep);
    return {all_to(grad_xs, at::kFloat), all_to(grad_weights, at::kFloat), grad_fusion.to(at::kFloat)};
  }
  Gradients g = dispatch_floating(
      xs[0], [&](auto t) { return backward<decltype(t)>(grads, &grad_fused, xs, weights, &fusion_weight, keep); });
  Tensor fusion = g.weights.back();
  g.weights.pop_back();
  return {std::move(g.xs), std::move(g.weights), fusion};
}

}  // namespace

TORCH_LIBRARY_IMPL(smore_ext, CPU, m) {
  spectral_filter_op::bind(m, &spectral_filter_cpu);
  spectral_filter_backward_op::bind(m, &spectral_filter_backward_cpu);
  spectrum_fusion_op::bind(m, &spectrum_fusion_cpu);
  spectrum_fusion_backward_op::bind(m, &spectrum_fusion_backward_cpu);
}

}  // namespace smore
