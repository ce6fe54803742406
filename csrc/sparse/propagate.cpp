// The contract of propagate is in sparse/spmm.h.
#include <torch/library.h>

#include "sparse/product.h"
#include "sparse/spmm.h"

namespace smore {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

Tensor propagate_autograd(const Tensor& rowptr, const Tensor& col, const Tensor& weight, const Tensor& t_rowptr,
                          const Tensor& t_col, const Tensor& t_weight, const Tensor& x, int64_t n_layers, bool mean,
                          const OptionalTensor& gate, const OptionalTensor& scale) {
  check_propagate("propagate", rowptr, col, weight, t_rowptr, t_col, t_weight, x, n_layers, gate, scale);
  return differentiable_product({rowptr, col, weight, t_rowptr, t_col, t_weight}, x, {false, n_layers, mean, scale},
                                gate);
}

Tensor propagate_autocast(const Tensor& rowptr, const Tensor& col, const Tensor& weight, const Tensor& t_rowptr,
                          const Tensor& t_col, const Tensor& t_weight, const Tensor& x, int64_t n_layers, bool mean,
                          const OptionalTensor& gate, const OptionalTensor& scale) {
  return autocast_product({rowptr, col, weight, t_rowptr, t_col, t_weight}, x, {false, n_layers, mean, scale}, gate);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(smore_ext, m) {
  m.def(
      "propagate(Tensor rowptr, Tensor col, Tensor weight, Tensor t_rowptr, Tensor t_col, Tensor t_weight, Tensor x, "
      "int n_layers, bool mean=True, Tensor? gate=None, Tensor? scale=None) -> Tensor");
}

TORCH_LIBRARY_IMPL(smore_ext, Autograd, m) { propagate_op::bind(m, &propagate_autograd); }
TORCH_LIBRARY_IMPL(smore_ext, AutocastCPU, m) { propagate_op::bind(m, &propagate_autocast); }
TORCH_LIBRARY_IMPL(smore_ext, AutocastCUDA, m) { propagate_op::bind(m, &propagate_autocast); }

}  // namespace smore
