#include "losses/info_nce.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/addcmul.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/ones_like.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "losses/row_logsumexp.h"

namespace smore {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct InfoNce : torch::autograd::Function<InfoNce> {
  static variable_list forward(AutogradContext* ctx, const Tensor& x, const Tensor& y, double temperature) {
    at::AutoDispatchBelowADInplaceOrView guard;
    auto [loss, lse] = info_nce_op::call(x, y, temperature);
    ctx->save_for_backward({x, y, lse});
    ctx->saved_data["temperature"] = temperature;
    ctx->mark_non_differentiable({lse});
    return {loss, lse};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    auto [grad_x, grad_y] =
        info_nce_backward_op::call(grads[0], saved[0], saved[1], saved[2], ctx->saved_data["temperature"].toDouble());
    return {grad_x, grad_y, Tensor()};
  }
};

std::tuple<Tensor, Tensor> info_nce_autograd(const Tensor& x, const Tensor& y, double temperature) {
  check_info_nce("info_nce", x, y, temperature);
  const variable_list outputs = InfoNce::apply(x, y, temperature);
  return {outputs[0], outputs[1]};
}

struct InfoNceCounted : torch::autograd::Function<InfoNceCounted> {
  static variable_list forward(AutogradContext* ctx, const Tensor& x, const Tensor& y, const Tensor& counts,
                               double temperature) {
    at::AutoDispatchBelowADInplaceOrView guard;
    auto [loss, lse] = info_nce_counted_op::call(x, y, counts, temperature);
    ctx->save_for_backward({x, y, counts, lse});
    ctx->saved_data["temperature"] = temperature;
    ctx->mark_non_differentiable({lse});
    return {loss, lse};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    auto [grad_x, grad_y] = info_nce_backward_counted_op::call(grads[0], saved[0], saved[1], saved[2], saved[3],
                                                               ctx->saved_data["temperature"].toDouble());
    return {grad_x, grad_y, Tensor(), Tensor()};
  }
};

constexpr double kShortest = 1e-12;  // a row shorter than that is divided by it

Tensor lengths(const Tensor& rows) { return at::linalg_vector_norm(rows, 2, at::IntArrayRef{1}, true); }

// Back through u = x / max(|x|, kShortest): (g - (g . u) u) / |x|; a shorter row was divided by a constant.
Tensor through_lengths(const Tensor& g, const Tensor& unit, const Tensor& norm) {
  const Tensor along = (g * unit).sum(1, true).masked_fill(norm < kShortest, 0);
  return at::addcmul(g, along, unit, -1) / norm.clamp_min(kShortest);
}

// Rows of length one, as the fused op divides them. Copied first, for torch sums in the order of the memory. By hand,
// as torch's own backward holds three more tables of the rows' size.
struct Normalised : torch::autograd::Function<Normalised> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x) {
    at::AutoDispatchBelowADInplaceOrView guard;
    const Tensor rows = x.contiguous(), norm = lengths(rows);
    Tensor unit = rows / norm.clamp_min(kShortest);
    ctx->save_for_backward({unit, norm});
    return unit;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    return {through_lengths(grads[0], saved[0], saved[1])};
  }
};

// 1 / temperature for each of n rows, [n, 1]. Expanded twice, so that the gradient is summed up in two steps, too short
// for torch to share them out over threads: its bits do not depend on these. What is traced for any n sums as it likes.
Tensor inverse_of_rows(const Tensor& temperature, const c10::SymInt& n) {
  constexpr int64_t kStep = 128;
  const Tensor inverse = temperature.reshape({1, 1}).reciprocal();
  if (!n.maybe_as_int()) return inverse.expand_symint({n, 1});
  const int64_t rows = *n.maybe_as_int(), steps = (rows + kStep - 1) / kStep;
  return inverse.expand({steps, 1}).expand({steps, kStep}).reshape({-1, 1}).narrow(0, 0, rows);
}

Tensor info_nce_rows(const Tensor& x, const Tensor& y, const std::optional<Tensor>& keys, const Tensor& temperature) {
  check_info_nce_rows(x, y, keys, temperature);
  const Tensor v = Normalised::apply(y), scaled = Normalised::apply(x) * inverse_of_rows(temperature, x.sym_size(0));
  return row_logsumexp_op::call(scaled, keys ? Normalised::apply(*keys) : v) - (scaled * v).sum(1);
}

std::tuple<Tensor, Tensor> info_nce_counted_autograd(const Tensor& x, const Tensor& y, const Tensor& counts,
                                                     double temperature) {
  check_info_nce_counted("info_nce", x, y, counts, temperature);
  const variable_list outputs = InfoNceCounted::apply(x, y, counts, temperature);
  return {outputs[0], outputs[1]};
}

// What both directions of the composed op are made of: unit rows, and the sides of a product whose last column is the
// logarithm of how often a key occurs.
struct Counted {
  Tensor often, u, v, x_norm, y_norm, left, right;

  Counted(const Tensor& x, const Tensor& y, const Tensor& counts, double temperature)
      : often(counts.to(x.scalar_type())), x_norm(lengths(x)), y_norm(lengths(y)) {
    u = x / x_norm.clamp_min(kShortest);
    v = y / y_norm.clamp_min(kShortest);
    left = at::cat({u / temperature, at::ones_like(x_norm)}, 1);
    right = at::cat({v, often.unsqueeze(1).log()}, 1);
  }
};

}  // namespace

std::tuple<Tensor, Tensor> info_nce_counted_composed(const Tensor& x, const Tensor& y, const Tensor& counts,
                                                     double temperature) {
  check_info_nce_counted("info_nce", x, y, counts, temperature);
  const Counted of(x, y, counts, temperature);
  const Tensor lse = row_logsumexp_op::call(of.left, of.right);
  const Tensor total = (of.often * (lse - (of.u * of.v).sum(1) / temperature)).sum();
  return {total / of.often.sum().clamp_min(1), lse};
}

std::tuple<Tensor, Tensor> info_nce_backward_counted_composed(const Tensor& grad, const Tensor& x, const Tensor& y,
                                                              const Tensor& counts, const Tensor& log_sum,
                                                              double temperature) {
  check_info_nce_backward(grad, x, y, log_sum, temperature);
  check_info_nce_counted("info_nce_backward", x, y, counts, temperature);
  const Counted of(x, y, counts, temperature);
  const Tensor each = of.often * (grad / of.often.sum().clamp_min(1)), weight = each.unsqueeze(1) / temperature;
  const auto [of_left, of_right] = row_logsumexp_backward_op::call(each, of.left, of.right, log_sum);
  const int64_t d = x.size(1);
  const Tensor of_u = of_left.narrow(1, 0, d) / temperature - weight * of.v;
  const Tensor of_v = of_right.narrow(1, 0, d) - weight * of.u;
  return {through_lengths(of_u, of.u, of.x_norm), through_lengths(of_v, of.v, of.y_norm)};
}

TORCH_LIBRARY_FRAGMENT(smore_ext, m) {
  m.def("info_nce(Tensor x, Tensor y, float temperature) -> (Tensor, Tensor)");
  m.def("info_nce.counted(Tensor x, Tensor y, Tensor counts, float temperature) -> (Tensor, Tensor)");
  m.def(
      "info_nce_backward.counted(Tensor grad, Tensor x, Tensor y, Tensor counts, Tensor log_sum, float temperature) -> "
      "(Tensor, Tensor)");
  m.def("info_nce.rows(Tensor x, Tensor y, Tensor? keys, Tensor temperature) -> Tensor", &info_nce_rows);
  m.def(
      "info_nce_backward(Tensor grad, Tensor x, Tensor y, Tensor log_sum, float temperature) -> (Tensor, "
      "Tensor)");
}

TORCH_LIBRARY_IMPL(smore_ext, Autograd, m) {
  info_nce_op::bind(m, &info_nce_autograd);
  info_nce_counted_op::bind(m, &info_nce_counted_autograd);
  m.impl("info_nce_backward", torch::autograd::autogradNotImplementedFallback());
  m.impl("info_nce_backward.counted", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace smore
