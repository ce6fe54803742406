// The contract is in poly_filter.h. Forward is bound with spmm, whose loop over layers it shares (spmm_run.h).
#include "sparse/poly_filter.h"

#include <ATen/autocast_mode.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/add.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/sum.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "common/run.h"
#include "sparse/poly_filter_kernel.h"
#include "sparse/product.h"
#include "sparse/rows_dispatch.h"

namespace smore {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Tensor call(const GraphTensors& g, const Tensor& x, const Tensor& coefficients, const OptionalTensor& scale) {
  return poly_filter_op::call(g.rowptr, g.col, g.weight, g.t_rowptr, g.t_col, g.t_weight, x, coefficients, scale,
                              g.order, g.t_order);
}

Tensor product(const GraphTensors& g, const Tensor& x) {
  return spmm_op::call(g.rowptr, g.col, g.weight, g.t_rowptr, g.t_col, g.t_weight, x, std::nullopt, g.order, g.t_order);
}

std::tuple<Tensor, Tensor> poly_filter_gradients(const Tensor& rowptr, const Tensor& col, const Tensor& weight,
                                                 const Tensor& t_rowptr, const Tensor& t_col,
                                                 const OptionalTensor& t_weight, const Tensor& grad, const Tensor& x,
                                                 const Tensor& coefficients, const OptionalTensor& order,
                                                 const OptionalTensor& t_order) {
  constexpr const char* op = "poly_filter_backward";
  const GraphTensors graph{rowptr, col, weight, t_rowptr, t_col, t_weight, order, t_order};
  check_poly_filter(op, graph, x, coefficients, std::nullopt);
  check_same_type(op, "grad", grad, "x", x);
  check_shape(op, "grad", grad, x.sym_sizes());
  check_same_device(op, "grad", grad, "x", x);
  constexpr int64_t kChunksAThread = 4;  // fewer are not worth waking a thread for
  const int64_t chunks = poly_filter_chunks(x.numel()), terms = coefficients.size(0);
  const Tensor rows = x.contiguous(), factors = coefficients.contiguous();
  Tensor grad_x = new_output(x, x.sizes()), grad_coefficients = new_output(factors, factors.sizes());
  const Tensor partial = at::empty({terms * chunks}, x.options().dtype(at::kDouble));
  Tensor h = grad.contiguous();
  for (int64_t l = 0; l < terms; ++l) {
    if (l > 0) h = product(graph.t(), h);
    dispatch_stored(x, [&](auto type) {
      using S = decltype(type);
      S* sum = write<S>(grad_x);
      const PolyFilterStep<S> job{x.numel(),
                                  read<S>(h),
                                  read<S>(rows),
                                  read<Accumulator<S>>(factors) + l,
                                  l == 0 ? nullptr : sum,
                                  sum,
                                  write<double>(partial) + l * chunks};
      run(op, x, chunks, kChunksAThread, [&](auto place) { poly_filter_step(job, place); });
    });
  }
  dispatch_floating(factors, [&](auto type) {
    using T = decltype(type);
    const PolyFilterSums<T> job{read<double>(partial), terms, chunks, write<T>(grad_coefficients)};
    run(op, x, terms, terms, [&](auto place) { poly_filter_sums(job, place); });
  });
  return {grad_x, grad_coefficients};
}

struct PolyFilter : torch::autograd::Function<PolyFilter> {
  enum Saved { kRowptr, kCol, kWeight, kTRowptr, kTCol, kTWeight, kOrder, kTOrder, kScale, kX, kCoefficients, kSaved };

  static Tensor forward(AutogradContext* ctx, const GraphTensors& graph, const Tensor& x, const Tensor& coefficients,
                        const OptionalTensor& scale) {
    const auto or_none = [](const OptionalTensor& t) { return t.has_value() ? *t : Tensor(); };
    variable_list saved(kSaved);
    saved[kRowptr] = graph.rowptr, saved[kCol] = graph.col, saved[kWeight] = graph.weight;
    saved[kTRowptr] = graph.t_rowptr, saved[kTCol] = graph.t_col, saved[kTWeight] = or_none(graph.t_weight);
    saved[kOrder] = or_none(graph.order), saved[kTOrder] = or_none(graph.t_order), saved[kScale] = or_none(scale);
    saved[kX] = x, saved[kCoefficients] = coefficients;
    ctx->save_for_backward(saved);
    at::AutoDispatchBelowADInplaceOrView guard;
    return call(graph, x, coefficients, scale);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    // What the forward pass was held in decides, not an autocast around this.
    const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
    const auto saved = ctx->get_saved_variables();
    const auto optional = [&](Saved at) { return saved[at].defined() ? OptionalTensor(saved[at]) : std::nullopt; };
    const GraphTensors graph{saved[kRowptr], saved[kCol],        saved[kWeight],   saved[kTRowptr],
                             saved[kTCol],   optional(kTWeight), optional(kOrder), optional(kTOrder)};
    const Tensor &grad = grads[0], &x = saved[kX], &coefficients = saved[kCoefficients];
    const bool for_x = ctx->needs_input_grad(0), for_coefficients = ctx->needs_input_grad(1);
    Tensor grad_x, grad_coefficients;
    if (for_coefficients && !at::GradMode::is_enabled()) {
      std::tie(grad_x, grad_coefficients) =
          poly_filter_backward_op::call(graph.rowptr, graph.col, graph.weight, graph.t_rowptr, graph.t_col,
                                        graph.t_weight, grad, x, coefficients, graph.order, graph.t_order);
      return {Tensor(), grad_x, grad_coefficients, Tensor()};
    }
    if (for_x) grad_x = call(graph.t(), grad, coefficients, optional(kScale));
    if (for_coefficients) grad_coefficients = dot_products(graph.t(), grad, x, coefficients);
    return {Tensor(), grad_x, grad_coefficients, Tensor()};
  }

 private:
  // <h_l, x> of ops that can be differentiated again.
  static Tensor dot_products(const GraphTensors& transpose, const Tensor& grad, const Tensor& x,
                             const Tensor& coefficients) {
    std::vector<Tensor> dots;
    Tensor h = grad;
    const Tensor wide = x.to(coefficients.scalar_type());
    for (int64_t l = 0; l < coefficients.size(0); ++l) {
      if (l > 0) h = product(transpose, h);
      dots.push_back(at::sum(at::mul(h.to(coefficients.scalar_type()), wide)));
    }
    return at::stack(dots);
  }
};

// A layer at a time, each differentiable any number of times: what a layer read is kept for its backward.
Tensor poly_filter_in_layers(const GraphTensors& graph, const Tensor& x, const Tensor& coefficients) {
  const auto term = [&](int64_t l) { return at::mul(x, coefficients.select(0, l)); };
  Tensor y = term(coefficients.size(0) - 1);
  for (int64_t l = coefficients.size(0) - 2; l >= 0; --l) {
    y = at::add(differentiable_product(graph, y, {true}, std::nullopt), term(l));
  }
  return y;
}

Tensor poly_filter_autograd(const Tensor& rowptr, const Tensor& col, const Tensor& weight, const Tensor& t_rowptr,
                            const Tensor& t_col, const OptionalTensor& t_weight, const Tensor& x,
                            const Tensor& coefficients, const OptionalTensor& scale, const OptionalTensor& order,
                            const OptionalTensor& t_order) {
  const GraphTensors graph{rowptr, col, weight, t_rowptr, t_col, t_weight, order, t_order};
  check_poly_filter("poly_filter", graph, x, coefficients, scale);
  if (coefficients.size(0) > 1 && weight.requires_grad() && at::GradMode::is_enabled()) {
    return poly_filter_in_layers(graph, x, coefficients);
  }
  return PolyFilter::apply(graph.detached(), x, coefficients, scale);
}

// As propagate; coefficients are in the type of the sums.
Tensor poly_filter_autocast(const Tensor& rowptr, const Tensor& col, const Tensor& weight, const Tensor& t_rowptr,
                            const Tensor& t_col, const OptionalTensor& t_weight, const Tensor& x,
                            const Tensor& coefficients, const OptionalTensor& scale, const OptionalTensor& order,
                            const OptionalTensor& t_order) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  const c10::DeviceType device = x.device().type();
  const bool narrow = at::autocast::get_autocast_dtype(device) == at::kBFloat16;
  const auto wide = [&](const Tensor& t) { return at::autocast::cached_cast(at::kFloat, t, device); };
  return call({rowptr, col, wide(weight), t_rowptr, t_col, t_weight, order, t_order},
              at::autocast::cached_cast(narrow ? at::kBFloat16 : at::kFloat, x, device), wide(coefficients), scale);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(smore_ext, m) {
  m.def(
      "poly_filter(Tensor rowptr, Tensor col, Tensor weight, Tensor t_rowptr, Tensor t_col, Tensor? t_weight, "
      "Tensor x, Tensor coefficients, Tensor? scale=None, Tensor? order=None, Tensor? t_order=None) -> Tensor");
  m.def(
      "poly_filter_backward(Tensor rowptr, Tensor col, Tensor weight, Tensor t_rowptr, Tensor t_col, "
      "Tensor? t_weight, Tensor grad, Tensor x, Tensor coefficients, Tensor? order=None, Tensor? t_order=None) -> "
      "(Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(smore_ext, CompositeExplicitAutograd, m) {
  poly_filter_backward_op::bind(m, &poly_filter_gradients);
}

TORCH_LIBRARY_IMPL(smore_ext, Autograd, m) {
  poly_filter_op::bind(m, &poly_filter_autograd);
  // Gradients that are to be differentiated again are made of other ops.
  m.impl("poly_filter_backward", torch::autograd::autogradNotImplementedFallback());
}

TORCH_LIBRARY_IMPL(smore_ext, AutocastCPU, m) { poly_filter_op::bind(m, &poly_filter_autocast); }
TORCH_LIBRARY_IMPL(smore_ext, AutocastCUDA, m) { poly_filter_op::bind(m, &poly_filter_autocast); }

}  // namespace smore
