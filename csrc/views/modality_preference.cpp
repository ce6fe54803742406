// Contract of modality_preference, for every device: side information of nodes from the views of their modalities
// (docs/spec.md, section 1, step 6).
//
// M modalities and their fusion, R nodes: gates [R, (M + 1) d], attention [M, R, d], views [R, (M + 1) d], the fused
// view last; all float32 or all float64. Returns side [R, d] =
//     (sum_m D(sigmoid(gates_m)) * softmax(attention_m) * views_m + D(sigmoid(gates_M)) * views_M) / (M + 1),
// where D is dropout of the sigmoids as a whole, [R, (M + 1) d], as the op dropout has it. Sums of a row only: of d
// terms in the softmax, of M + 1 in the result. Backward computes sigmoids, softmax and dropout again.
#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "common/check.h"
#include "common/dispatch.h"
#include "common/dropout_check.h"
#include "common/op.h"
#include "common/run.h"
#include "views/modality_preference_kernel.h"

namespace smore {

SMORE_OP(modality_preference,
         at::Tensor(const at::Tensor& gates, const at::Tensor& attention, const at::Tensor& views, double p,
                    int64_t seed, int64_t offset, const std::optional<at::Tensor>& step));
SMORE_OP(modality_preference_backward,
         std::tuple<at::Tensor, at::Tensor, at::Tensor>(const at::Tensor& grad, const at::Tensor& gates,
                                                        const at::Tensor& attention, const at::Tensor& views, double p,
                                                        int64_t seed, int64_t offset,
                                                        const std::optional<at::Tensor>& step));

namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kRowsAThread = 32;  // fewer are not worth waking a thread for

void check_modality_preference(const char* op, const Tensor& gates, const Tensor& attention, const Tensor& views,
                               double p, int64_t seed, int64_t offset, const OptionalTensor& step) {
  check_floating(op, "gates", gates);
  check_dim(op, "attention", attention, 3);
  const auto modalities = attention.sym_size(0), n = attention.sym_size(1), d = attention.sym_size(2);
  for (const auto& [name, t] : {std::pair("attention", &attention), std::pair("views", &views)}) {
    check_same_type(op, name, *t, "gates", gates);
    check_same_device(op, name, *t, "gates", gates);
  }
  check_shape(op, "gates", gates, {n, (modalities + 1) * d});
  check_shape(op, "views", views, {n, (modalities + 1) * d});
  check_dropout_rule(op, "gates", gates, p, seed, offset, step);
}

// The arguments as kernels read them: contiguous, kept alive meanwhile.
struct Inputs {
  Tensor gates, attention, views;
  double p;
  int64_t seed, offset;
  OptionalTensor step;

  template <typename T>
  Preference<T> job() const {
    const int64_t* at_step = step ? step->const_data_ptr<int64_t>() : nullptr;
    return {gates.const_data_ptr<T>(),
            attention.const_data_ptr<T>(),
            views.const_data_ptr<T>(),
            attention.size(1),
            attention.size(0),
            attention.size(2),
            DropoutRule<T>::of(p, seed, offset, at_step)};
  }
};

Tensor modality_preference_forward(const Tensor& gates, const Tensor& attention, const Tensor& views, double p,
                                   int64_t seed, int64_t offset, const OptionalTensor& step) {
  constexpr const char* op = "modality_preference";
  check_modality_preference(op, gates, attention, views, p, seed, offset, step);
  const Inputs in{gates.contiguous(), attention.contiguous(), views.contiguous(), p, seed, offset, step};
  Tensor side = new_output(gates, {attention.size(1), attention.size(2)});
  dispatch_floating(gates, [&](auto type) {
    using T = decltype(type);
    const PreferenceForward<T> job{in.job<T>(), side.mutable_data_ptr<T>()};
    run(op, gates, job.of.n, kRowsAThread, [&](auto place) { modality_preference(job, place); });
  });
  return side;
}

std::tuple<Tensor, Tensor, Tensor> modality_preference_gradients(const Tensor& grad, const Tensor& gates,
                                                                 const Tensor& attention, const Tensor& views, double p,
                                                                 int64_t seed, int64_t offset,
                                                                 const OptionalTensor& step) {
  constexpr const char* op = "modality_preference_backward";
  check_modality_preference(op, gates, attention, views, p, seed, offset, step);
  check_same_type(op, "grad", grad, "gates", gates);
  check_same_device(op, "grad", grad, "gates", gates);
  check_shape(op, "grad", grad, {attention.sym_size(1), attention.sym_size(2)});
  const Inputs in{gates.contiguous(), attention.contiguous(), views.contiguous(), p, seed, offset, step};
  const Tensor grads = grad.contiguous();
  Tensor grad_gates = new_output(gates, gates.sizes()), grad_attention = new_output(attention, attention.sizes()),
         grad_views = new_output(views, views.sizes());
  dispatch_floating(gates, [&](auto type) {
    using T = decltype(type);
    const PreferenceBackward<T> job{in.job<T>(), grads.const_data_ptr<T>(), grad_gates.mutable_data_ptr<T>(),
                                    grad_attention.mutable_data_ptr<T>(), grad_views.mutable_data_ptr<T>()};
    run(op, gates, job.of.n, kRowsAThread, [&](auto place) { modality_preference_backward(job, place); });
  });
  return {grad_gates, grad_attention, grad_views};
}

struct ModalityPreference : torch::autograd::Function<ModalityPreference> {
  static Tensor forward(AutogradContext* ctx, const Tensor& gates, const Tensor& attention, const Tensor& views,
                        double p, int64_t seed, int64_t offset, const OptionalTensor& step) {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->saved_data["p"] = p;
    ctx->saved_data["seed"] = seed;
    ctx->saved_data["offset"] = offset;
    variable_list saved{gates, attention, views};
    if (step) saved.push_back(*step);
    ctx->save_for_backward(saved);
    return modality_preference_op::call(gates, attention, views, p, seed, offset, step);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const OptionalTensor step = saved.size() > 3 ? OptionalTensor(saved[3]) : std::nullopt;
    auto [grad_gates, grad_attention, grad_views] =
        modality_preference_backward_op::call(grads[0], saved[0], saved[1], saved[2], ctx->saved_data["p"].toDouble(),
                                              ctx->saved_data["seed"].toInt(), ctx->saved_data["offset"].toInt(), step);
    return {grad_gates, grad_attention, grad_views, Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

Tensor modality_preference_autograd(const Tensor& gates, const Tensor& attention, const Tensor& views, double p,
                                    int64_t seed, int64_t offset, const OptionalTensor& step) {
  check_modality_preference("modality_preference", gates, attention, views, p, seed, offset, step);
  return ModalityPreference::apply(gates, attention, views, p, seed, offset, step);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(smore_ext, m) {
  m.def(
      "modality_preference(Tensor gates, Tensor attention, Tensor views, float p=0., int seed=0, int offset=0, "
      "Tensor? step=None) -> Tensor");
  m.def(
      "modality_preference_backward(Tensor grad, Tensor gates, Tensor attention, Tensor views, float p=0., int seed=0, "
      "int offset=0, Tensor? step=None) -> (Tensor, Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(smore_ext, CompositeExplicitAutograd, m) {
  modality_preference_op::bind(m, &modality_preference_forward);
  modality_preference_backward_op::bind(m, &modality_preference_gradients);
}

TORCH_LIBRARY_IMPL(smore_ext, Autograd, m) {
  modality_preference_op::bind(m, &modality_preference_autograd);
  m.impl("modality_preference_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace smore
