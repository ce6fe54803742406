// A GPU's part of common/run.h.
#include "common/run.h"

#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

namespace smore {

void run_on_cuda(c10::Device device, c10::function_ref<void(CudaStream)> f) {
  const c10::cuda::CUDAGuard guard(device);
  f({c10::cuda::getCurrentCUDAStream().stream()});
}

}  // namespace smore
