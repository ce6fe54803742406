// The tensors that ops return.
#pragma once

#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>

#include "cpu/host_cache.h"

namespace smore {

// An uninitialised tensor that is about to be written as a whole; the memory of a freed one serves again.
inline at::Tensor empty_output(at::IntArrayRef sizes, const at::TensorOptions& options) {
  return at::detail::empty_generic(sizes, output_allocator(), c10::DispatchKeySet(c10::DispatchKey::CPU),
                                   c10::typeMetaToScalarType(options.dtype()), std::nullopt);
}

// A scalar of type T. What is beyond its range is infinite, as it is where torch computes it.
template <typename T>
at::Tensor scalar_output(double value, const at::TensorOptions& options) {
  at::Tensor result = empty_output({}, options);
  *result.mutable_data_ptr<T>() = static_cast<T>(value);
  return result;
}

}  // namespace smore
