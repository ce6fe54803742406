// Contract of dropout, for every device (Srivastava et al., JMLR 15, 2014; scaled while training).
//
// x of any shape but [], float32, float64 or bfloat16; 0 <= p < 1. y = x / (1 - p) where the element's word of
// Philox4x32-10 with key `seed` and an offset is at least p 2^32, 0 elsewhere (common/dropout_words.h says which word).
// The offset is `offset`, or what the tensor `step` holds when the kernel runs. Backward is the same function of the
// gradient: nothing of the size of x is saved.
#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "common/check.h"
#include "common/dropout_check.h"
#include "common/op.h"
#include "common/run.h"
#include "sampling/dropout_kernel.h"

namespace smore {

SMORE_OP(dropout, at::Tensor(const at::Tensor& x, double p, int64_t seed, int64_t offset,
                             const std::optional<at::Tensor>& step));

namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kGroupsAThread = 64;  // fewer are not worth waking a thread for

void check_dropout(const Tensor& x, double p, int64_t seed, int64_t offset, const std::optional<Tensor>& step) {
  constexpr const char* op = "dropout";
  const auto type = x.scalar_type();
  SMORE_CHECK_TYPE(type == at::kFloat || type == at::kDouble || type == at::kBFloat16, op,
                   "x must be float32, float64 or bfloat16, got ", type);
  SMORE_CHECK_VALUE(x.dim() >= 1, op, "x must have at least one dimension, got shape []");
  check_dropout_rule(op, "x", x, p, seed, offset, step);
}

template <typename S, typename Torch>
void run_dropout(const Tensor& x, double p, int64_t seed, int64_t offset, const int64_t* step, Tensor& y) {
  const Dropout<S> job{reinterpret_cast<const S*>(x.const_data_ptr<Torch>()), x.numel(),
                       DropoutRule<Accumulator<S>>::of(p, seed, offset, step),
                       reinterpret_cast<S*>(y.mutable_data_ptr<Torch>())};
  smore::run("dropout", x, job.groups(), kGroupsAThread, [&](auto place) { dropout(job, place); });
}

Tensor dropout_forward(const Tensor& x, double p, int64_t seed, int64_t offset, const std::optional<Tensor>& step) {
  check_dropout(x, p, seed, offset, step);
  const Tensor dense = x.contiguous();
  const int64_t* at_step = step ? step->const_data_ptr<int64_t>() : nullptr;
  Tensor y = new_output(x, x.sizes());
  if (x.scalar_type() == at::kFloat) {
    run_dropout<float, float>(dense, p, seed, offset, at_step, y);
  } else if (x.scalar_type() == at::kDouble) {
    run_dropout<double, double>(dense, p, seed, offset, at_step, y);
  } else {
    run_dropout<BFloat16, at::BFloat16>(dense, p, seed, offset, at_step, y);
  }
  return y;
}

struct DropoutFunction : torch::autograd::Function<DropoutFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, double p, int64_t seed, int64_t offset,
                        const std::optional<Tensor>& step) {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->saved_data["p"] = p;
    ctx->saved_data["seed"] = seed;
    ctx->saved_data["offset"] = offset;
    if (step) ctx->save_for_backward({*step});  // a step that is changed before backward is noticed
    return dropout_op::call(x, p, seed, offset, step);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const std::optional<Tensor> step = saved.empty() ? std::nullopt : std::optional<Tensor>(saved[0]);
    return {dropout_op::call(grads[0], ctx->saved_data["p"].toDouble(), ctx->saved_data["seed"].toInt(),
                             ctx->saved_data["offset"].toInt(), step),
            Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

Tensor dropout_autograd(const Tensor& x, double p, int64_t seed, int64_t offset, const std::optional<Tensor>& step) {
  check_dropout(x, p, seed, offset, step);
  return DropoutFunction::apply(x, p, seed, offset, step);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(smore_ext, m) {
  m.def("dropout(Tensor x, float p, int seed, int offset=0, Tensor? step=None) -> Tensor");
}

TORCH_LIBRARY_IMPL(smore_ext, CompositeExplicitAutograd, m) { dropout_op::bind(m, &dropout_forward); }

TORCH_LIBRARY_IMPL(smore_ext, Autograd, m) { dropout_op::bind(m, &dropout_autograd); }

}  // namespace smore
