// Whether the current stream is being captured into a CUDA graph. What is captured runs later: nothing can be read
// back.
#pragma once

#include <c10/cuda/CUDAGraphsC10Utils.h>

namespace smore::cuda {

inline bool capturing() { return c10::cuda::currentStreamCaptureStatusMayInitCtx() != c10::cuda::CaptureStatus::None; }

}  // namespace smore::cuda
