// Check of an index list on the CPU, as cuda/index_check.h has it for a GPU.
#pragma once

#include <ATen/core/Tensor.h>

#include <atomic>

#include "common/check.h"
#include "cpu/parallel.h"

namespace smore {

// Every one of ids (int64, contiguous) must be in 0..limit-1; the error names the first that is not.
inline void check_ids_cpu(const char* op, const char* name, const at::Tensor& ids, int64_t limit) {
  const int64_t* values = ids.const_data_ptr<int64_t>();
  std::atomic<bool> sound{true};
  parallel_ranges(ids.numel(), 32768, [&](int64_t begin, int64_t end) {
    bool good = true;
    for (int64_t e = begin; e < end; ++e) good &= values[e] >= 0 && values[e] < limit;
    if (!good) sound = false;
  });
  if (sound) return;
  for (int64_t e = 0; e < ids.numel(); ++e) check_id(op, name, values[e], limit, e);
}

}  // namespace smore
