// From dense rows and the indices of a graph to types of C++, and to raw pointers.
#pragma once

#include <ATen/core/Tensor.h>

#include "common/bfloat16.h"
#include "common/dispatch.h"

namespace smore {

// Calls f with a value of the type of x in memory.
template <typename F>
void dispatch_stored(const at::Tensor& x, const F& f) {
  if (x.scalar_type() == at::kBFloat16) return f(BFloat16());
  dispatch_floating(x, f);
}

// Calls f with a value of the type of x in memory and one of the type of the indices.
template <typename F>
void dispatch_rows(const at::Tensor& x, const at::Tensor& rowptr, const F& f) {
  dispatch_stored(x, [&](auto s) { dispatch_index(rowptr, [&](auto i) { f(s, i); }); });
}

template <typename S>
const S* read(const at::Tensor& t) {
  return static_cast<const S*>(t.const_data_ptr());
}

template <typename S>
S* write(const at::Tensor& t) {
  return static_cast<S*>(t.mutable_data_ptr());
}

}  // namespace smore
