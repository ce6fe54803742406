#include "ops/spmm.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

namespace smore {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Tensor call_spmm(const Tensor& rowptr, const Tensor& col, const Tensor& weight, const Tensor& t_rowptr,
                 const Tensor& t_col, const Tensor& t_weight, const Tensor& x) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("smore_ext::spmm", "")
                             .typed<Tensor(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                           const Tensor&, const Tensor&)>();
  return op.call(rowptr, col, weight, t_rowptr, t_col, t_weight, x);
}

Tensor call_propagate(const Tensor& rowptr, const Tensor& col, const Tensor& weight, const Tensor& t_rowptr,
                      const Tensor& t_col, const Tensor& t_weight, const Tensor& x, int64_t n_layers, bool mean) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("smore_ext::propagate", "")
                             .typed<Tensor(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                           const Tensor&, const Tensor&, int64_t, bool)>();
  return op.call(rowptr, col, weight, t_rowptr, t_col, t_weight, x, n_layers, mean);
}

// y = A x, so dL/dx = A^T dL/dy: the same op with matrix and transpose exchanged (and differentiable again).
struct Spmm : torch::autograd::Function<Spmm> {
  static Tensor forward(AutogradContext* ctx, const Tensor& rowptr, const Tensor& col, const Tensor& weight,
                        const Tensor& t_rowptr, const Tensor& t_col, const Tensor& t_weight, const Tensor& x) {
    ctx->save_for_backward({rowptr, col, weight, t_rowptr, t_col, t_weight});
    at::AutoDispatchBelowADInplaceOrView guard;
    return call_spmm(rowptr, col, weight, t_rowptr, t_col, t_weight, x);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto g = ctx->get_saved_variables();
    Tensor grad = call_spmm(g[3], g[4], g[5], g[0], g[1], g[2], grads[0]);
    return {Tensor(), Tensor(), Tensor(), Tensor(), Tensor(), Tensor(), grad};
  }
};

// The mean over A^0..A^L (or A^L alone) is linear in x; its transpose is the same expression in A^T.
struct Propagate : torch::autograd::Function<Propagate> {
  static Tensor forward(AutogradContext* ctx, const Tensor& rowptr, const Tensor& col, const Tensor& weight,
                        const Tensor& t_rowptr, const Tensor& t_col, const Tensor& t_weight, const Tensor& x,
                        int64_t n_layers, bool mean) {
    ctx->save_for_backward({rowptr, col, weight, t_rowptr, t_col, t_weight});
    ctx->saved_data["n_layers"] = n_layers;
    ctx->saved_data["mean"] = mean;
    at::AutoDispatchBelowADInplaceOrView guard;
    return call_propagate(rowptr, col, weight, t_rowptr, t_col, t_weight, x, n_layers, mean);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto g = ctx->get_saved_variables();
    Tensor grad = call_propagate(g[3], g[4], g[5], g[0], g[1], g[2], grads[0], ctx->saved_data["n_layers"].toInt(),
                                 ctx->saved_data["mean"].toBool());
    return {Tensor(), Tensor(), Tensor(), Tensor(), Tensor(), Tensor(), grad, Tensor(), Tensor()};
  }
};

Tensor spmm_autograd(const Tensor& rowptr, const Tensor& col, const Tensor& weight, const Tensor& t_rowptr,
                     const Tensor& t_col, const Tensor& t_weight, const Tensor& x) {
  check_spmm("spmm", rowptr, col, weight, t_rowptr, t_col, t_weight, x);
  return Spmm::apply(rowptr, col, weight, t_rowptr, t_col, t_weight, x);
}

Tensor propagate_autograd(const Tensor& rowptr, const Tensor& col, const Tensor& weight, const Tensor& t_rowptr,
                          const Tensor& t_col, const Tensor& t_weight, const Tensor& x, int64_t n_layers, bool mean) {
  check_propagate("propagate", rowptr, col, weight, t_rowptr, t_col, t_weight, x, n_layers);
  return Propagate::apply(rowptr, col, weight, t_rowptr, t_col, t_weight, x, n_layers, mean);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(smore_ext, m) {
  m.def(
      "spmm(Tensor rowptr, Tensor col, Tensor weight, Tensor t_rowptr, Tensor t_col, Tensor t_weight, Tensor "
      "x) "
      "-> Tensor");
  m.def(
      "propagate(Tensor rowptr, Tensor col, Tensor weight, Tensor t_rowptr, Tensor t_col, Tensor t_weight, "
      "Tensor x, "
      "int n_layers, bool mean=True) -> Tensor");
}

TORCH_LIBRARY_IMPL(smore_ext, Autograd, m) {
  m.impl("spmm", &spmm_autograd);
  m.impl("propagate", &propagate_autograd);
}

}  // namespace smore
