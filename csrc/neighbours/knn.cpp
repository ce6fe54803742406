#include "neighbours/knn.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/library.h>

namespace smore {
namespace {

// Results are constants, as those of comparisons are, whatever requires a gradient.
std::tuple<at::Tensor, at::Tensor> knn_autograd(const at::Tensor& features, int64_t k,
                                                const std::optional<at::Tensor>& base, bool exclude_self) {
  const at::AutoDispatchBelowADInplaceOrView guard;
  return knn_op::call(features, k, base, exclude_self);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(smore_ext, m) {
  m.def("knn(Tensor features, int k, Tensor? base=None, bool exclude_self=False) -> (Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(smore_ext, Autograd, m) { knn_op::bind(m, &knn_autograd); }

}  // namespace smore
