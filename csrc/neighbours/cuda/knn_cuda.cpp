// CUDA binding of knn: scratch memory, matrix products by torch, the check of the features.
#include <ATen/core/Tensor.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <limits>
#include <type_traits>

#include "common/dispatch.h"
#include "common/ieee_products.h"
#include "cuda/capture.h"
#include "neighbours/cuda/knn_int8.h"
#include "neighbours/cuda/knn_kernel.h"
#include "neighbours/cuda/knn_lists.h"
#include "neighbours/cuda/row_squares_kernel.h"
#include "neighbours/knn.h"
#include "neighbours/row_range.h"

namespace smore {
namespace {

using at::Tensor;

// Squared norms of rows, which must be finite. Reads the verdict back, unless a graph is being captured, which runs
// later.
template <typename T>
Tensor checked_squares(const char* name, const Tensor& rows, cudaStream_t stream) {
  Tensor square = at::empty({rows.size(0)}, rows.options().dtype(at::kDouble));
  Tensor not_finite = at::empty({1}, rows.options().dtype(at::kInt));
  cuda::row_squares(rows.const_data_ptr<T>(), rows.size(0), rows.size(1), square.mutable_data_ptr<double>(),
                    not_finite.mutable_data_ptr<int32_t>(), stream);
  if (cuda::capturing()) return square;
  const int64_t found = not_finite.item<int32_t>();
  if (found == 0) return square;
  const int64_t row = std::numeric_limits<int32_t>::max() - found;
  SMORE_CHECK_VALUE(false, "knn", name, " must be finite and their rows' squared norms too, got ",
                    square[row].item<double>(), " as the squared norm of row ", row);
}

// Two panels of unit rows, the tile of their similarities, and the product between them.
template <typename T>
struct Tiles {
  Tensor left, right, tile;
  Tiles(const cuda::KnnShape& shape, const at::TensorOptions& floats)
      : left(at::empty({shape.left_elements()}, floats)),
        right(at::empty({shape.right_elements()}, floats)),
        tile(at::empty({shape.tile_elements()}, floats)) {}
  cuda::KnnScratch<T> scratch() {
    return {left.mutable_data_ptr<T>(), right.mutable_data_ptr<T>(), tile.mutable_data_ptr<T>()};
  }
  void operator()(const T*, int64_t rows, const T*, int64_t columns, int64_t width, T*, int64_t stride,
                  bool add) const {
    const Tensor a = left.narrow(0, 0, rows * width).view({rows, width});
    const Tensor b = right.narrow(0, 0, columns * width).view({columns, width}).t();
    Tensor out = tile.narrow(0, 0, rows * stride).view({rows, stride}).narrow(1, 0, columns);
    add ? at::addmm_out(out, out, a, b, 1, 1) : at::mm_out(out, a, b);
  }
};

template <typename T>
void within(const Tensor& features, int64_t k, KnnSelf self, Tensor& similarity, Tensor& index, cudaStream_t stream) {
  const int64_t n = features.size(0), d = features.size(1);
  const T* x = features.const_data_ptr<T>();
  const Tensor square = checked_squares<T>("features", features, stream);
  if constexpr (std::is_same_v<T, float>) {
    const KnnRows rows{features, square};
    if (knn_int8_wanted() && knn_int8(rows, rows, k, self, similarity, index, stream)) return;
  }
  const double* squares = square.const_data_ptr<double>();
  const cuda::KnnTables<T> tables{x, squares, x, squares, n, d, self};
  const cuda::KnnShape shape = cuda::knn_shape_within<T>(n, d, k);
  KnnListMemory<T> memory(n, k, knn_margin<T>(d), features.options());
  Tiles<T> tiles(shape, features.options());
  const cuda::KnnLists<T> lists = memory.emptied(stream);
  cuda::knn_collect(lists, tables, shape, tiles.scratch(), tiles, stream);
  cuda::knn_finish(lists, tables, n, similarity.mutable_data_ptr<T>(), index.mutable_data_ptr<int64_t>(), stream);
}

template <typename T>
void among(const Tensor& queries, const Tensor& base, int64_t k, Tensor& similarity, Tensor& index,
           cudaStream_t stream) {
  const int64_t n = base.size(0), d = base.size(1), all = queries.size(0);
  const Tensor query_square = checked_squares<T>("features", queries, stream);
  const Tensor base_square = checked_squares<T>("base", base, stream);
  if constexpr (std::is_same_v<T, float>) {
    const KnnRows of_queries{queries, query_square}, of_base{base, base_square};
    if (knn_int8_wanted() && knn_int8(of_queries, of_base, k, KnnSelf::none, similarity, index, stream)) return;
  }
  const cuda::KnnShape shape = cuda::knn_shape_among<T>(all, n, d, k);
  KnnListMemory<T> memory(shape.rows, k, knn_margin<T>(d), base.options());
  Tiles<T> tiles(shape, base.options());
  for (int64_t i = 0; i < all; i += shape.rows) {
    const int64_t rows = std::min(shape.rows, all - i);
    const cuda::KnnTables<T> tables{queries.const_data_ptr<T>() + i * d,
                                    query_square.const_data_ptr<double>() + i,
                                    base.const_data_ptr<T>(),
                                    base_square.const_data_ptr<double>(),
                                    n,
                                    d,
                                    KnnSelf::none};
    const cuda::KnnLists<T> lists = memory.emptied(stream);
    cuda::knn_collect_strip(lists, tables, rows, shape, tiles.scratch(), tiles, stream);
    cuda::knn_finish(lists, tables, rows, similarity.mutable_data_ptr<T>() + i * k,
                     index.mutable_data_ptr<int64_t>() + i * k, stream);
  }
}

std::tuple<Tensor, Tensor> knn_cuda(const Tensor& features, int64_t k, const std::optional<Tensor>& base,
                                    bool exclude_self) {
  const c10::cuda::CUDAGuard guard(features.device());
  check_knn(features, k, base, exclude_self);
  const int64_t n = features.size(0);
  Tensor similarity = at::empty({n, k}, features.options());
  Tensor index = at::empty({n, k}, features.options().dtype(at::kLong));
  if (n == 0) return {similarity, index};
  const KnnSelf self = knn_self(base, exclude_self);
  // A graph that is being captured cannot wait, and takes rows as they are.
  const auto in_range = [](const Tensor& rows) { return cuda::capturing() ? rows : ranged(rows).rows; };
  const Tensor dense = in_range(features.contiguous());
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  const IeeeProducts ieee;
  dispatch_floating(features, [&](auto t) {
    if (base.has_value()) {
      among<decltype(t)>(dense, in_range(base->contiguous()), k, similarity, index, stream);
    } else {
      within<decltype(t)>(dense, knn_listed(k, self), self, similarity, index, stream);
    }
  });
  return {similarity, index};
}

}  // namespace

TORCH_LIBRARY_IMPL(smore_ext, CUDA, m) { knn_op::bind(m, &knn_cuda); }

}  // namespace smore
