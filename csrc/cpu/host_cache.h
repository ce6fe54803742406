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
// Process-wide (it becomes torch's CPU allocator on first use) and thread-safe.
void set_host_cache(std::size_t max_bytes);

// As at the start: what our own ops return is reused, up to kOutputCacheBytes kept, and torch's other tensors are not.
void reset_host_cache();

// For tensors that an op returns.
c10::Allocator* output_allocator();

}  // namespace smore
