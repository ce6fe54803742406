#include "tables/factored_adam.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/library.h>

#include <utility>

namespace smore {
namespace {

using at::Tensor;

// Raises the versions of what is written, as every in-place op does: a backward pass that saved one of them must
// notice.
void factored_adam_inplace(const Tensor& param, const Tensor& exp_avg, const Tensor& exp_avg_sq,
                           const Tensor& grad_rows, const Tensor& factor, const Tensor& step, double lr, double beta1,
                           double beta2, double eps, const std::optional<Tensor>& lr_tensor) {
  {
    const at::AutoDispatchBelowADInplaceOrView guard;
    factored_adam__op::call(param, exp_avg, exp_avg_sq, grad_rows, factor, step, lr, beta1, beta2, eps, lr_tensor);
  }
  for (const Tensor& written : {param, exp_avg, exp_avg_sq}) {
    if (!written.is_inference()) torch::autograd::impl::bump_version(written);
  }
}

void factored_adam_autograd(const Tensor& param, const Tensor& exp_avg, const Tensor& exp_avg_sq,
                            const Tensor& grad_rows, const Tensor& factor, const Tensor& step, double lr, double beta1,
                            double beta2, double eps, const std::optional<Tensor>& lr_tensor) {
  for (const Tensor& t : {param, exp_avg, exp_avg_sq, grad_rows, factor, step, lr_tensor.value_or(step)}) {
    TORCH_CHECK(!t._fw_grad(0).defined(), "smore_ext::factored_adam_: tensors must not have tangents (it is not ",
                "differentiable), got one of shape ", t.sizes());
    if (at::GradMode::is_enabled()) {
      TORCH_CHECK(!t.requires_grad(), "smore_ext::factored_adam_: tensors must not require grad where gradients are ",
                  "recorded (it is not differentiable), got one of shape ", t.sizes(),
                  "; call it under torch.no_grad()");
    }
  }
  const at::AutoDispatchBelowAutograd guard;
  factored_adam__op::call(param, exp_avg, exp_avg_sq, grad_rows, factor, step, lr, beta1, beta2, eps, lr_tensor);
}

// Negation or conjugation that is still to be done. torch's own fallback for in-place ops copies back what the op
// returns, and this one returns nothing.
void factored_adam_pending(const Tensor& param, const Tensor& exp_avg, const Tensor& exp_avg_sq,
                           const Tensor& grad_rows, const Tensor& factor, const Tensor& step, double lr, double beta1,
                           double beta2, double eps, const std::optional<Tensor>& lr_tensor) {
  const std::pair<const char*, const Tensor*> written[] = {
      {"param", &param}, {"exp_avg", &exp_avg}, {"exp_avg_sq", &exp_avg_sq}};
  for (const auto& [name, tensor] : written) {
    SMORE_CHECK_VALUE(!tensor->is_neg() && !tensor->is_conj(), "factored_adam_", name,
                      " must hold its values (it is changed in place), got a view that negates or conjugates them");
  }
  const auto done = [](const Tensor& t) { return t.resolve_neg().resolve_conj(); };
  factored_adam__op::call(param, exp_avg, exp_avg_sq, done(grad_rows), done(factor), done(step), lr, beta1, beta2, eps,
                          lr_tensor.has_value() ? std::optional<Tensor>(done(*lr_tensor)) : std::nullopt);
}

}  // namespace

// It returns nothing: torch.compile takes no op of a library that returns what it writes to.
TORCH_LIBRARY_FRAGMENT(smore_ext, m) {
  m.def(
      "factored_adam_(Tensor(a!) param, Tensor(b!) exp_avg, Tensor(c!) exp_avg_sq, Tensor grad_rows, Tensor factor, "
      "Tensor step, float lr, float beta1=0.9, float beta2=0.999, float eps=1e-8, Tensor? lr_tensor=None) -> ()");
}

TORCH_LIBRARY_IMPL(smore_ext, Autograd, m) { factored_adam__op::bind(m, &factored_adam_autograd); }

TORCH_LIBRARY_IMPL(smore_ext, ADInplaceOrView, m) { factored_adam__op::bind(m, &factored_adam_inplace); }

TORCH_LIBRARY_IMPL(smore_ext, Negative, m) { factored_adam__op::bind(m, &factored_adam_pending); }

TORCH_LIBRARY_IMPL(smore_ext, Conjugate, m) { factored_adam__op::bind(m, &factored_adam_pending); }

}  // namespace smore
