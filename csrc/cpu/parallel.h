// Runs a range function on torch's own threads.
//
// libtorch's C entry point is used instead of at::parallel_for, whose header would compile its OpenMP region
// into this library: then a second OpenMP runtime could be loaded beside torch's. torch.set_num_threads is
// respected.
#pragma once

#include <c10/util/Exception.h>
#include <torch/csrc/stable/c/shim.h>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <mutex>

namespace smore {

// Calls f(begin, end) on disjoint ranges that cover [0, n); a range has at least `grain` elements unless it
// is the last.
template <typename F>
void parallel_ranges(int64_t n, int64_t grain, const F& f) {
  if (n <= 0) return;
  struct Job {
    const F& f;
    std::mutex mutex;
    std::exception_ptr error;  // the first one, to be thrown again here: the C interface carries none
  } job{f, {}, nullptr};
  auto call = [](int64_t begin, int64_t end, void* context) {
    Job& shared = *static_cast<Job*>(context);
    try {
      shared.f(begin, end);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(shared.mutex);
      if (!shared.error) shared.error = std::current_exception();
    }
  };
  const auto status = torch_parallel_for(0, n, std::max<int64_t>(grain, 1), call, &job);
  if (job.error) std::rethrow_exception(job.error);
  TORCH_CHECK(status == AOTI_TORCH_SUCCESS, "smore_ext: torch_parallel_for failed");
}

}  // namespace smore
