#include "neighbours/knn.h"

#include <torch/library.h>

TORCH_LIBRARY_FRAGMENT(smore_ext, m) { m.def("knn(Tensor features, int k) -> (Tensor, Tensor)"); }
