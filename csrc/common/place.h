// Where a kernel runs, as its last argument: the kernels of a job have one name on every device. No torch here.
#pragma once

#include <cstdint>

namespace smore {

// On the CPU: the part of the work that one thread takes, [begin, end).
struct Range {
  int64_t begin, end;
};

// On a GPU: all of the work, behind what the stream still has to do. The handle is a cudaStream_t.
struct CudaStream {
  void* handle = nullptr;
};

}  // namespace smore
