// From the dtype of a tensor to a type of C++: f is called with a value of it.
#pragma once

#include <ATen/core/Tensor.h>

namespace smore {

// float or double, for a tensor that check_floating() has passed.
template <typename F>
auto dispatch_floating(const at::Tensor& t, const F& f) {
  return t.scalar_type() == at::kFloat ? f(float()) : f(double());
}

// int32_t or int64_t, for a tensor that check_index_type() has passed.
template <typename F>
auto dispatch_index(const at::Tensor& t, const F& f) {
  return t.scalar_type() == at::kInt ? f(int32_t()) : f(int64_t());
}

}  // namespace smore
