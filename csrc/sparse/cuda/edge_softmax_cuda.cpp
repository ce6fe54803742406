// CUDA binding of edge_softmax.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "cuda/index_check.h"
#include "sparse/cuda/edge_softmax_kernel.h"
#include "sparse/edge_softmax.h"
#include "sparse/rows_dispatch.h"

namespace smore {
namespace {

using at::Tensor;

// kernel(rows, result, lengths, scratch, stream) over all rows; the type is that of `like`.
template <typename F>
Tensor over_rows(const char* op, const Tensor& rowptr, const Tensor& col, const Tensor& like, const F& kernel) {
  const c10::cuda::CUDAGuard guard(like.device());
  const Tensor pointers = rowptr.contiguous(), columns = col.contiguous();
  const cuda::RowLengths lengths = cuda::check_csr_cuda(op, "", pointers, columns, kAnyColumn, false);
  Tensor result = at::empty(like.sizes(), like.options());
  dispatch_floating(like, [&](auto t) {
    using T = decltype(t);
    dispatch_index(rowptr, [&](auto i) {
      using I = decltype(i);
      const cuda::EdgeRows<I> rows{read<I>(pointers), rowptr.size(0) - 1, like.size(0)};
      const int64_t bytes = cuda::edge_softmax_scratch_bytes<T>(rows.n_edges, lengths);
      const Tensor scratch = at::empty({bytes}, like.options().dtype(at::kByte));
      kernel(rows, write<T>(result), lengths, scratch.mutable_data_ptr(), c10::cuda::getCurrentCUDAStream());
    });
  });
  return result;
}

Tensor edge_softmax_cuda(const Tensor& rowptr, const Tensor& col, const Tensor& logits) {
  check_edge_softmax("edge_softmax", rowptr, col, logits);
  const Tensor from = logits.contiguous();
  return over_rows("edge_softmax", rowptr, col, logits, [&](const auto& rows, auto* y, const auto&... rest) {
    cuda::edge_softmax(rows, read<std::remove_pointer_t<decltype(y)>>(from), y, rest...);
  });
}

Tensor edge_softmax_backward_cuda(const Tensor& rowptr, const Tensor& col, const Tensor& y, const Tensor& grad) {
  check_edge_softmax_backward(rowptr, col, y, grad);
  const Tensor values = y.contiguous(), incoming = grad.contiguous();
  return over_rows("edge_softmax_backward", rowptr, col, y, [&](const auto& rows, auto* out, const auto&... rest) {
    using T = std::remove_pointer_t<decltype(out)>;
    cuda::edge_softmax_backward(rows, read<T>(values), read<T>(incoming), out, rest...);
  });
}

}  // namespace

TORCH_LIBRARY_IMPL(smore_ext, CUDA, m) {
  edge_softmax_op::bind(m, &edge_softmax_cuda);
  edge_softmax_backward_op::bind(m, &edge_softmax_backward_cuda);
}

}  // namespace smore
