#include "sampling/sample_negatives.h"

#include <torch/library.h>

TORCH_LIBRARY_FRAGMENT(smore_ext, m) {
  m.def(
      "sample_negatives(Tensor users, Tensor seen_rowptr, Tensor seen_col, Tensor candidates, int seed, int "
      "offset=0, SymInt first=0) -> Tensor");
}
