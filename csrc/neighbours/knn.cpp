#include "neighbours/knn.h"

#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

namespace smore {

TORCH_LIBRARY_FRAGMENT(smore_ext, m) {
  m.def("knn(Tensor features, int k, Tensor? base=None, bool exclude_self=False) -> (Tensor, Tensor)");
}

// Asking for a gradient raises instead of giving none.
TORCH_LIBRARY_IMPL(smore_ext, Autograd, m) { m.impl("knn", torch::autograd::autogradNotImplementedFallback()); }

}  // namespace smore
