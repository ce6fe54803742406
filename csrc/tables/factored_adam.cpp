#include "tables/factored_adam.h"

#include <torch/library.h>

TORCH_LIBRARY_FRAGMENT(smore_ext, m) {
  m.def(
      "factored_adam_(Tensor(a!) param, Tensor(b!) exp_avg, Tensor(c!) exp_avg_sq, Tensor grad_rows, Tensor factor, "
      "Tensor step, float lr, float beta1=0.9, float beta2=0.999, float eps=1e-8, Tensor? lr_tensor=None) -> ()");
}
