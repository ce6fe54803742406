#include "sparse/edge_softmax.h"

#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

namespace smore {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct EdgeSoftmax : torch::autograd::Function<EdgeSoftmax> {
  static Tensor forward(AutogradContext* ctx, const Tensor& rowptr, const Tensor& col, const Tensor& logits) {
    at::AutoDispatchBelowADInplaceOrView guard;
    const Tensor y = edge_softmax_op::call(rowptr, col, logits);
    ctx->save_for_backward({rowptr, col, y});
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    return {Tensor(), Tensor(), edge_softmax_backward_op::call(saved[0], saved[1], saved[2], grads[0])};
  }
};

Tensor edge_softmax_autograd(const Tensor& rowptr, const Tensor& col, const Tensor& logits) {
  check_edge_softmax("edge_softmax", rowptr, col, logits);
  return EdgeSoftmax::apply(rowptr, col, logits);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(smore_ext, m) {
  m.def("edge_softmax(Tensor rowptr, Tensor col, Tensor logits) -> Tensor");
  m.def("edge_softmax_backward(Tensor rowptr, Tensor col, Tensor y, Tensor grad) -> Tensor");
}

TORCH_LIBRARY_IMPL(smore_ext, Autograd, m) {
  edge_softmax_op::bind(m, &edge_softmax_autograd);
  m.impl("edge_softmax_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace smore
