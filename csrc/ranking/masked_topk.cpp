#include "ranking/masked_topk.h"

#include <torch/library.h>

TORCH_LIBRARY_FRAGMENT(smore_ext, m) {
  m.def(
      "masked_topk(Tensor users, Tensor items, int k, Tensor? seen_rowptr=None, Tensor? seen_col=None) "
      "-> (Tensor, Tensor)");
}
