#include "tables/gather_rows.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

namespace smore {
namespace {

using at::Tensor;
using at::TensorList;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct GatherRows : torch::autograd::Function<GatherRows> {
  static variable_list forward(AutogradContext* ctx, TensorList tables, const Tensor& index, bool check) {
    ctx->save_for_backward({index});
    ctx->saved_data["n"] = tables[0].sym_size(0);
    ctx->set_materialize_grads(false);
    at::AutoDispatchBelowADInplaceOrView guard;
    return gather_rows_op::call(tables, index, check);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    variable_list given, result(grads.size() + 2);
    for (const Tensor& grad : grads) {
      if (grad.defined()) given.push_back(grad);
    }
    if (given.empty()) return result;
    const variable_list found = gather_rows_backward_op::call(given, saved[0], ctx->saved_data["n"].toSymInt());
    for (size_t t = 0, at = 0; t < grads.size(); ++t) {
      if (grads[t].defined()) result[t] = found[at++];
    }
    return result;
  }
};

// Linear, as gather_rows is, whose transpose it is: each is the other's gradient.
struct GatherRowsBackward : torch::autograd::Function<GatherRowsBackward> {
  static variable_list forward(AutogradContext* ctx, TensorList grads, const Tensor& index, const c10::SymInt& n) {
    ctx->save_for_backward({index});
    at::AutoDispatchBelowADInplaceOrView guard;
    return gather_rows_backward_op::call(grads, index, n);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    variable_list result = gather_rows_op::call(grads, saved[0], false);
    result.resize(result.size() + 2);
    return result;
  }
};

std::vector<Tensor> gather_rows_backward_autograd(TensorList grads, const Tensor& index, c10::SymInt n) {
  check_gather_rows("gather_rows_backward", "grads", grads, index, index.sym_size(0));
  return GatherRowsBackward::apply(grads, index, n);
}

// Tables that learn nothing are gathered apart: no gradient of theirs is made.
std::vector<Tensor> gather_rows_autograd(TensorList tables, const Tensor& index, bool check) {
  check_gather_rows("gather_rows", "tables", tables, index, rows_in(tables));
  std::vector<Tensor> learned, fixed, result;
  const auto learns = [](const Tensor& table) { return table.requires_grad() || table._fw_grad(0).defined(); };
  for (const Tensor& table : tables) (learns(table) ? learned : fixed).push_back(table);
  if (!learned.empty()) learned = GatherRows::apply(TensorList(learned), index, check);
  if (!fixed.empty()) {
    at::AutoDispatchBelowADInplaceOrView guard;
    fixed = gather_rows_op::call(fixed, index, check);
  }
  size_t of_learned = 0, of_fixed = 0;
  for (const Tensor& table : tables) {
    result.push_back(learns(table) ? learned[of_learned++] : fixed[of_fixed++]);
  }
  return result;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(smore_ext, m) {
  m.def("gather_rows(Tensor[] tables, Tensor index, bool check=True) -> Tensor[]");
  m.def("gather_rows_backward(Tensor[] grads, Tensor index, SymInt n) -> Tensor[]");
}

TORCH_LIBRARY_IMPL(smore_ext, Autograd, m) {
  gather_rows_op::bind(m, &gather_rows_autograd);
  gather_rows_backward_op::bind(m, &gather_rows_backward_autograd);
}

}  // namespace smore
