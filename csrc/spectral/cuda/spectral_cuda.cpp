// CUDA binding of spectral_filter, spectrum_fusion and their backward ops: chooses the way, and runs cuFFT around the
// kernels where they are not all in one.
#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <atomic>
#include <stdexcept>
#include <string>

#include "common/dispatch.h"
#include "common/module_part.h"
#include "cuda/cufft_plans.h"
#include "spectral/cuda/spectral_kernel.h"
#include "spectral/spectral.h"

namespace smore {

namespace {

enum class ForcedPath { none, fused, cufft };
std::atomic<ForcedPath> forced_path{ForcedPath::none};

// "auto": by rule (spectral_path() in spectral_kernel.h), "fused": all on the chip, in either way, "cufft": transforms
// by cuFFT. For tests and measurements.
void set_spectral_path(const std::string& path) {
  if (path != "auto" && path != "fused" && path != "cufft") {
    throw std::invalid_argument("smore_ext: the spectral path must be auto, fused or cufft, got " + path);
  }
  forced_path = path == "auto" ? ForcedPath::none : path == "fused" ? ForcedPath::fused : ForcedPath::cufft;
}

const ModulePart part([](pybind11::module_& m) {
  m.def("set_spectral_path", &set_spectral_path, pybind11::arg("path"),
        "How spectral ops run on a GPU: auto, fused or cufft. For tests.");
});

using at::Tensor;
using at::TensorList;
using cuda::SpectralPath;
using Keep = std::optional<int64_t>;

SpectralPath path_for(const char* op, int64_t d, int64_t modalities, int64_t kept) {
  const SpectralPath rule = cuda::spectral_path(d, modalities, kept);
  if (forced_path == ForcedPath::none) return rule;
  if (forced_path == ForcedPath::cufft) return SpectralPath::cufft;
  SMORE_CHECK_VALUE(
      rule != SpectralPath::cufft, op,
      "the fused kernels take rows of 2 to 64, 128, 256 or 512 numbers, or few kept frequencies, and at most ",
      cuda::kFusedModalities, " arrays, got rows of ", d, ", ", kept, " frequencies and ", modalities, " arrays");
  return rule;
}

// Contiguous tensors; for cuFFT also aligned to a complex number, which a view may not be.
std::vector<Tensor> arrays(TensorList list, SpectralPath path) {
  std::vector<Tensor> result;
  for (const Tensor& t : list) {
    Tensor array = t.contiguous();
    const auto address = reinterpret_cast<uintptr_t>(array.const_data_ptr());
    if (path == SpectralPath::cufft && address % (2 * array.element_size()) != 0) array = array.clone();
    result.push_back(array);
  }
  return result;
}

std::vector<Tensor> empties(size_t count, const Tensor& like) {
  std::vector<Tensor> result;
  for (size_t i = 0; i < count; ++i) result.push_back(at::empty(like.sizes(), like.options()));
  return result;
}

std::vector<Tensor> with(TensorList list, const Tensor* last) {
  std::vector<Tensor> result(list.begin(), list.end());
  if (last != nullptr) result.push_back(*last);
  return result;
}

// The filters, which stay alive in `weights` and `together`.
template <typename T>
struct Filters {
  Tensor together;
  cuda::SpectralFilters<T> pointers{};
  explicit Filters(const std::vector<Tensor>& weights) {
    if (weights.size() > cuda::kSpectralPointers) {
      together = at::cat(weights);
      pointers.together = together.const_data_ptr<T>();
    } else {
      for (size_t f = 0; f < weights.size(); ++f) pointers.each[f] = weights[f].const_data_ptr<T>();
    }
  }
};

// Rows to spectra [n, d/2+1, 2] and back. A row of one number is its own spectrum.
template <typename T>
void to_spectra(const char* op, const Tensor& rows, const Tensor& spectra) {
  if (row_length(rows) > 1) {
    return cuda::rows_to_spectra(op, row_count(rows), row_length(rows), rows.const_data_ptr<T>(),
                                 spectra.mutable_data_ptr<T>());
  }
  spectra.select(2, 0).copy_(rows.view({-1, 1}));
  spectra.select(2, 1).zero_();
}

template <typename T>
void to_rows(const char* op, const Tensor& spectra, const Tensor& rows) {
  if (row_length(rows) > 1) {
    return cuda::spectra_to_rows(op, row_count(rows), row_length(rows), spectra.mutable_data_ptr<T>(),
                                 rows.mutable_data_ptr<T>());
  }
  rows.view({-1, 1}).copy_(spectra.select(2, 0));
}

// The filtered arrays, one a filter, then the fused one if there is a filter for it.
template <typename T>
std::vector<Tensor> forward(const char* op, TensorList xs, TensorList filters, const Tensor* fusion_weight, Keep keep) {
  const int64_t n = row_count(xs[0]), d = row_length(xs[0]), M = static_cast<int64_t>(xs.size());
  const int64_t kept = kept_bins(xs[0], keep);
  const std::vector<Tensor> all = with(filters, fusion_weight);
  const size_t unfiltered = filters.empty() ? xs.size() : 0;  // arrays without a filter, and a result, of their own
  const SpectralPath path = path_for(op, d, M, kept);
  const std::vector<Tensor> y = empties(all.size(), xs[0]);
  if (n == 0) return y;
  const c10::cuda::CUDAGuard guard(xs[0].device());
  const auto stream = c10::cuda::getCurrentCUDAStream();
  const std::vector<Tensor> x = arrays(xs, path), weights = arrays(all, SpectralPath::fused);
  if (path != SpectralPath::cufft) {
    cuda::SpectralRowsForward<T> job{n, d, kept, static_cast<int>(M), {}, {}, {}};
    for (size_t m = 0; m < x.size(); ++m) job.x[m] = x[m].const_data_ptr<T>();
    for (size_t f = 0; f < y.size(); ++f) {
      job.weight[unfiltered + f] = weights[f].const_data_ptr<T>();
      job.y[unfiltered + f] = y[f].mutable_data_ptr<T>();
    }
    (path == SpectralPath::fused ? cuda::spectral_rows_forward<T> : cuda::spectral_dft_forward<T>)(job, stream);
    return y;
  }
  const Tensor spectra = at::empty({static_cast<int64_t>(unfiltered + y.size()), n, d / 2 + 1, 2}, xs[0].options());
  for (int64_t m = 0; m < M; ++m) to_spectra<T>(op, x[static_cast<size_t>(m)], spectra.select(0, m));
  const Filters<T> pointers(weights);
  cuda::spectral_bins_forward<T>(
      {n, d, kept, M, unfiltered == 0, fusion_weight != nullptr, pointers.pointers, spectra.mutable_data_ptr<T>()},
      stream);
  for (size_t f = 0; f < y.size(); ++f) {
    to_rows<T>(op, spectra.select(0, static_cast<int64_t>(unfiltered + f)), y[f]);
  }
  return y;
}

struct Gradients {
  std::vector<Tensor> xs, weights;  // weights: a gradient a filter, then the fusion filter's if there is one
};

template <typename T>
Gradients backward(const char* op, TensorList grads, const Tensor* grad_fused, TensorList xs, TensorList filters,
                   const Tensor* fusion_weight, Keep keep) {
  const int64_t n = row_count(xs[0]), d = row_length(xs[0]), bins = d / 2 + 1, M = static_cast<int64_t>(xs.size());
  const int64_t kept = kept_bins(xs[0], keep);
  const bool fused = grad_fused != nullptr;
  const std::vector<Tensor> all = with(filters, fusion_weight);
  const size_t unfiltered = filters.empty() ? xs.size() : 0;
  const int64_t count = M + (fused ? 1 : 0);
  const SpectralPath path = path_for(op, d, M, kept);
  Gradients result{empties(xs.size(), xs[0]), {}};
  for (const Tensor& filter : all) {
    result.weights.push_back(n > 0 ? at::empty(filter.sizes(), filter.options())
                                   : at::zeros(filter.sizes(), filter.options()));
  }
  if (n == 0) return result;  // sums of nothing: no kernel need run
  const c10::cuda::CUDAGuard guard(xs[0].device());
  const auto stream = c10::cuda::getCurrentCUDAStream();
  const std::vector<Tensor> x = arrays(xs, path), g = arrays(with(grads, grad_fused), path);
  const std::vector<Tensor> weights = arrays(all, SpectralPath::fused);
  const auto sums = [&](int64_t partials) {
    return at::empty({partials * count * bins * 2}, xs[0].options().dtype(at::kDouble));
  };
  if (path != SpectralPath::cufft) {
    const auto modalities = static_cast<int>(M);
    const Tensor partial = sums(path == SpectralPath::fused ? cuda::spectral_rows_partials<T>(n, d, modalities)
                                                            : cuda::spectral_dft_partials<T>(n, d, kept, modalities));
    cuda::SpectralRowsBackward<T> job{n, d, kept, modalities, {}, {}, {}, {}, partial.mutable_data_ptr<double>(), {}};
    for (size_t m = 0; m < x.size(); ++m) {
      job.x[m] = x[m].const_data_ptr<T>();
      job.grad_x[m] = result.xs[m].mutable_data_ptr<T>();
    }
    for (size_t f = 0; f < all.size(); ++f) {
      job.weight[unfiltered + f] = weights[f].const_data_ptr<T>();
      job.grad_y[unfiltered + f] = g[f].const_data_ptr<T>();
      job.grad_weight[unfiltered + f] = result.weights[f].mutable_data_ptr<T>();
    }
    (path == SpectralPath::fused ? cuda::spectral_rows_backward<T> : cuda::spectral_dft_backward<T>)(job, stream);
    return result;
  }
  const int64_t partials = cuda::spectral_bins_partials(n, d);
  const Tensor partial = sums(partials);
  const Tensor spectra = at::empty({M, n, bins, 2}, xs[0].options());
  const Tensor gradients = at::empty({count, n, bins, 2}, xs[0].options());
  for (int64_t m = 0; m < M; ++m) to_spectra<T>(op, x[static_cast<size_t>(m)], spectra.select(0, m));
  for (size_t f = 0; f < g.size(); ++f) {
    to_spectra<T>(op, g[f], gradients.select(0, static_cast<int64_t>(unfiltered + f)));
  }
  const Filters<T> pointers(weights);
  cuda::spectral_bins_backward<T>(
      {n, d, kept, M, unfiltered == 0, fused, pointers.pointers, spectra.const_data_ptr<T>(),
       gradients.mutable_data_ptr<T>(), partial.mutable_data_ptr<double>()},
      stream);
  for (int64_t m = 0; m < M; ++m) to_rows<T>(op, gradients.select(0, m), result.xs[static_cast<size_t>(m)]);
  std::vector<T*> grad_weight(unfiltered, nullptr);
  for (const Tensor& w : result.weights) grad_weight.push_back(w.mutable_data_ptr<T>());
  cuda::spectral_reduce(partial.const_data_ptr<double>(), partials, d, kept, M, fused, cuda::SpectralScales(d, M, 1),
                        grad_weight.data(), stream);
  return result;
}

Tensor spectral_filter_cuda(const Tensor& x, const Tensor& weight, Keep keep) {
  const Tensor real = real_filter(weight);
  check_spectral_filter(x, real, keep);
  return dispatch_floating(
      x, [&](auto t) { return forward<decltype(t)>("spectral_filter", {x}, {real}, nullptr, keep)[0]; });
}

std::tuple<Tensor, Tensor> spectral_filter_backward_cuda(const Tensor& grad, const Tensor& x, const Tensor& weight,
                                                         Keep keep) {
  check_spectral_filter_backward(grad, x, weight, keep);
  const Gradients g = dispatch_floating(x, [&](auto t) {
    return backward<decltype(t)>("spectral_filter_backward", {grad}, nullptr, {x}, {weight}, nullptr, keep);
  });
  return {g.xs[0], g.weights[0]};
}

std::tuple<std::vector<Tensor>, Tensor> spectrum_fusion_cuda(TensorList xs, TensorList weights,
                                                             const Tensor& fusion_weight, Keep keep) {
  const std::vector<Tensor> real = real_filters(weights);
  const Tensor fusion = real_filter(fusion_weight);
  check_spectrum_fusion(xs, real, fusion, keep);
  check_product("spectrum_fusion", xs);
  if (beyond_float(xs)) {
    const auto [filtered, fused] =
        spectrum_fusion_cuda(all_to(xs, at::kDouble), all_to(real, at::kDouble), fusion.to(at::kDouble), keep);
    return {all_to(filtered, at::kFloat), fused.to(at::kFloat)};
  }
  std::vector<Tensor> y = dispatch_floating(
      xs[0], [&](auto t) { return forward<decltype(t)>("spectrum_fusion", xs, real, &fusion, keep); });
  Tensor fused = y.back();
  y.pop_back();
  return {std::move(y), fused};
}

std::tuple<std::vector<Tensor>, std::vector<Tensor>, Tensor> spectrum_fusion_backward_cuda(
    TensorList grads, const Tensor& grad_fused, TensorList xs, TensorList weights, const Tensor& fusion_weight,
    Keep keep) {
  check_spectrum_fusion_backward(grads, grad_fused, xs, weights, fusion_weight, keep);
  check_product("spectrum_fusion_backward", xs);
  if (beyond_float(xs)) {
    const auto [grad_xs, grad_weights, grad_fusion] =
        spectrum_fusion_backward_cuda(all_to(grads, at::kDouble), grad_fused.to(at::kDouble), all_to(xs, at::kDouble),
                                      all_to(weights, at::kDouble), fusion_weight.to(at::kDouble), keep);
    return {all_to(grad_xs, at::kFloat), all_to(grad_weights, at::kFloat), grad_fusion.to(at::kFloat)};
  }
  Gradients g = dispatch_floating(xs[0], [&](auto t) {
    return backward<decltype(t)>("spectrum_fusion_backward", grads, &grad_fused, xs, weights, &fusion_weight, keep);
  });
  Tensor fusion = g.weights.back();
  g.weights.pop_back();
  return {std::move(g.xs), std::move(g.weights), fusion};
}

}  // namespace

TORCH_LIBRARY_IMPL(smore_ext, CUDA, m) {
  spectral_filter_op::bind(m, &spectral_filter_cuda);
  spectral_filter_backward_op::bind(m, &spectral_filter_backward_cuda);
  spectrum_fusion_op::bind(m, &spectrum_fusion_cuda);
  spectrum_fusion_backward_op::bind(m, &spectrum_fusion_backward_cuda);
}

}  // namespace smore
