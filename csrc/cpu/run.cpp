// The CPU's part of common/run.h.
#include "common/run.h"

#include "cpu/output.h"
#include "cpu/parallel.h"

namespace smore {

at::Tensor new_cpu_output(at::IntArrayRef sizes, const at::TensorOptions& options) {
  return empty_output(sizes, options);
}

void run_on_cpu(int64_t n, int64_t grain, c10::function_ref<void(Range)> f) {
  parallel_ranges(n, grain, [&](int64_t begin, int64_t end) { f({begin, end}); });
}

}  // namespace smore
