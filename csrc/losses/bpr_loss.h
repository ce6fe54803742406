// Contract of bpr_loss, shared by every device. docs/spec.md, section 1: loss on a batch of (user, positive, negative).
//
// user_embeddings [U, d], item_embeddings [I, d], both float32 or both float64; users, positives, negatives
// [B] int64. Returns two scalars, 0 for B = 0: bpr = -mean(log sigmoid(u.p - u.n)), l2 = sum(|u|^2 + |p|^2 +
// |n|^2) / 2. The margins u.p - u.n [B] are a third output, kept for backward. Gradients are dense, [U, d]
// and [I, d].
//
// bpr_loss.apart is the general form: -mean(log(gamma + sigmoid(u.p - u.n))), gamma >= 0, and in place of l2 the sums
// of |u|^2, of |p|^2 and of |n|^2, [3].
#pragma once

#include <ATen/core/Tensor.h>

#include <cmath>

#include "common/check.h"
#include "common/op.h"

namespace smore {

SMORE_OP(bpr_loss,
         std::tuple<at::Tensor, at::Tensor, at::Tensor>(const at::Tensor& user_embeddings,
                                                        const at::Tensor& item_embeddings, const at::Tensor& users,
                                                        const at::Tensor& positives, const at::Tensor& negatives));
SMORE_OP(bpr_loss_backward,
         std::tuple<at::Tensor, at::Tensor>(const at::Tensor& grad_bpr, const at::Tensor& grad_l2,
                                            const at::Tensor& user_embeddings, const at::Tensor& item_embeddings,
                                            const at::Tensor& users, const at::Tensor& positives,
                                            const at::Tensor& negatives, const at::Tensor& margin));

SMORE_OVERLOAD(bpr_loss, apart,
               std::tuple<at::Tensor, at::Tensor, at::Tensor>(const at::Tensor& user_embeddings,
                                                              const at::Tensor& item_embeddings,
                                                              const at::Tensor& users, const at::Tensor& positives,
                                                              const at::Tensor& negatives, double gamma));
SMORE_OVERLOAD(bpr_loss_backward, apart,
               std::tuple<at::Tensor, at::Tensor>(const at::Tensor& grad_bpr, const at::Tensor& grad_squares,
                                                  const at::Tensor& user_embeddings, const at::Tensor& item_embeddings,
                                                  const at::Tensor& users, const at::Tensor& positives,
                                                  const at::Tensor& negatives, const at::Tensor& margin, double gamma));

inline void check_bpr_loss(const char* op, const at::Tensor& user_embeddings, const at::Tensor& item_embeddings,
                           const at::Tensor& users, const at::Tensor& positives, const at::Tensor& negatives) {
  check_floating(op, "user_embeddings", user_embeddings);
  check_dim(op, "user_embeddings", user_embeddings, 2);
  check_dim(op, "item_embeddings", item_embeddings, 2);
  check_same_type(op, "item_embeddings", item_embeddings, "user_embeddings", user_embeddings);
  check_same_device(op, "item_embeddings", item_embeddings, "user_embeddings", user_embeddings);
  SMORE_CHECK_VALUE(user_embeddings.sym_size(1) == item_embeddings.sym_size(1), op,
                    "user_embeddings and item_embeddings must have the same width, got ", user_embeddings.sym_size(1),
                    " and ", item_embeddings.sym_size(1));
  check_dim(op, "users", users, 1);
  const std::pair<const char*, const at::Tensor*> ids[] = {
      {"users", &users}, {"positives", &positives}, {"negatives", &negatives}};
  for (const auto& [name, tensor] : ids) {
    check_int64(op, name, *tensor);
    check_same_device(op, name, *tensor, "user_embeddings", user_embeddings);
    check_shape(op, name, *tensor, users.sym_sizes());
  }
}

inline void check_bpr_gamma(const char* op, double gamma) {
  SMORE_CHECK_VALUE(gamma >= 0 && std::isfinite(gamma), op, "gamma must be at least 0, got ", gamma);
}

// grad_squares: of l2, or of the three sums of squares.
inline void check_bpr_loss_backward(const at::Tensor& grad_bpr, const at::Tensor& grad_squares, bool apart,
                                    const at::Tensor& user_embeddings, const at::Tensor& item_embeddings,
                                    const at::Tensor& users, const at::Tensor& positives, const at::Tensor& negatives,
                                    const at::Tensor& margin) {
  constexpr const char* op = "bpr_loss_backward";
  check_bpr_loss(op, user_embeddings, item_embeddings, users, positives, negatives);
  const std::pair<const char*, const at::Tensor*> values[] = {
      {"grad_bpr", &grad_bpr}, {apart ? "grad_squares" : "grad_l2", &grad_squares}, {"margin", &margin}};
  check_shape(op, "grad_bpr", grad_bpr, {});
  check_shape(op, "margin", margin, users.sym_sizes());
  if (apart) {
    check_shape(op, "grad_squares", grad_squares, {3});
  } else {
    check_shape(op, "grad_l2", grad_squares, {});
  }
  for (const auto& [name, tensor] : values) {
    check_same_type(op, name, *tensor, "user_embeddings", user_embeddings);
    check_same_device(op, name, *tensor, "user_embeddings", user_embeddings);
  }
}

}  // namespace smore
