// CUDA binding of spmm and propagate.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "cuda/index_check.h"
#include "cuda/spmm_kernel.h"
#include "ops/spmm.h"
#include "ops/spmm_run.h"

namespace smore {
namespace {

using at::Tensor;

Tensor scratch_for(const Tensor& x, int64_t n_edges, const cuda::RowLengths& lengths) {
  const int64_t width = x.size(1);
  const int64_t bytes = x.scalar_type() == at::kFloat ? cuda::spmm_scratch_bytes<float>(n_edges, width, lengths)
                                                      : cuda::spmm_scratch_bytes<double>(n_edges, width, lengths);
  return at::empty({bytes}, x.options().dtype(at::kByte));
}

Tensor spmm_cuda(const Tensor& rowptr, const Tensor& col, const Tensor& weight, const Tensor& t_rowptr,
                 const Tensor& t_col, const Tensor& t_weight, const Tensor& x) {
  check_spmm("spmm", rowptr, col, weight, t_rowptr, t_col, t_weight, x);
  const c10::cuda::CUDAGuard guard(x.device());
  const CsrTensors csr(rowptr, col, weight);
  const cuda::RowLengths lengths = cuda::check_csr_cuda("spmm", "", csr.rowptr, csr.col, x.size(0), false);
  const Tensor dense = x.contiguous();
  Tensor y = at::empty({rowptr.size(0) - 1, x.size(1)}, x.options());
  if (y.numel() == 0) return y;
  Tensor scratch = scratch_for(x, col.size(0), lengths);
  dispatch_spmm(x, rowptr, [&](auto t, auto i) {
    using T = decltype(t);
    using I = decltype(i);
    cuda::spmm(csr.view<T, I>(x.size(0)), dense.const_data_ptr<T>(), x.size(1),
               {y.mutable_data_ptr<T>(), nullptr, nullptr, T(1)}, lengths, scratch.mutable_data_ptr(),
               c10::cuda::getCurrentCUDAStream());
  });
  return y;
}

Tensor propagate_cuda(const Tensor& rowptr, const Tensor& col, const Tensor& weight, const Tensor& t_rowptr,
                      const Tensor& t_col, const Tensor& t_weight, const Tensor& x, int64_t n_layers, bool mean) {
  check_propagate("propagate", rowptr, col, weight, t_rowptr, t_col, t_weight, x, n_layers);
  const c10::cuda::CUDAGuard guard(x.device());
  if (n_layers == 0) return x.clone(at::MemoryFormat::Contiguous);
  const CsrTensors csr(rowptr, col, weight);
  const cuda::RowLengths lengths = cuda::check_csr_cuda("propagate", "", csr.rowptr, csr.col, x.size(0), false);
  const Tensor first = x.contiguous();
  if (first.numel() == 0) return at::empty(first.sizes(), x.options());
  Tensor scratch = scratch_for(x, col.size(0), lengths);
  Tensor result;
  dispatch_spmm(x, rowptr, [&](auto t, auto i) {
    using T = decltype(t);
    using I = decltype(i);
    const CsrMatrix<T, I> a = csr.view<T, I>(x.size(0));
    result = propagate_layers<T>(
        first, n_layers, mean, [&] { return at::empty(first.sizes(), x.options()); },
        [&](const T* from, const SpmmOutput<T>& out) {
          cuda::spmm(a, from, x.size(1), out, lengths, scratch.mutable_data_ptr(), c10::cuda::getCurrentCUDAStream());
        });
  });
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(smore_ext, CUDA, m) {
  m.impl("spmm", &spmm_cuda);
  m.impl("propagate", &propagate_cuda);
}

}  // namespace smore
