// CUDA binding of table_linear: cuBLAS's products, whose sums have a fixed order on one device, with torch's own
// setting for their precision (torch.set_float32_matmul_precision).
#include <ATen/core/Tensor.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sum.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/cuda/CUDAGuard.h>
#include <torch/library.h>

#include "tables/table_linear.h"

namespace smore {
namespace {

using at::Tensor;

// Under autocast, torch's products would turn to half precision.
struct NoAutocast {
  c10::impl::ExcludeDispatchKeyGuard guard{c10::autocast_dispatch_keyset};
};

Tensor table_linear_cuda(const Tensor& table, const Tensor& weight, const Tensor& bias) {
  check_table_linear(table, weight, bias);
  const c10::cuda::CUDAGuard guard(table.device());
  const NoAutocast no_autocast;
  return at::addmm(bias, table, weight.t());
}

std::tuple<Tensor, Tensor> table_linear_backward_cuda(const Tensor& grad, const Tensor& table) {
  check_table_linear_backward(grad, table);
  const c10::cuda::CUDAGuard guard(table.device());
  const NoAutocast no_autocast;
  return {at::mm(grad.t(), table), at::sum(grad, 0)};
}

}  // namespace

TORCH_LIBRARY_IMPL(smore_ext, CUDA, m) {
  table_linear_op::bind(m, &table_linear_cuda);
  table_linear_backward_op::bind(m, &table_linear_backward_cuda);
}

}  // namespace smore
