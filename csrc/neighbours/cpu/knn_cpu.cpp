// CPU binding of knn: similarity blocks by matrix product. Within one table those of the upper triangle, offered to
// rows and columns at once; against a base, one run of queries after the other.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <torch/library.h>

#include <cmath>

#include "common/dispatch.h"
#include "common/ieee_products.h"
#include "cpu/aligned.h"
#include "cpu/output.h"
#include "cpu/parallel.h"
#include "neighbours/cpu/knn_kernel.h"
#include "neighbours/cpu/row_squares_kernel.h"
#include "neighbours/knn.h"
#include "neighbours/row_range.h"

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

// Rows with their squared norms, which must be finite.
template <typename T>
class Table {
 public:
  Table(const char* name, const Tensor& rows) : n(rows.size(0)), d(rows.size(1)), x(rows.const_data_ptr<T>()) {
    parallel_ranges(n, 64, [&](int64_t begin, int64_t end) { row_squares(x, d, squares_.get(), begin, end); });
    for (int64_t i = 0; i < n; ++i) {
      SMORE_CHECK_VALUE(std::isfinite(square()[i]), "knn", name,
                        " must be finite and their rows' squared norms too, got ", square()[i],
                        " as the squared norm of row ", i);
    }
  }
  const double* square() const { return squares_.get(); }

  const int64_t n, d;
  const T* const x;

 private:
  const AlignedBuffer<double> squares_{n};
};

// Rows [first, first + rows) of a table divided by their norms, a run of them at a time.
template <typename T>
class UnitRows {
 public:
  UnitRows(const Table<T>& table, int64_t most, const at::TensorOptions& options)
      : table_(table), rows_(at::empty({most, table.d}, options)) {}
  Tensor fill(int64_t first, int64_t rows) {
    T* out = rows_.mutable_data_ptr<T>();
    parallel_ranges(rows, 8, [&](int64_t begin, int64_t end) {
      knn_unit_rows(table_.x, table_.d, table_.square(), out + begin * table_.d, first + begin, first + end);
    });
    return rows_.narrow(0, 0, rows);
  }

 private:
  const Table<T>& table_;
  Tensor rows_;
};

// Similarities between two runs of unit rows.
template <typename T>
class Block {
 public:
  Block(int64_t rows, int64_t columns, const at::TensorOptions& options)
      : values_(at::empty({rows * columns}, options)) {}
  const T* product(const Tensor& a, const Tensor& b) {
    Tensor s = values_.narrow(0, 0, a.size(0) * b.size(0)).view({a.size(0), b.size(0)});
    at::mm_out(s, a, b.t());
    return s.const_data_ptr<T>();
  }

 private:
  Tensor values_;
};

// Memory of candidate lists, and a view of them.
template <typename T>
class Lists {
 public:
  Lists(int64_t rows, int64_t k, int64_t d)
      : rows_(rows),
        k_(k),
        d_(d),
        scores_(rows * knn_capacity(k)),
        bar_(rows),
        indices_(rows * knn_capacity(k)),
        count_(rows) {}
  KnnCandidates<T> emptied() {
    std::fill(count_.get(), count_.get() + rows_, 0);
    std::fill(bar_.get(), bar_.get() + rows_, -std::numeric_limits<T>::infinity());
    return {k_, knn_capacity(k_), knn_margin<T>(d_), scores_.get(), indices_.get(), count_.get(), bar_.get()};
  }

 private:
  int64_t rows_, k_, d_;
  AlignedBuffer<T> scores_, bar_;
  AlignedBuffer<int32_t> indices_, count_;
};

// Results of `rows` queries from number `first` on.
template <typename T>
void finish(const KnnCandidates<T>& lists, const KnnTables<T>& tables, int64_t rows, int64_t first, Tensor& similarity,
            Tensor& index) {
  T* out = similarity.mutable_data_ptr<T>() + first * similarity.size(1);
  int64_t* out_index = index.mutable_data_ptr<int64_t>() + first * index.size(1);
  parallel_ranges(rows, 16, [&](int64_t begin, int64_t end) { knn_finish(lists, tables, out, out_index, begin, end); });
}

template <typename T>
void within(const Tensor& features, int64_t k, KnnSelf self, Tensor& similarity, Tensor& index) {
  const Table<T> table("features", features);
  const int64_t n = table.n, step = block_rows<T>(n, table.d);
  Lists<T> memory(n, k, table.d);
  KnnCandidates<T> lists = memory.emptied();
  UnitRows<T> left(table, step, features.options()), right(table, step, features.options());
  Block<T> block(step, step, features.options());
  for (int64_t i = 0; i < n; i += step) {
    const int64_t rows = std::min(step, n - i);
    const Tensor a = left.fill(i, rows);
    for (int64_t j = i; j < n; j += step) {
      const int64_t columns = std::min(step, n - j);
      const T* values = block.product(a, j > i ? right.fill(j, columns) : a);
      parallel_ranges(rows, 8, [&](int64_t begin, int64_t end) {
        knn_offer_rows(lists, values, columns, i, j, columns, begin, end);
      });
      if (j == i) continue;
      parallel_ranges(columns, 64, [&](int64_t begin, int64_t end) {
        knn_offer_columns(lists, values, columns, i, j, rows, begin, end);
      });
    }
  }
  finish<T>(lists, {table.x, table.square(), table.x, table.square(), n, table.d, self}, n, 0, similarity, index);
}

template <typename T>
void among(const Tensor& queries, const Tensor& base, int64_t k, Tensor& similarity, Tensor& index) {
  const Table<T> query("features", queries), table("base", base);
  const int64_t n = table.n, d = table.d, run = block_rows<T>(query.n, d), step = block_rows<T>(n, d);
  Lists<T> memory(run, k, d);
  UnitRows<T> left(query, run, base.options()), right(table, step, base.options());
  Block<T> block(run, step, base.options());
  for (int64_t i = 0; i < query.n; i += run) {
    const int64_t rows = std::min(run, query.n - i);
    const Tensor a = left.fill(i, rows);
    KnnCandidates<T> lists = memory.emptied();
    for (int64_t j = 0; j < n; j += step) {
      const int64_t columns = std::min(step, n - j);
      const T* values = block.product(a, right.fill(j, columns));
      parallel_ranges(rows, 8, [&](int64_t begin, int64_t end) {
        knn_offer_rows(lists, values, columns, 0, j, columns, begin, end);
      });
    }
    finish<T>(lists, {query.x + i * d, query.square() + i, table.x, table.square(), n, d, KnnSelf::none}, rows, i,
              similarity, index);
  }
}

std::tuple<Tensor, Tensor> knn_cpu(const Tensor& features, int64_t k, const std::optional<Tensor>& base,
                                   bool exclude_self) {
  check_knn(features, k, base, exclude_self);
  const int64_t n = features.size(0);
  Tensor similarity = empty_output({n, k}, features.options());
  Tensor index = empty_output({n, k}, features.options().dtype(at::kLong));
  if (n == 0) return {similarity, index};
  const KnnSelf self = knn_self(base, exclude_self);
  const Tensor dense = ranged(features.contiguous()).rows;
  const IeeeProducts ieee;
  dispatch_floating(features, [&](auto t) {
    if (base.has_value()) {
      among<decltype(t)>(dense, ranged(base->contiguous()).rows, k, similarity, index);
    } else {
      within<decltype(t)>(dense, knn_listed(k, self), self, similarity, index);
    }
  });
  return {similarity, index};
}

}  // namespace

TORCH_LIBRARY_IMPL(smore_ext, CPU, m) { knn_op::bind(m, &knn_cpu); }

}  // namespace smore
