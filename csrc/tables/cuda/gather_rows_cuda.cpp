// CUDA binding of gather_rows.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <algorithm>

#include "cuda/index_check.h"
#include "tables/cuda/gather_rows_kernel.h"
#include "tables/gather_rows.h"
#include "tables/gather_rows_run.h"

namespace smore {
namespace {

using at::Tensor;
using at::TensorList;

std::vector<Tensor> gather_rows_cuda(TensorList tables, const Tensor& index, bool check) {
  constexpr const char* op = "gather_rows";
  check_gather_rows(op, "tables", tables, index, rows_in(tables));
  const c10::cuda::CUDAGuard guard(tables[0].device());
  const Tensor ids = index.contiguous();
  if (check) cuda::check_ids_cuda(op, "index", ids, tables[0].size(0));
  std::vector<Tensor> result;
  for (const Tensor& table : tables) {
    const Tensor rows = table.contiguous();
    Tensor out = at::empty({ids.size(0), table.size(1)}, table.options());
    dispatch_rows(table, [&](auto type, auto torch_type) {
      using S = decltype(type);
      using Torch = decltype(torch_type);
      cuda::gather_rows<S>(rows_of<S, Torch>(rows), rows.size(0), rows.size(1), ids.const_data_ptr<int64_t>(),
                           ids.size(0), rows_to<S, Torch>(out), c10::cuda::getCurrentCUDAStream());
    });
    result.push_back(std::move(out));
  }
  return result;
}

// The index was checked forward: not again, which would make the host wait.
std::vector<Tensor> gather_rows_backward_cuda(TensorList grads, const Tensor& index, c10::SymInt rows) {
  constexpr const char* op = "gather_rows_backward";
  const int64_t n = rows.expect_int(), size = index.size(0);
  check_gather_rows(op, "grads", grads, index, index.sym_size(0));
  SMORE_CHECK_VALUE(n >= 0, op, "n must be at least 0, got ", n);
  const c10::cuda::CUDAGuard guard(grads[0].device());
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  const Tensor ids = index.contiguous();
  std::vector<Tensor> result;
  int64_t widest = 0;
  for (const Tensor& grad : grads) widest = std::max(widest, grad.size(1));
  if (size == 0 || n == 0 || widest == 0) {
    for (const Tensor& grad : grads) result.push_back(at::zeros({n, grad.size(1)}, grad.options()));
    return result;
  }
  Tensor scratch = at::empty({cuda::gather_scratch(n, size)}, ids.options().dtype(at::kInt));
  int32_t* lists = scratch.mutable_data_ptr<int32_t>();
  cuda::gather_lists(ids.const_data_ptr<int64_t>(), size, n, lists, stream);
  for (const Tensor& grad : grads) {
    const Tensor dense = grad.contiguous();
    Tensor out = at::empty({n, grad.size(1)}, grad.options());
    dispatch_rows(grad, [&](auto type, auto torch_type) {
      using S = decltype(type);
      using Torch = decltype(torch_type);
      cuda::gather_rows_backward<S>(rows_of<S, Torch>(dense), ids.const_data_ptr<int64_t>(), size, n, dense.size(1),
                                    lists, rows_to<S, Torch>(out), stream);
    });
    result.push_back(std::move(out));
  }
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(smore_ext, CUDA, m) {
  gather_rows_op::bind(m, &gather_rows_cuda);
  gather_rows_backward_op::bind(m, &gather_rows_backward_cuda);
}

}  // namespace smore
