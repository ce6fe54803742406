// CPU binding of masked_topk: packs the items once and shares blocks of users out over torch's threads. A single block,
// as a server asks for, packs what it meets: nothing is written that another would read.
#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include "cpu/aligned.h"
#include "cpu/csr_check.h"
#include "cpu/output.h"
#include "cpu/parallel.h"
#include "ranking/cpu/masked_topk_kernel.h"
#include "ranking/masked_topk.h"

namespace smore {
namespace {

using at::Tensor;

template <typename T, typename I>
void run(const Tensor& users, const Tensor& items, int64_t k, const Tensor& rowptr, const Tensor& col, Tensor& score,
         Tensor& index) {
  const int64_t n_users = users.size(0), n_items = items.size(0), d = users.size(1);
  const I* seen_rowptr = rowptr.defined() ? rowptr.const_data_ptr<I>() : nullptr;
  const I* seen_col = rowptr.defined() ? col.const_data_ptr<I>() : nullptr;
  if (seen_rowptr != nullptr) {
    check_sorted_rows("masked_topk", "seen", seen_rowptr, n_users, seen_col, col.size(0), n_items);
  }
  const int64_t panels = topk_blocks(n_users) > 1 ? topk_panels<T>(n_items) : 0;
  const AlignedBuffer<T> packed(panels * topk_panel_elements<T>(d));
  const T* item_rows = items.const_data_ptr<T>();
  parallel_ranges(panels, 16,
                  [&](int64_t begin, int64_t end) { topk_pack(item_rows, n_items, d, packed.get(), begin, end); });
  const TopkJob<T, I> job{users.const_data_ptr<T>(),
                          n_users,
                          n_items,
                          d,
                          k,
                          item_rows,
                          panels > 0 ? packed.get() : nullptr,
                          seen_rowptr,
                          seen_col,
                          score.mutable_data_ptr<T>(),
                          index.mutable_data_ptr<int64_t>()};
  parallel_ranges(topk_blocks(n_users), 1, [&](int64_t begin, int64_t end) { topk_users(job, begin, end); });
}

std::tuple<Tensor, Tensor> masked_topk_cpu(const Tensor& users, const Tensor& items, int64_t k,
                                           const std::optional<Tensor>& seen_rowptr,
                                           const std::optional<Tensor>& seen_col) {
  check_masked_topk(users, items, k, seen_rowptr, seen_col);
  const Tensor u = users.contiguous(), i = items.contiguous();
  const Tensor rowptr = seen_rowptr.has_value() ? seen_rowptr->contiguous() : Tensor();
  const Tensor col = seen_col.has_value() ? seen_col->contiguous() : Tensor();
  Tensor score = empty_output({users.size(0), k}, users.options());
  Tensor index = empty_output({users.size(0), k}, users.options().dtype(at::kLong));
  dispatch_topk(u, rowptr,
                [&](auto t, auto id) { run<decltype(t), decltype(id)>(u, i, k, rowptr, col, score, index); });
  return {score, index};
}

}  // namespace

TORCH_LIBRARY_IMPL(smore_ext, CPU, m) { masked_topk_op::bind(m, &masked_topk_cpu); }

}  // namespace smore
