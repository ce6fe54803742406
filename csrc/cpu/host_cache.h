// Reuse of large blocks of CPU memory, as torch does on CUDA devices.
#pragma once

#include <c10/core/Allocator.h>

#include <cstddef>

namespace smore {

// What the results of our own ops keep for the next ones, unless set otherwise.
inline constexpr std::size_t kOutputCacheBytes = std::size_t{128} << 20;

// Keeps freed tensors' memory of 1 MB or more for the next tensor of about the same size, up to max_bytes in all; 0
// gives back what is kept and stops. A training step asks for the same large tensors each time: from the system they
// come as fresh pages, and touching these for the first time costs more than the arithmetic that fills them.
// every_tensor: not only what our own ops return. The first true makes it torch's CPU allocator, which it stays: after
// a false it passes requests on. Process-wide and thread-safe. At the start: kOutputCacheBytes, false.
void set_host_cache(std::size_t max_bytes, bool every_tensor);

struct HostCacheState {
  std::size_t max_bytes;
  bool every_tensor;
  std::size_t kept_bytes;
};
HostCacheState host_cache();

// Gives back what is kept.
void clear_host_cache();

// For tensors that an op returns.
c10::Allocator* output_allocator();

}  // namespace smore
