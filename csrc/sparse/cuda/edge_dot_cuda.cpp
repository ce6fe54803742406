// CUDA binding of edge_dot.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "cuda/index_check.h"
#include "sparse/cuda/edge_dot_kernel.h"
#include "sparse/edge_dot.h"
#include "sparse/rows_dispatch.h"

namespace smore {
namespace {

using at::Tensor;

Tensor edge_dot_cuda(const Tensor& rowptr, const Tensor& col, const Tensor& t_rowptr, const Tensor& t_col,
                     const Tensor& t_order, const Tensor& u, const Tensor& v) {
  check_edge_dot("edge_dot", rowptr, col, t_rowptr, t_col, t_order, u, v);
  const c10::cuda::CUDAGuard guard(u.device());
  const Tensor pointers = rowptr.contiguous(), columns = col.contiguous(), left = u.contiguous(),
               right = v.contiguous();
  const cuda::RowLengths lengths = cuda::check_csr_cuda("edge_dot", "", pointers, columns, v.size(0), false);
  Tensor result = at::empty({col.size(0)}, u.options().dtype(accumulator_type(u)));
  dispatch_rows(u, rowptr, [&](auto s, auto i) {
    using S = decltype(s);
    using I = decltype(i);
    const EdgeDot<S, I> job{read<I>(pointers), read<I>(columns), u.size(0),
                            v.size(0),         col.size(0),      read<S>(left),
                            read<S>(right),    u.size(1),        write<Accumulator<S>>(result)};
    cuda::edge_dot(job, lengths, c10::cuda::getCurrentCUDAStream());
  });
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(smore_ext, CUDA, m) { edge_dot_op::bind(m, &edge_dot_cuda); }

}  // namespace smore
