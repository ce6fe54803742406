// CUDA binding of masked_topk: scratch memory and matrix products by torch.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "common/ieee_products.h"
#include "cuda/index_check.h"
#include "ranking/cuda/masked_topk_kernel.h"
#include "ranking/masked_topk.h"

namespace smore {
namespace {

using at::Tensor;

template <typename T, typename I>
void run(const Tensor& users, const Tensor& items, int64_t k, const Tensor& rowptr, const Tensor& col, Tensor& score,
         Tensor& index) {
  const int64_t n_users = users.size(0), n_items = items.size(0);
  const at::TensorOptions floats = users.options();
  const cuda::TopkShape shape = cuda::topk_shape<T>(n_users, n_items, k);
  const int64_t n_lists = shape.users * shape.splits;
  Tensor scores = at::empty({n_lists, shape.capacity}, floats);
  Tensor indices = at::empty({n_lists, shape.capacity}, floats.dtype(at::kInt));
  Tensor count = at::empty({n_lists}, floats.dtype(at::kLong)), bar = at::empty({n_lists}, floats);
  Tensor tile = at::empty({shape.users * shape.stride()}, floats);
  const cuda::TopkLists<T> lists{k,
                                 shape.capacity,
                                 shape.splits,
                                 scores.mutable_data_ptr<T>(),
                                 reinterpret_cast<uint32_t*>(indices.mutable_data_ptr<int32_t>()),
                                 count.mutable_data_ptr<int64_t>(),
                                 bar.mutable_data_ptr<T>()};
  const cuda::TopkSeen<I> seen{rowptr.defined() ? rowptr.const_data_ptr<I>() : nullptr,
                               rowptr.defined() ? col.const_data_ptr<I>() : nullptr,
                               rowptr.defined() ? col.size(0) : 0};
  const IeeeProducts ieee;
  cuda::topk_search(
      shape, n_users, n_items, lists, seen, tile.mutable_data_ptr<T>(), score.mutable_data_ptr<T>(),
      index.mutable_data_ptr<int64_t>(),
      [&](int64_t user, int64_t rows, int64_t item, int64_t columns, T*, int64_t stride) {
        Tensor out = tile.narrow(0, 0, rows * stride).view({rows, stride}).narrow(1, 0, columns);
        at::mm_out(out, users.narrow(0, user, rows), items.narrow(0, item, columns).t());
      },
      c10::cuda::getCurrentCUDAStream());
}

std::tuple<Tensor, Tensor> masked_topk_cuda(const Tensor& users, const Tensor& items, int64_t k,
                                            const std::optional<Tensor>& seen_rowptr,
                                            const std::optional<Tensor>& seen_col) {
  const c10::cuda::CUDAGuard guard(users.device());
  check_masked_topk(users, items, k, seen_rowptr, seen_col);
  // Detached: the products go through the dispatcher again, and need no graph.
  const Tensor u = users.detach().contiguous(), i = items.detach().contiguous();
  const Tensor rowptr = seen_rowptr.has_value() ? seen_rowptr->contiguous() : Tensor();
  const Tensor col = seen_col.has_value() ? seen_col->contiguous() : Tensor();
  if (rowptr.defined()) cuda::check_csr_cuda("masked_topk", "seen", rowptr, col, items.size(0), true);
  Tensor score = at::empty({users.size(0), k}, users.options());
  Tensor index = at::empty({users.size(0), k}, users.options().dtype(at::kLong));
  if (users.size(0) == 0) return {score, index};
  dispatch_topk(u, rowptr,
                [&](auto t, auto id) { run<decltype(t), decltype(id)>(u, i, k, rowptr, col, score, index); });
  return {score, index};
}

}  // namespace

TORCH_LIBRARY_IMPL(smore_ext, CUDA, m) { masked_topk_op::bind(m, &masked_topk_cuda); }

}  // namespace smore
