// CPU binding of cosine_at: shares rows out over torch's threads.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "common/dispatch.h"
#include "cpu/aligned.h"
#include "cpu/index_check.h"
#include "cpu/output.h"
#include "cpu/parallel.h"
#include "neighbours/cosine_at.h"
#include "neighbours/cosine_at_run.h"
#include "neighbours/cpu/cosine_at_kernel.h"
#include "neighbours/cpu/row_squares_kernel.h"

namespace smore {
namespace {

using at::Tensor;

constexpr int64_t kGrain = 32;  // rows

template <typename T>
Tensor squares(const Tensor& rows) {
  Tensor square = at::empty({rows.size(0)}, rows.options().dtype(at::kDouble));
  const T* x = rows.const_data_ptr<T>();
  double* out = square.mutable_data_ptr<double>();
  parallel_ranges(rows.size(0), 64, [&](int64_t begin, int64_t end) { row_squares(x, rows.size(1), out, begin, end); });
  return square;
}

Tensor cosine_at_cpu(const Tensor& features, const Tensor& index, const std::optional<Tensor>& base) {
  check_cosine_at("cosine_at", features, index, base);
  const CosineInputs in(features, index, base);
  check_ids_cpu("cosine_at", "index", in.index, in.base.rows.size(0));
  Tensor similarity = empty_output(index.sizes(), features.options());
  dispatch_floating(features, [&](auto t) {
    using T = decltype(t);
    const Tensor square = squares<T>(in.features.rows), base_square = in.self ? square : squares<T>(in.base.rows);
    const CosinePairs<T> pairs = in.view<T>(square, base_square);
    T* out = similarity.mutable_data_ptr<T>();
    parallel_ranges(pairs.n, kGrain, [&](int64_t begin, int64_t end) { cosine_at(pairs, out, begin, end); });
  });
  return similarity;
}

template <typename T>
void backward(const CosinePairs<T>& pairs, const Tensor& grad, const Tensor& similarity, bool of_features, bool of_base,
              Tensor& grad_features, Tensor& grad_base) {
  const int64_t size = pairs.n * pairs.k;
  const AlignedBuffer<CosineSlope> slopes(size);
  CosineSlope* slope = slopes.get();
  const T *g = grad.const_data_ptr<T>(), *s = similarity.const_data_ptr<T>();
  parallel_ranges(pairs.n, 256, [&](int64_t begin, int64_t end) { cosine_slopes(pairs, g, s, slope, begin, end); });
  const bool incoming = pairs.self ? of_features : of_base;
  const AlignedBuffer<int64_t> starts(incoming ? pairs.m + 1 : 0);
  const AlignedBuffer<CosinePair> orders(incoming ? size : 0);
  const int64_t* start = incoming ? starts.get() : nullptr;
  const CosinePair* order = incoming ? orders.get() : nullptr;
  if (incoming) pairs_by_base(pairs.index, pairs.n, pairs.k, pairs.m, starts.get(), orders.get());
  if (of_features) {
    const bool both = pairs.self;
    T* to = grad_features.mutable_data_ptr<T>();
    parallel_ranges(pairs.n, kGrain, [&](int64_t begin, int64_t end) {
      cosine_feature_gradient(pairs, slope, both ? start : nullptr, both ? order : nullptr, to, begin, end);
    });
  }
  if (of_base) {
    T* to = grad_base.mutable_data_ptr<T>();
    parallel_ranges(pairs.m, kGrain, [&](int64_t begin, int64_t end) {
      cosine_base_gradient(pairs, slope, start, order, to, begin, end);
    });
  }
}

std::tuple<Tensor, Tensor> cosine_at_backward_cpu(const Tensor& grad, const Tensor& features, const Tensor& index,
                                                  const std::optional<Tensor>& base, const Tensor& similarity,
                                                  bool of_features, bool of_base) {
  check_cosine_at_backward(grad, features, index, base, similarity);
  const CosineInputs in(features, index, base);
  check_ids_cpu("cosine_at_backward", "index", in.index, in.base.rows.size(0));
  of_base = of_base && base.has_value();
  const int64_t d = features.size(1);
  Tensor grad_features = empty_output({of_features ? features.size(0) : 0, d}, features.options());
  Tensor grad_base = empty_output({of_base ? in.base.rows.size(0) : 0, d}, features.options());
  const Tensor g = grad.contiguous(), s = similarity.contiguous();
  dispatch_floating(features, [&](auto t) {
    using T = decltype(t);
    const Tensor square = squares<T>(in.features.rows), base_square = in.self ? square : squares<T>(in.base.rows);
    backward<T>(in.view<T>(square, base_square), g, s, of_features, of_base, grad_features, grad_base);
  });
  return {in.features.gradient(grad_features), in.base.gradient(grad_base)};
}

}  // namespace

TORCH_LIBRARY_IMPL(smore_ext, CPU, m) {
  cosine_at_op::bind(m, &cosine_at_cpu);
  cosine_at_backward_op::bind(m, &cosine_at_backward_cpu);
}

}  // namespace smore
