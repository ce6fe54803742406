#include "sparse/spmm.h"

#include <ATen/autocast_mode.h>
#include <ATen/ops/mul.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "sparse/product.h"

namespace smore {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;
using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

Tensor call_product(const GraphTensors& g, const Tensor& x, const Power& power, const OptionalTensor& gate) {
  if (power.is_spmm) {
    return spmm_op::call(g.rowptr, g.col, g.weight, g.t_rowptr, g.t_col, g.t_weight, x, gate);
  }
  return propagate_op::call(g.rowptr, g.col, g.weight, g.t_rowptr, g.t_col, g.t_weight, x, power.n_layers, power.mean,
                            gate, power.scale);
}

std::tuple<Tensor, Tensor> call_gated_backward(const GraphTensors& g, const Tensor& grad, const Tensor& x,
                                               const Tensor& gate, const Power& power) {
  return gated_product_backward_op::call(g.rowptr, g.col, g.weight, g.t_rowptr, g.t_col, g.t_weight, grad, x, gate,
                                         power.n_layers, power.mean, power.scale);
}

// y = P (x * gate) for P = A, A^L or the mean of A^0 .. A^L. With z = P^T dL/dy, the same op with matrix and transpose
// exchanged, dL/dx = z * gate and dL/dgate = z * x. One op gives both without writing z down; where the gradient is to
// be differentiated again, it is made of ops that can be.
struct Product : torch::autograd::Function<Product> {
  static Tensor forward(AutogradContext* ctx, const Tensor& rowptr, const Tensor& col, const Tensor& weight,
                        const Tensor& t_rowptr, const Tensor& t_col, const Tensor& t_weight, const Tensor& x,
                        const OptionalTensor& gate, bool is_spmm, int64_t n_layers, bool mean,
                        const OptionalTensor& scale) {
    const GraphTensors graph{rowptr, col, weight, t_rowptr, t_col, t_weight};
    variable_list saved{rowptr, col, weight, t_rowptr, t_col, t_weight};
    if (gate.has_value()) saved.insert(saved.end(), {x, *gate});
    ctx->save_for_backward(saved);
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["is_spmm"] = is_spmm;
    ctx->saved_data["n_layers"] = n_layers;
    ctx->saved_data["mean"] = mean;
    at::AutoDispatchBelowADInplaceOrView guard;
    return call_product(graph, x, {is_spmm, n_layers, mean, scale}, gate);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    // What the forward pass was held in decides, not an autocast around this.
    const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
    const auto saved = ctx->get_saved_variables();
    const GraphTensors graph{saved[0], saved[1], saved[2], saved[3], saved[4], saved[5]};
    const Power power{ctx->saved_data["is_spmm"].toBool(), ctx->saved_data["n_layers"].toInt(),
                      ctx->saved_data["mean"].toBool(), ctx->saved_data["scale"].toOptional<Tensor>()};
    Tensor grad_x, grad_gate;
    if (saved.size() == 6) {
      grad_x = call_product(graph.t(), grads[0], power, std::nullopt);
    } else if (at::GradMode::is_enabled()) {
      const Tensor z = call_product(graph.t(), grads[0], power, std::nullopt);
      grad_x = at::mul(z, saved[7]);
      grad_gate = at::mul(z, saved[6]);
    } else {
      std::tie(grad_x, grad_gate) = call_gated_backward(graph, grads[0], saved[6], saved[7], power);
    }
    variable_list all(12);
    all[6] = grad_x;
    all[7] = grad_gate;
    return all;
  }
};

}  // namespace

Tensor differentiable_product(const GraphTensors& graph, const Tensor& x, const Power& power,
                              const OptionalTensor& gate) {
  return Product::apply(graph.rowptr, graph.col, graph.weight, graph.t_rowptr, graph.t_col, graph.t_weight, x, gate,
                        power.is_spmm, power.n_layers, power.mean, power.scale);
}

Tensor autocast_product(const GraphTensors& graph, const Tensor& x, const Power& power, const OptionalTensor& gate) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  const c10::DeviceType device = x.device().type();
  const bool narrow = at::autocast::get_autocast_dtype(device) == at::kBFloat16;
  const at::ScalarType type = narrow ? at::kBFloat16 : at::kFloat;
  return call_product(graph, at::autocast::cached_cast(type, x, device), power,
                      at::autocast::cached_cast(type, gate, device));
}

namespace {

Tensor spmm_autograd(const Tensor& rowptr, const Tensor& col, const Tensor& weight, const Tensor& t_rowptr,
                     const Tensor& t_col, const Tensor& t_weight, const Tensor& x, const OptionalTensor& gate) {
  check_spmm("spmm", rowptr, col, weight, t_rowptr, t_col, t_weight, x, gate);
  return differentiable_product({rowptr, col, weight, t_rowptr, t_col, t_weight}, x, {true}, gate);
}

Tensor spmm_autocast(const Tensor& rowptr, const Tensor& col, const Tensor& weight, const Tensor& t_rowptr,
                     const Tensor& t_col, const Tensor& t_weight, const Tensor& x, const OptionalTensor& gate) {
  return autocast_product({rowptr, col, weight, t_rowptr, t_col, t_weight}, x, {true}, gate);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(smore_ext, m) {
  m.def(
      "spmm(Tensor rowptr, Tensor col, Tensor weight, Tensor t_rowptr, Tensor t_col, Tensor t_weight, Tensor x, "
      "Tensor? gate=None) -> Tensor");
  m.def(
      "gated_product_backward(Tensor rowptr, Tensor col, Tensor weight, Tensor t_rowptr, Tensor t_col, "
      "Tensor t_weight, Tensor grad, Tensor x, Tensor gate, int n_layers, bool mean, Tensor? scale=None) -> (Tensor, "
      "Tensor)");
}

TORCH_LIBRARY_IMPL(smore_ext, Autograd, m) { spmm_op::bind(m, &spmm_autograd); }

TORCH_LIBRARY_IMPL(smore_ext, AutocastCPU, m) { spmm_op::bind(m, &spmm_autocast); }

TORCH_LIBRARY_IMPL(smore_ext, AutocastCUDA, m) { spmm_op::bind(m, &spmm_autocast); }

}  // namespace smore
