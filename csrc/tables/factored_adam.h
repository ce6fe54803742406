// Contract of factored_adam_, shared by every device: one step of Adam (Kingma & Ba, arXiv 1412.6980, as
// torch.optim.Adam computes it) for a parameter whose gradient is grad_rows @ factor, which is never formed.
//
// param, exp_avg, exp_avg_sq [N, D], contiguous, changed in place; grad_rows [N, d]; factor [d, D]; all float32 or all
// float64. step: one element, float32 or float64, the number of this step (1 at the first). lr_tensor: the learning
// rate as one element of either dtype, in place of lr; a step captured in a CUDA graph reads it anew at each replay.
#pragma once

#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>

#include <cmath>
#include <optional>

#include "common/check.h"
#include "common/op.h"

namespace smore {

SMORE_OP(factored_adam_, void(const at::Tensor& param, const at::Tensor& exp_avg, const at::Tensor& exp_avg_sq,
                              const at::Tensor& grad_rows, const at::Tensor& factor, const at::Tensor& step, double lr,
                              double beta1, double beta2, double eps, const std::optional<at::Tensor>& lr_tensor));

// Whether the stretches of memory that two tensors lie in meet.
inline bool share_memory(const at::Tensor& a, const at::Tensor& b) {
  if (a.device() != b.device() || a.numel() == 0 || b.numel() == 0) return false;
  const auto end = [](const at::Tensor& t) {
    return static_cast<const char*>(t.const_data_ptr()) +
           at::detail::computeStorageNbytes(t.sizes(), t.strides(), t.itemsize());
  };
  return a.const_data_ptr() < end(b) && b.const_data_ptr() < end(a);
}

inline void check_factored_adam(const at::Tensor& param, const at::Tensor& exp_avg, const at::Tensor& exp_avg_sq,
                                const at::Tensor& grad_rows, const at::Tensor& factor, const at::Tensor& step,
                                double lr, double beta1, double beta2, double eps) {
  constexpr const char* op = "factored_adam_";
  check_floating(op, "param", param);
  check_dim(op, "param", param, 2);
  check_dim(op, "grad_rows", grad_rows, 2);
  check_shape(op, "exp_avg", exp_avg, param.sym_sizes());
  check_shape(op, "exp_avg_sq", exp_avg_sq, param.sym_sizes());
  check_shape(op, "grad_rows", grad_rows, {param.sym_size(0), grad_rows.sym_size(1)});
  check_shape(op, "factor", factor, {grad_rows.sym_size(1), param.sym_size(1)});
  const auto like_param = [&](const char* name, const at::Tensor& t) {
    check_same_type(op, name, t, "param", param);
    check_same_device(op, name, t, "param", param);
  };
  like_param("exp_avg", exp_avg);
  like_param("exp_avg_sq", exp_avg_sq);
  like_param("grad_rows", grad_rows);
  like_param("factor", factor);
  const auto in_place = [&](const char* name, const at::Tensor& t) {
    SMORE_CHECK_VALUE(t.is_contiguous(), op, name, " must be contiguous (it is changed in place), got strides ",
                      t.strides());
  };
  in_place("param", param);
  in_place("exp_avg", exp_avg);
  in_place("exp_avg_sq", exp_avg_sq);
  const std::pair<const char*, const at::Tensor*> all[] = {{"param", &param},           {"exp_avg", &exp_avg},
                                                           {"exp_avg_sq", &exp_avg_sq}, {"grad_rows", &grad_rows},
                                                           {"factor", &factor},         {"step", &step}};
  for (size_t a = 0; a < 3; ++a) {
    for (size_t b = a + 1; b < std::size(all); ++b) {
      SMORE_CHECK_VALUE(!share_memory(*all[a].second, *all[b].second), op, all[a].first, " and ", all[b].first,
                        " must not share memory (the first is changed in place), got tensors that do");
    }
  }
  check_floating(op, "step", step);
  SMORE_CHECK_VALUE(step.sym_numel() == 1, op, "step must have one element, got shape ", step.sym_sizes());
  SMORE_CHECK_VALUE(lr >= 0 && std::isfinite(lr), op, "lr must be at least 0 and finite, got ", lr);
  SMORE_CHECK_VALUE(beta1 >= 0 && beta1 < 1, op, "beta1 must be in [0, 1), got ", beta1);
  SMORE_CHECK_VALUE(beta2 >= 0 && beta2 < 1, op, "beta2 must be in [0, 1), got ", beta2);
  SMORE_CHECK_VALUE(eps >= 0 && std::isfinite(eps), op, "eps must be at least 0 and finite, got ", eps);
}

inline void check_learning_rate(const std::optional<at::Tensor>& lr_tensor) {
  constexpr const char* op = "factored_adam_";
  if (!lr_tensor.has_value()) return;
  check_floating(op, "lr", *lr_tensor);
  SMORE_CHECK_VALUE(lr_tensor->sym_numel() == 1, op, "lr must have one element, got shape ", lr_tensor->sym_sizes());
}

}  // namespace smore
