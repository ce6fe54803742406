#include "sparse/spmm.h"

#include <ATen/autocast_mode.h>
#include <ATen/ops/mul.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "sparse/edge_dot.h"
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
    return spmm_op::call(g.rowptr, g.col, g.weight, g.t_rowptr, g.t_col, g.t_weight, x, gate, g.order, g.t_order);
  }
  return propagate_op::call(g.rowptr, g.col, g.weight, g.t_rowptr, g.t_col, g.t_weight, x, power.n_layers, power.mean,
                            gate, power.scale, g.order, g.t_order);
}

std::tuple<Tensor, Tensor> call_gated_backward(const GraphTensors& g, const Tensor& grad, const Tensor& x,
                                               const Tensor& gate, const Power& power) {
  return gated_product_backward_op::call(g.rowptr, g.col, g.weight, g.t_rowptr, g.t_col, g.t_weight, grad, x, gate,
                                         power.n_layers, power.mean, power.scale, g.order, g.t_order);
}

// Of the product of x, dL/dweight, in the order of the weights: those of the graph, or those of its transpose.
Tensor weight_gradient(const GraphTensors& g, const Tensor& grad, const Tensor& x) {
  if (g.order.has_value()) return edge_dot_op::call(g.t_rowptr, g.t_col, g.rowptr, g.col, *g.order, x, grad);
  return edge_dot_op::call(g.rowptr, g.col, g.t_rowptr, g.t_col, *g.t_order, grad, x);
}

// y = P (x * gate) for P = A, A^L or the mean of A^0 .. A^L. With z = P^T dL/dy, the same op with matrix and transpose
// exchanged, dL/dx = z * gate and dL/dgate = z * x. One op gives both without writing z down; where the gradient is to
// be differentiated again, it is made of ops that can be. A weight with a gradient comes with P = A only.
struct Product : torch::autograd::Function<Product> {
  enum Saved { kRowptr, kCol, kWeight, kTRowptr, kTCol, kTWeight, kOrder, kTOrder, kScale, kX, kGate, kSaved };

  static Tensor forward(AutogradContext* ctx, const Tensor& rowptr, const Tensor& col, const Tensor& weight,
                        const Tensor& t_rowptr, const Tensor& t_col, const OptionalTensor& t_weight, const Tensor& x,
                        const OptionalTensor& gate, bool is_spmm, int64_t n_layers, bool mean,
                        const OptionalTensor& scale, const OptionalTensor& order, const OptionalTensor& t_order) {
    const GraphTensors graph{rowptr, col, weight, t_rowptr, t_col, t_weight, order, t_order};
    const auto or_none = [](const OptionalTensor& t) { return t.has_value() ? *t : Tensor(); };
    variable_list saved(kSaved);
    saved[kRowptr] = rowptr, saved[kCol] = col, saved[kWeight] = weight;
    saved[kTRowptr] = t_rowptr, saved[kTCol] = t_col, saved[kTWeight] = or_none(t_weight);
    saved[kOrder] = or_none(order), saved[kTOrder] = or_none(t_order), saved[kScale] = or_none(scale);
    if (gate.has_value() || weight.requires_grad()) saved[kX] = x;
    saved[kGate] = or_none(gate);
    ctx->save_for_backward(saved);
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
    const auto optional = [&](Saved at) { return saved[at].defined() ? OptionalTensor(saved[at]) : std::nullopt; };
    const GraphTensors graph{saved[kRowptr], saved[kCol],        saved[kWeight],   saved[kTRowptr],
                             saved[kTCol],   optional(kTWeight), optional(kOrder), optional(kTOrder)};
    const Power power{ctx->saved_data["is_spmm"].toBool(), ctx->saved_data["n_layers"].toInt(),
                      ctx->saved_data["mean"].toBool(), optional(kScale)};
    const Tensor &x = saved[kX], &gate = saved[kGate];
    // Inputs are counted without those that are absent.
    const size_t x_at = graph.constant() ? 6 : 5, weight_at = 2;
    const bool for_x = ctx->needs_input_grad(x_at), for_gate = gate.defined() && ctx->needs_input_grad(x_at + 1);
    variable_list all(14);
    Tensor &grad_weight = all[2], &grad_x = all[6], &grad_gate = all[7];
    if (!gate.defined()) {
      if (for_x) grad_x = call_product(graph.t(), grads[0], power, std::nullopt);
    } else if (at::GradMode::is_enabled()) {
      const Tensor z = call_product(graph.t(), grads[0], power, std::nullopt);
      grad_x = at::mul(z, gate);
      grad_gate = at::mul(z, x);
    } else if (for_x || for_gate) {
      std::tie(grad_x, grad_gate) = call_gated_backward(graph, grads[0], x, gate, power);
    }
    if (ctx->needs_input_grad(weight_at)) {
      grad_weight = weight_gradient(graph, grads[0], gate.defined() ? at::mul(x, gate) : x);
    }
    return all;
  }
};

}  // namespace

Tensor differentiable_product(const GraphTensors& graph, const Tensor& x, const Power& power,
                              const OptionalTensor& gate) {
  return Product::apply(graph.rowptr, graph.col, graph.weight, graph.t_rowptr, graph.t_col, graph.t_weight, x, gate,
                        power.is_spmm, power.n_layers, power.mean, power.scale, graph.order, graph.t_order);
}

Tensor autocast_product(const GraphTensors& graph, const Tensor& x, const Power& power, const OptionalTensor& gate) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  const c10::DeviceType device = x.device().type();
  const bool narrow = at::autocast::get_autocast_dtype(device) == at::kBFloat16;
  const at::ScalarType type = narrow ? at::kBFloat16 : at::kFloat;
  GraphTensors wide = graph;
  wide.weight = at::autocast::cached_cast(at::kFloat, graph.weight, device);
  return call_product(wide, at::autocast::cached_cast(type, x, device), power,
                      at::autocast::cached_cast(type, gate, device));
}

namespace {

Tensor spmm_autograd(const Tensor& rowptr, const Tensor& col, const Tensor& weight, const Tensor& t_rowptr,
                     const Tensor& t_col, const OptionalTensor& t_weight, const Tensor& x, const OptionalTensor& gate,
                     const OptionalTensor& order, const OptionalTensor& t_order) {
  const GraphTensors graph{rowptr, col, weight, t_rowptr, t_col, t_weight, order, t_order};
  check_spmm("spmm", graph, x, gate);
  return differentiable_product(graph, x, {true}, gate);
}

Tensor spmm_autocast(const Tensor& rowptr, const Tensor& col, const Tensor& weight, const Tensor& t_rowptr,
                     const Tensor& t_col, const OptionalTensor& t_weight, const Tensor& x, const OptionalTensor& gate,
                     const OptionalTensor& order, const OptionalTensor& t_order) {
  return autocast_product({rowptr, col, weight, t_rowptr, t_col, t_weight, order, t_order}, x, {true}, gate);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(smore_ext, m) {
  m.def(
      "spmm(Tensor rowptr, Tensor col, Tensor weight, Tensor t_rowptr, Tensor t_col, Tensor? t_weight, Tensor x, "
      "Tensor? gate=None, Tensor? order=None, Tensor? t_order=None) -> Tensor");
  m.def(
      "gated_product_backward(Tensor rowptr, Tensor col, Tensor weight, Tensor t_rowptr, Tensor t_col, "
      "Tensor? t_weight, Tensor grad, Tensor x, Tensor gate, int n_layers, bool mean, Tensor? scale=None, "
      "Tensor? order=None, Tensor? t_order=None) -> (Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(smore_ext, Autograd, m) { spmm_op::bind(m, &spmm_autograd); }

TORCH_LIBRARY_IMPL(smore_ext, AutocastCPU, m) { spmm_op::bind(m, &spmm_autocast); }

TORCH_LIBRARY_IMPL(smore_ext, AutocastCUDA, m) { spmm_op::bind(m, &spmm_autocast); }

}  // namespace smore
