// Reuse of large blocks of CPU memory, as torch does on CUDA devices.
#pragma once

#include <cstddef>

namespace smore {

// Keeps freed tensors' memory of 1 MB or more for the next tensor of about the same size, up to max_bytes in all; 0
// gives back what is kept and stops. A training step asks for the same large tensors each time: from the system they
// come as fresh pages, and touching these for the first time costs more than the arithmetic that fills them.
// Process-wide (it becomes torch's CPU allocator on first use) and thread-safe.
void set_host_cache(std::size_t max_bytes);

}  // namespace smore
