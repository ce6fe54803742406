// The contract of propagate is in sparse/spmm.h.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/mul.h>
#include <torch/library.h>

#include "sparse/product.h"
#include "sparse/spmm.h"

namespace smore {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

// A layer at a time, each differentiable any number of times: what a layer read is kept for its backward.
Tensor propagate_in_layers(const GraphTensors& graph, const Tensor& x, int64_t n_layers, bool mean,
                           const OptionalTensor& gate) {
  const Tensor first = gate.has_value() ? at::mul(x, *gate) : x;
  Tensor layer = first;
  for (int64_t l = 0; l < n_layers; ++l) {
    layer = differentiable_product(graph, layer, {true}, std::nullopt);
    if (mean) layer.add_(first);  // in place: no fresh pages
  }
  if (mean) layer.mul_(1 / static_cast<double>(n_layers + 1));
  return layer;
}

Tensor propagate_autograd(const Tensor& rowptr, const Tensor& col, const Tensor& weight, const Tensor& t_rowptr,
                          const Tensor& t_col, const OptionalTensor& t_weight, const Tensor& x, int64_t n_layers,
                          bool mean, const OptionalTensor& gate, const OptionalTensor& scale,
                          const OptionalTensor& order, const OptionalTensor& t_order) {
  const GraphTensors graph{rowptr, col, weight, t_rowptr, t_col, t_weight, order, t_order};
  check_propagate("propagate", graph, x, n_layers, gate, scale);
  if (n_layers > 0 && weight.requires_grad() && at::GradMode::is_enabled()) {
    return propagate_in_layers(graph, x, n_layers, mean, gate);
  }
  return differentiable_product(graph.detached(), x, {false, n_layers, mean, scale}, gate);
}

Tensor propagate_autocast(const Tensor& rowptr, const Tensor& col, const Tensor& weight, const Tensor& t_rowptr,
                          const Tensor& t_col, const OptionalTensor& t_weight, const Tensor& x, int64_t n_layers,
                          bool mean, const OptionalTensor& gate, const OptionalTensor& scale,
                          const OptionalTensor& order, const OptionalTensor& t_order) {
  return autocast_product({rowptr, col, weight, t_rowptr, t_col, t_weight, order, t_order}, x,
                          {false, n_layers, mean, scale}, gate);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(smore_ext, m) {
  m.def(
      "propagate(Tensor rowptr, Tensor col, Tensor weight, Tensor t_rowptr, Tensor t_col, Tensor? t_weight, Tensor x, "
      "int n_layers, bool mean=True, Tensor? gate=None, Tensor? scale=None, Tensor? order=None, Tensor? t_order=None) "
      "-> Tensor");
}

TORCH_LIBRARY_IMPL(smore_ext, Autograd, m) { propagate_op::bind(m, &propagate_autograd); }
TORCH_LIBRARY_IMPL(smore_ext, AutocastCPU, m) { propagate_op::bind(m, &propagate_autocast); }
TORCH_LIBRARY_IMPL(smore_ext, AutocastCUDA, m) { propagate_op::bind(m, &propagate_autocast); }

}  // namespace smore
