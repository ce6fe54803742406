// CUDA binding of knn: scratch memory, matrix products by torch, the check of the features.
#include <ATen/core/Tensor.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <limits>

#include "common/dispatch.h"
#include "common/ieee_products.h"
#include "cuda/capture.h"
#include "neighbours/cuda/knn_kernel.h"
#include "neighbours/knn.h"

namespace smore {
namespace {

using at::Tensor;

// Reads the verdict back, unless a graph is being captured, which runs later.
void check_finite(const Tensor& not_finite, const Tensor& square) {
  if (cuda::capturing()) return;
  const int64_t found = not_finite.item<int32_t>();
  if (found == 0) return;
  const int64_t row = std::numeric_limits<int32_t>::max() - found;
  SMORE_CHECK_VALUE(false, "knn", "features must be finite and their rows' squared norms too, got ",
                    square[row].item<double>(), " as the squared norm of row ", row);
}

template <typename T>
std::tuple<Tensor, Tensor> run(const Tensor& features, int64_t k) {
  const int64_t n = features.size(0), d = features.size(1);
  const at::TensorOptions floats = features.options(), longs = floats.dtype(at::kLong), ints = floats.dtype(at::kInt);
  Tensor similarity = at::empty({n, k}, floats), index = at::empty({n, k}, longs);
  if (n == 0) return {similarity, index};
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  const T* x = features.const_data_ptr<T>();
  const int64_t capacity = knn_capacity(k);
  Tensor square = at::empty({n}, floats.dtype(at::kDouble)), not_finite = at::empty({1}, ints);
  Tensor scores = at::empty({n, capacity}, floats), indices = at::empty({n, capacity}, ints);
  Tensor count = at::empty({n}, longs), bar = at::empty({n}, floats);
  const cuda::KnnLists<T> lists{n,
                                k,
                                capacity,
                                knn_margin<T>(d),
                                scores.mutable_data_ptr<T>(),
                                reinterpret_cast<uint32_t*>(indices.mutable_data_ptr<int32_t>()),
                                count.mutable_data_ptr<int64_t>(),
                                bar.mutable_data_ptr<T>()};
  double* squares = square.mutable_data_ptr<double>();
  cuda::knn_squares(x, d, squares, lists, not_finite.mutable_data_ptr<int32_t>(), stream);
  check_finite(not_finite, square);

  const cuda::KnnShape shape = cuda::knn_shape<T>(n, d, k);
  Tensor left = at::empty({shape.left_elements()}, floats), right = at::empty({shape.right_elements()}, floats);
  Tensor tile = at::empty({shape.tile_elements()}, floats);
  const cuda::KnnScratch<T> scratch{left.mutable_data_ptr<T>(), right.mutable_data_ptr<T>(),
                                    tile.mutable_data_ptr<T>()};
  const IeeeProducts ieee;
  cuda::knn_collect(
      lists, x, d, squares, shape, scratch,
      [&](const T*, int64_t rows, const T*, int64_t columns, int64_t width, T*, int64_t stride, bool add) {
        const Tensor a = left.narrow(0, 0, rows * width).view({rows, width});
        const Tensor b = right.narrow(0, 0, columns * width).view({columns, width}).t();
        Tensor out = tile.narrow(0, 0, rows * stride).view({rows, stride}).narrow(1, 0, columns);
        add ? at::addmm_out(out, out, a, b, 1, 1) : at::mm_out(out, a, b);
      },
      stream);
  cuda::knn_finish(lists, x, d, squares, similarity.mutable_data_ptr<T>(), index.mutable_data_ptr<int64_t>(), stream);
  return {similarity, index};
}

std::tuple<Tensor, Tensor> knn_cuda(const Tensor& features, int64_t k) {
  const c10::cuda::CUDAGuard guard(features.device());
  check_knn(features, k);
  const Tensor dense = features.contiguous();
  return dispatch_floating(features, [&](auto t) { return run<decltype(t)>(dense, k); });
}

}  // namespace

TORCH_LIBRARY_IMPL(smore_ext, CUDA, m) { knn_op::bind(m, &knn_cuda); }

}  // namespace smore
