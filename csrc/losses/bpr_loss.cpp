#include "losses/bpr_loss.h"

#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

namespace smore {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct BprLoss : torch::autograd::Function<BprLoss> {
  static variable_list forward(AutogradContext* ctx, const Tensor& user_embeddings, const Tensor& item_embeddings,
                               const Tensor& users, const Tensor& positives, const Tensor& negatives) {
    at::AutoDispatchBelowADInplaceOrView guard;
    auto [bpr, l2, margin] = bpr_loss_op::call(user_embeddings, item_embeddings, users, positives, negatives);
    ctx->save_for_backward({user_embeddings, item_embeddings, users, positives, negatives, margin});
    ctx->mark_non_differentiable({margin});
    return {bpr, l2, margin};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto s = ctx->get_saved_variables();
    auto [grad_users, grad_items] = bpr_loss_backward_op::call(grads[0], grads[1], s[0], s[1], s[2], s[3], s[4], s[5]);
    return {grad_users, grad_items, Tensor(), Tensor(), Tensor()};
  }
};

std::tuple<Tensor, Tensor, Tensor> bpr_loss_autograd(const Tensor& user_embeddings, const Tensor& item_embeddings,
                                                     const Tensor& users, const Tensor& positives,
                                                     const Tensor& negatives) {
  check_bpr_loss("bpr_loss", user_embeddings, item_embeddings, users, positives, negatives);
  const variable_list out = BprLoss::apply(user_embeddings, item_embeddings, users, positives, negatives);
  return {out[0], out[1], out[2]};
}

struct BprLossApart : torch::autograd::Function<BprLossApart> {
  static variable_list forward(AutogradContext* ctx, const Tensor& user_embeddings, const Tensor& item_embeddings,
                               const Tensor& users, const Tensor& positives, const Tensor& negatives, double gamma) {
    at::AutoDispatchBelowADInplaceOrView guard;
    auto [bpr, squares, margin] =
        bpr_loss_apart_op::call(user_embeddings, item_embeddings, users, positives, negatives, gamma);
    ctx->save_for_backward({user_embeddings, item_embeddings, users, positives, negatives, margin});
    ctx->saved_data["gamma"] = gamma;
    ctx->mark_non_differentiable({margin});
    return {bpr, squares, margin};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto s = ctx->get_saved_variables();
    auto [grad_users, grad_items] = bpr_loss_backward_apart_op::call(grads[0], grads[1], s[0], s[1], s[2], s[3], s[4],
                                                                     s[5], ctx->saved_data["gamma"].toDouble());
    return {grad_users, grad_items, Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

std::tuple<Tensor, Tensor, Tensor> bpr_loss_apart_autograd(const Tensor& user_embeddings, const Tensor& item_embeddings,
                                                           const Tensor& users, const Tensor& positives,
                                                           const Tensor& negatives, double gamma) {
  check_bpr_loss("bpr_loss", user_embeddings, item_embeddings, users, positives, negatives);
  check_bpr_gamma("bpr_loss", gamma);
  const variable_list out = BprLossApart::apply(user_embeddings, item_embeddings, users, positives, negatives, gamma);
  return {out[0], out[1], out[2]};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(smore_ext, m) {
  m.def(
      "bpr_loss(Tensor user_embeddings, Tensor item_embeddings, Tensor users, Tensor positives, Tensor "
      "negatives) "
      "-> (Tensor, Tensor, Tensor)");
  m.def(
      "bpr_loss_backward(Tensor grad_bpr, Tensor grad_l2, Tensor user_embeddings, Tensor item_embeddings, "
      "Tensor users, Tensor positives, Tensor negatives, Tensor margin) -> (Tensor, Tensor)");
  m.def(
      "bpr_loss.apart(Tensor user_embeddings, Tensor item_embeddings, Tensor users, Tensor positives, Tensor "
      "negatives, float gamma) -> (Tensor, Tensor, Tensor)");
  m.def(
      "bpr_loss_backward.apart(Tensor grad_bpr, Tensor grad_squares, Tensor user_embeddings, Tensor item_embeddings, "
      "Tensor users, Tensor positives, Tensor negatives, Tensor margin, float gamma) -> (Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(smore_ext, Autograd, m) {
  bpr_loss_op::bind(m, &bpr_loss_autograd);
  bpr_loss_apart_op::bind(m, &bpr_loss_apart_autograd);
  m.impl("bpr_loss_backward", torch::autograd::autogradNotImplementedFallback());
  m.impl("bpr_loss_backward.apart", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace smore
