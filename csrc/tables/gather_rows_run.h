// What the bindings of gather_rows share on every device.
#pragma once

#include <ATen/core/Tensor.h>

#include "common/bfloat16.h"

namespace smore {

// f is called with a number of the kernels' type and one of torch's.
template <typename F>
void dispatch_rows(const at::Tensor& t, const F& f) {
  if (t.scalar_type() == at::kFloat) return f(float(), float());
  if (t.scalar_type() == at::kDouble) return f(double(), double());
  f(BFloat16(), at::BFloat16());
}

template <typename S, typename Torch>
const S* rows_of(const at::Tensor& t) {
  return reinterpret_cast<const S*>(t.const_data_ptr<Torch>());
}

template <typename S, typename Torch>
S* rows_to(at::Tensor& t) {
  return reinterpret_cast<S*>(t.mutable_data_ptr<Torch>());
}

}  // namespace smore
