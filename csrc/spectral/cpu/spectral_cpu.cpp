// CPU binding of spectral_filter, spectrum_fusion and their backward ops: shares chunks of rows out over
// torch's threads.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
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

template <typename T>
std::vector<Tensor> forward(TensorList xs, TensorList weights, const Tensor* fusion_weight) {
  const int64_t n = xs[0].size(0);
  const auto plan = spectral_plan<T>(xs[0].size(1));
  const Arrays<T> x(xs), w(weights);
  const Tensor fusion = fusion_weight != nullptr ? fusion_weight->contiguous() : Tensor();
  Results<T> y(xs.size() + (fusion_weight != nullptr ? 1 : 0), xs[0]);
  const SpectralForward<T> job{plan.get(),
                               n,
                               static_cast<int64_t>(xs.size()),
                               x.pointers.data(),
                               w.pointers.data(),
                               y.pointers.data(),
                               fusion.defined() ? fusion.const_data_ptr<T>() : nullptr,
                               fusion.defined() ? y.pointers.back() : nullptr};
  parallel_ranges(spectral_chunks(n), 1, [&](int64_t begin, int64_t end) { spectral_forward(job, begin, end); });
  return y.tensors;
}

struct Gradients {
  std::vector<Tensor> xs, weights;  // weights: M filters, then the fusion filter if there is one
};

template <typename T>
Gradients backward(TensorList grads, const Tensor* grad_fused, TensorList xs, TensorList weights,
                   const Tensor* fusion_weight) {
  const int64_t n = xs[0].size(0), d = xs[0].size(1), bins = d / 2 + 1;
  const int64_t arrays = static_cast<int64_t>(xs.size()) + (grad_fused != nullptr ? 1 : 0);
  const auto plan = spectral_plan<T>(d);
  const Arrays<T> x(xs), w(weights), g(grads);
  const Tensor fusion = fusion_weight != nullptr ? fusion_weight->contiguous() : Tensor();
  const Tensor fused = grad_fused != nullptr ? grad_fused->contiguous() : Tensor();
  Results<T> gx(xs.size(), xs[0]);
  const int64_t chunks = spectral_chunks(n), per_chunk = arrays * bins * 2;
  std::vector<double> partial(static_cast<size_t>(chunks * per_chunk));
  const SpectralBackward<T> job{plan.get(),
                                n,
                                static_cast<int64_t>(xs.size()),
                                x.pointers.data(),
                                w.pointers.data(),
                                fusion.defined() ? fusion.const_data_ptr<T>() : nullptr,
                                g.pointers.data(),
                                fused.defined() ? fused.const_data_ptr<T>() : nullptr,
                                gx.pointers.data(),
                                partial.data()};
  parallel_ranges(chunks, 1, [&](int64_t begin, int64_t end) { spectral_backward(job, begin, end); });
  Gradients result{gx.tensors, {}};
  for (int64_t a = 0; a < arrays; ++a) {
    Tensor gw = at::empty({bins, 2}, xs[0].options());
    T* out = gw.mutable_data_ptr<T>();
    for (int64_t i = 0; i < bins * 2; ++i) {
      double sum = 0;  // chunks in order: the same sum for any number of threads
      for (int64_t c = 0; c < chunks; ++c) sum += partial[static_cast<size_t>(c * per_chunk + a * bins * 2 + i)];
      out[i] = static_cast<T>(sum);
    }
    result.weights.push_back(gw);
  }
  return result;
}

Tensor spectral_filter_cpu(const Tensor& x, const Tensor& weight) {
  const Tensor real = real_filter(weight);
  check_spectral_filter(x, real);
  return dispatch_floating(x, [&](auto t) { return forward<decltype(t)>({x}, {real}, nullptr)[0]; });
}

std::tuple<Tensor, Tensor> spectral_filter_backward_cpu(const Tensor& grad, const Tensor& x, const Tensor& weight) {
  check_spectral_filter_backward(grad, x, weight);
  const Gradients g =
      dispatch_floating(x, [&](auto t) { return backward<decltype(t)>({grad}, nullptr, {x}, {weight}, nullptr); });
  return {g.xs[0], g.weights[0]};
}

std::tuple<std::vector<Tensor>, Tensor> spectrum_fusion_cpu(TensorList xs, TensorList weights,
                                                            const Tensor& fusion_weight) {
  const std::vector<Tensor> real = real_filters(weights);
  const Tensor fusion = real_filter(fusion_weight);
  check_spectrum_fusion(xs, real, fusion);
  std::vector<Tensor> y = dispatch_floating(xs[0], [&](auto t) { return forward<decltype(t)>(xs, real, &fusion); });
  Tensor fused = y.back();
  y.pop_back();
  return {std::move(y), fused};
}

std::tuple<std::vector<Tensor>, std::vector<Tensor>, Tensor> spectrum_fusion_backward_cpu(
    TensorList grads, const Tensor& grad_fused, TensorList xs, TensorList weights, const Tensor& fusion_weight) {
  check_spectrum_fusion_backward(grads, grad_fused, xs, weights, fusion_weight);
  Gradients g = dispatch_floating(
      xs[0], [&](auto t) { return backward<decltype(t)>(grads, &grad_fused, xs, weights, &fusion_weight); });
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
