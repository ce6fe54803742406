#include "ranking/masked_topk.h"

#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

namespace smore {

TORCH_LIBRARY_FRAGMENT(smore_ext, m) {
  m.def(
      "masked_topk(Tensor users, Tensor items, int k, Tensor? seen_rowptr=None, Tensor? seen_col=None) "
      "-> (Tensor, Tensor)");
}

// Asking for a gradient raises instead of giving none.
TORCH_LIBRARY_IMPL(smore_ext, Autograd, m) { m.impl("masked_topk", torch::autograd::autogradNotImplementedFallback()); }

}  // namespace smore
