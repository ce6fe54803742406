#include "sparse/edge_dot.h"

#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "sparse/spmm.h"

namespace smore {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// With A of the weights dL/de: dL/du = A v and dL/dv = A^T u.
struct EdgeDot : torch::autograd::Function<EdgeDot> {
  static Tensor forward(AutogradContext* ctx, const Tensor& rowptr, const Tensor& col, const Tensor& t_rowptr,
                        const Tensor& t_col, const Tensor& t_order, const Tensor& u, const Tensor& v) {
    ctx->save_for_backward({rowptr, col, t_rowptr, t_col, t_order, u, v});
    at::AutoDispatchBelowADInplaceOrView guard;
    return edge_dot_op::call(rowptr, col, t_rowptr, t_col, t_order, u, v);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    // What the forward pass was held in decides, not an autocast around this.
    const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
    const auto saved = ctx->get_saved_variables();
    const Tensor &rowptr = saved[0], &col = saved[1], &t_rowptr = saved[2], &t_col = saved[3], &t_order = saved[4];
    variable_list all(7);
    if (ctx->needs_input_grad(5)) {
      all[5] = spmm_op::call(rowptr, col, grads[0], t_rowptr, t_col, std::nullopt, saved[6], std::nullopt, std::nullopt,
                             t_order);
    }
    if (ctx->needs_input_grad(6)) {
      all[6] = spmm_op::call(t_rowptr, t_col, grads[0], rowptr, col, std::nullopt, saved[5], std::nullopt, t_order,
                             std::nullopt);
    }
    return all;
  }
};

Tensor edge_dot_autograd(const Tensor& rowptr, const Tensor& col, const Tensor& t_rowptr, const Tensor& t_col,
                         const Tensor& t_order, const Tensor& u, const Tensor& v) {
  check_edge_dot("edge_dot", rowptr, col, t_rowptr, t_col, t_order, u, v);
  return EdgeDot::apply(rowptr, col, t_rowptr, t_col, t_order, u, v);
}

// As spmm: u and v are held in bfloat16 under autocast to it, else in float32; float64 stays.
Tensor edge_dot_autocast(const Tensor& rowptr, const Tensor& col, const Tensor& t_rowptr, const Tensor& t_col,
                         const Tensor& t_order, const Tensor& u, const Tensor& v) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  const c10::DeviceType device = u.device().type();
  const bool narrow = at::autocast::get_autocast_dtype(device) == at::kBFloat16;
  const at::ScalarType type = narrow ? at::kBFloat16 : at::kFloat;
  return edge_dot_op::call(rowptr, col, t_rowptr, t_col, t_order, at::autocast::cached_cast(type, u, device),
                           at::autocast::cached_cast(type, v, device));
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(smore_ext, m) {
  m.def(
      "edge_dot(Tensor rowptr, Tensor col, Tensor t_rowptr, Tensor t_col, Tensor t_order, Tensor u, Tensor v) -> "
      "Tensor");
}

TORCH_LIBRARY_IMPL(smore_ext, Autograd, m) { edge_dot_op::bind(m, &edge_dot_autograd); }

TORCH_LIBRARY_IMPL(smore_ext, AutocastCPU, m) { edge_dot_op::bind(m, &edge_dot_autocast); }

TORCH_LIBRARY_IMPL(smore_ext, AutocastCUDA, m) { edge_dot_op::bind(m, &edge_dot_autocast); }

}  // namespace smore
