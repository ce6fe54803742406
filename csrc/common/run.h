// For ops whose devices differ in their kernels only: they are written and bound once, in the contract.
//
//     Tensor y = new_output(x, x.sizes());
//     run("scaled", x, n, 64, [&](auto place) { scaled(job, place); });
//
// calls scaled(job, Range) on torch's threads for parts of n units of work, of at least 64 each; or, for tensors on a
// GPU, scaled(job, CudaStream) once on the current stream. The function is bound to CompositeExplicitAutograd, which
// stands for every device. An op that needs a device's own scratch memory, checks or libraries binds each device in the
// folders cpu and cuda instead.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <c10/util/FunctionRef.h>

#include "common/place.h"

namespace smore {

// What the devices bring: defined in their own folders.
at::Tensor new_cpu_output(at::IntArrayRef sizes, const at::TensorOptions& options);
void run_on_cpu(int64_t n, int64_t grain, c10::function_ref<void(Range)> f);
void run_on_cuda(c10::Device device, c10::function_ref<void(CudaStream)> f);

// An uninitialised tensor on the device and of the dtype of another one, about to be written as a whole.
inline at::Tensor new_output(const at::Tensor& like, at::IntArrayRef sizes) {
  return like.is_cpu() ? new_cpu_output(sizes, like.options()) : at::empty(sizes, like.options());
}

template <typename F>
void run(const char* op, const at::Tensor& like, int64_t n, int64_t grain, const F& f) {
  if (n == 0) return;
  if (like.is_cpu()) return run_on_cpu(n, grain, f);
#ifdef SMORE_BUILD_CUDA
  if (like.is_cuda()) return run_on_cuda(like.device(), f);
#endif
  TORCH_CHECK_NOT_IMPLEMENTED(false, "smore_ext::", op,
                              ": tensors must be on a device that this build has kernels for, ", "got ", like.device());
}

}  // namespace smore
