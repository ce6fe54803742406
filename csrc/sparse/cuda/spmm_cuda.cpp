// CUDA binding of spmm, propagate and poly_filter.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "cuda/index_check.h"
#include "sparse/cuda/gather_kernel.h"
#include "sparse/cuda/spmm_kernel.h"
#include "sparse/spmm_run.h"

namespace smore {
namespace {

using at::Tensor;

class Cuda {
 public:
  Cuda(const char* op, const CsrTensors& csr, const Tensor& x)
      : guard_(x.device()), lengths_(cuda::check_csr_cuda(op, "", csr.rowptr, csr.col, x.size(0), false)) {
    dispatch_rows(x, csr.rowptr, [&](auto s, auto) {
      const int64_t bytes = cuda::spmm_scratch_bytes<decltype(s)>(csr.col.size(0), x.size(1), lengths_);
      scratch_ = at::empty({bytes}, x.options().dtype(at::kByte));
    });
  }

  static Tensor empty(at::IntArrayRef sizes, const at::TensorOptions& options) { return at::empty(sizes, options); }

  static Tensor gather(const char* op, const GraphTensors& graph) {
    const c10::cuda::CUDAGuard guard(graph.weight.device());
    const Tensor weight = graph.weight.contiguous(), order = graph.order->contiguous();
    const int64_t n_edges = order.size(0);
    cuda::check_csr_cuda(op, kOrderEntry, graph.rowptr.contiguous(), order, n_edges, false);
    Tensor result = at::empty(weight.sizes(), weight.options());
    dispatch_floating(weight, [&](auto t) {
      using T = decltype(t);
      dispatch_index(order, [&](auto i) {
        cuda::gather_weights(read<T>(weight), read<decltype(i)>(order), n_edges, write<T>(result),
                             c10::cuda::getCurrentCUDAStream());
      });
    });
    return result;
  }

  template <typename S, typename I>
  void multiply(const CsrMatrix<Accumulator<S>, I>& a, const S* x, int64_t width, const SpmmOutput<S>& out) const {
    cuda::spmm(a, x, width, out, lengths_, scratch_.mutable_data_ptr(), c10::cuda::getCurrentCUDAStream());
  }

 private:
  c10::cuda::CUDAGuard guard_;
  cuda::RowLengths lengths_;
  Tensor scratch_;
};

}  // namespace

TORCH_LIBRARY_IMPL(smore_ext, CUDA, m) {
  spmm_op::bind(m, &SpmmOps<Cuda>::spmm);
  propagate_op::bind(m, &SpmmOps<Cuda>::propagate);
  poly_filter_op::bind(m, &SpmmOps<Cuda>::poly_filter);
  gated_product_backward_op::bind(m, &SpmmOps<Cuda>::gated_backward);
}

}  // namespace smore
