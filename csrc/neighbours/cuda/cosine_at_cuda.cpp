// CUDA binding of cosine_at: the check of the index, and the pairs in the order of their second row.
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/sort.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "common/dispatch.h"
#include "cuda/capture.h"
#include "cuda/index_check.h"
#include "neighbours/cosine_at.h"
#include "neighbours/cosine_at_run.h"
#include "neighbours/cuda/cosine_at_kernel.h"
#include "neighbours/cuda/row_squares_kernel.h"

namespace smore {
namespace {

using at::Tensor;

template <typename T>
Tensor squares(const Tensor& rows, cudaStream_t stream) {
  Tensor square = at::empty({rows.size(0)}, rows.options().dtype(at::kDouble));
  cuda::row_squares(rows.const_data_ptr<T>(), rows.size(0), rows.size(1), square.mutable_data_ptr<double>(), nullptr,
                    stream);
  return square;
}

Tensor cosine_at_cuda(const Tensor& features, const Tensor& index, const std::optional<Tensor>& base) {
  check_cosine_at("cosine_at", features, index, base);
  const c10::cuda::CUDAGuard guard(features.device());
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  const CosineInputs in(features, index, base, !cuda::capturing());
  cuda::check_ids_cuda("cosine_at", "index", in.index, in.base.rows.size(0));
  Tensor similarity = at::empty(index.sizes(), features.options());
  dispatch_floating(features, [&](auto t) {
    using T = decltype(t);
    const Tensor square = squares<T>(in.features.rows, stream),
                 base_square = in.self ? square : squares<T>(in.base.rows, stream);
    cuda::cosine_at(in.view<T>(square, base_square), similarity.mutable_data_ptr<T>(), stream);
  });
  return similarity;
}

std::tuple<Tensor, Tensor> cosine_at_backward_cuda(const Tensor& grad, const Tensor& features, const Tensor& index,
                                                   const std::optional<Tensor>& base, const Tensor& similarity,
                                                   bool of_features, bool of_base) {
  check_cosine_at_backward(grad, features, index, base, similarity);
  const c10::cuda::CUDAGuard guard(features.device());
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  const CosineInputs in(features, index, base, !cuda::capturing());
  of_base = of_base && base.has_value();
  const int64_t d = features.size(1), m = in.base.rows.size(0);
  Tensor grad_features = at::empty({of_features ? features.size(0) : 0, d}, features.options());
  Tensor grad_base = at::empty({of_base ? m : 0, d}, features.options());
  const Tensor g = grad.contiguous(), s = similarity.contiguous();
  Tensor slopes = at::empty({index.numel(), 2}, features.options().dtype(at::kDouble));
  CosineSlope* slope = reinterpret_cast<CosineSlope*>(slopes.mutable_data_ptr<double>());
  Tensor order, start;  // a stable sort: pairs of one row stay in their order
  cuda::PairsByBase incoming{nullptr, nullptr};
  if (in.self ? of_features : of_base) {
    const auto [rows, places] = at::sort(in.index.view({-1}), /*stable=*/true, /*dim=*/0, /*descending=*/false);
    order = places;
    start = at::searchsorted(rows, at::arange(m + 1, rows.options()));
    incoming = {start.const_data_ptr<int64_t>(), order.const_data_ptr<int64_t>()};
  }
  dispatch_floating(features, [&](auto t) {
    using T = decltype(t);
    const Tensor square = squares<T>(in.features.rows, stream),
                 base_square = in.self ? square : squares<T>(in.base.rows, stream);
    const CosinePairs<T> pairs = in.view<T>(square, base_square);
    cuda::cosine_slopes(pairs, g.const_data_ptr<T>(), s.const_data_ptr<T>(), slope, stream);
    if (of_features) {
      cuda::cosine_feature_gradient(pairs, slope, incoming, grad_features.mutable_data_ptr<T>(), stream);
    }
    if (of_base) cuda::cosine_base_gradient(pairs, slope, incoming, grad_base.mutable_data_ptr<T>(), stream);
  });
  return {in.features.gradient(grad_features), in.base.gradient(grad_base)};
}

}  // namespace

TORCH_LIBRARY_IMPL(smore_ext, CUDA, m) {
  cosine_at_op::bind(m, &cosine_at_cuda);
  cosine_at_backward_op::bind(m, &cosine_at_backward_cuda);
}

}  // namespace smore
