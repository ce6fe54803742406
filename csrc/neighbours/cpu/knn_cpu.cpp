// CPU binding of knn: similarity blocks of the upper triangle by matrix product, offered to rows and columns
// at once.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <torch/library.h>

#include "common/dispatch.h"
#include "common/ieee_products.h"
#include "cpu/aligned.h"
#include "cpu/output.h"
#include "cpu/parallel.h"
#include "neighbours/cpu/knn_kernel.h"
#include "neighbours/knn.h"
#include "neighbours/knn_rules.h"

namespace smore {
namespace {

using at::Tensor;

// Two blocks of unit rows and one block of similarities are the only scratch besides the candidate lists.
constexpr int64_t kBlockBytes = 8 << 20;

template <typename T>
int64_t block_rows(int64_t n, int64_t d) {
  const int64_t fitting = kBlockBytes / static_cast<int64_t>(sizeof(T)) / std::max<int64_t>(d, 1);
  return std::min(n, std::clamp<int64_t>(fitting, 16, 1024));
}

template <typename T>
std::tuple<Tensor, Tensor> run(const Tensor& features, int64_t k) {
  const int64_t n = features.size(0), d = features.size(1);
  Tensor similarity = empty_output({n, k}, features.options());
  Tensor index = empty_output({n, k}, features.options().dtype(at::kLong));
  if (n == 0) return {similarity, index};
  const T* x = features.const_data_ptr<T>();
  const IeeeProducts ieee;
  const AlignedBuffer<double> square(n);
  parallel_ranges(n, 64, [&](int64_t begin, int64_t end) { knn_squares(x, d, square.get(), begin, end); });
  for (int64_t i = 0; i < n; ++i) {
    SMORE_CHECK_VALUE(std::isfinite(square.get()[i]), "knn",
                      "features must be finite and their rows' squared norms too, got ", square.get()[i],
                      " as the squared norm of row ", i);
  }

  const int64_t capacity = knn_capacity(k);
  const AlignedBuffer<T> scores(n * capacity), bar(n);
  const AlignedBuffer<int32_t> indices(n * capacity), count(n);
  std::fill(count.get(), count.get() + n, 0);
  std::fill(bar.get(), bar.get() + n, -std::numeric_limits<T>::infinity());
  KnnCandidates<T> lists{n, k, capacity, knn_margin<T>(d), scores.get(), indices.get(), count.get(), bar.get()};

  const int64_t step = block_rows<T>(n, d);
  Tensor left = at::empty({step, d}, features.options()), right = at::empty({step, d}, features.options());
  Tensor block = at::empty({step, step}, features.options());
  const auto unit_rows = [&](Tensor& to, int64_t first, int64_t rows) {
    T* out = to.mutable_data_ptr<T>();
    parallel_ranges(rows, 8, [&](int64_t begin, int64_t end) {
      knn_unit_rows(x, d, square.get(), out + begin * d, first + begin, first + end);
    });
  };
  for (int64_t i = 0; i < n; i += step) {
    const int64_t rows = std::min(step, n - i);
    unit_rows(left, i, rows);
    const Tensor a = left.narrow(0, 0, rows);
    for (int64_t j = i; j < n; j += step) {
      const int64_t columns = std::min(step, n - j);
      if (j > i) unit_rows(right, j, columns);
      const Tensor b = (j > i ? right : left).narrow(0, 0, columns);
      Tensor s = block.view({-1}).narrow(0, 0, rows * columns).view({rows, columns});
      at::mm_out(s, a, b.t());
      const T* values = s.const_data_ptr<T>();
      parallel_ranges(rows, 8, [&](int64_t begin, int64_t end) {
        knn_offer_rows(lists, values, columns, i, j, columns, begin, end);
      });
      if (j == i) continue;
      parallel_ranges(columns, 64, [&](int64_t begin, int64_t end) {
        knn_offer_columns(lists, values, columns, i, j, rows, begin, end);
      });
    }
  }
  T* out = similarity.mutable_data_ptr<T>();
  int64_t* out_index = index.mutable_data_ptr<int64_t>();
  parallel_ranges(
      n, 16, [&](int64_t begin, int64_t end) { knn_finish(lists, x, d, square.get(), out, out_index, begin, end); });
  return {similarity, index};
}

std::tuple<Tensor, Tensor> knn_cpu(const Tensor& features, int64_t k) {
  check_knn(features, k);
  const Tensor dense = features.contiguous();
  return dispatch_floating(features, [&](auto t) { return run<decltype(t)>(dense, k); });
}

}  // namespace

TORCH_LIBRARY_IMPL(smore_ext, CPU, m) { knn_op::bind(m, &knn_cpu); }

}  // namespace smore
