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
  static variable_list forward(AutogradContext* ctx, TensorList tables, const Tensor& index) {
    ctx->save_for_backward({index});
    ctx->saved_data["n"] = tables[0].sym_size(0);
    at::AutoDispatchBelowADInplaceOrView guard;
    return gather_rows_op::call(tables, index);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    variable_list result = gather_rows_backward_op::call(grads, saved[0], ctx->saved_data["n"].toSymInt());
    result.emplace_back();
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
    variable_list result = gather_rows_op::call(grads, saved[0]);
    result.resize(result.size() + 2);
    return result;
  }
};

std::vector<Tensor> gather_rows_backward_autograd(TensorList grads, const Tensor& index, c10::SymInt n) {
  check_gather_rows("gather_rows_backward", "grads", grads, index, index.sym_size(0));
  return GatherRowsBackward::apply(grads, index, n);
}

std::vector<Tensor> gather_rows_autograd(TensorList tables, const Tensor& index) {
  check_gather_rows("gather_rows", "tables", tables, index, rows_in(tables));
  return GatherRows::apply(tables, index);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(smore_ext, m) {
  m.def("gather_rows(Tensor[] tables, Tensor index) -> Tensor[]");
  m.def("gather_rows_backward(Tensor[] grads, Tensor index, SymInt n) -> Tensor[]");
}

TORCH_LIBRARY_IMPL(smore_ext, Autograd, m) {
  gather_rows_op::bind(m, &gather_rows_autograd);
  gather_rows_backward_op::bind(m, &gather_rows_backward_autograd);
}

}  // namespace smore
