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

namespace smore {

// Calls f(begin, end) on disjoint ranges that cover [0, n); a range has at least `grain` elements unless it
// is the last.
template <typename F>
void parallel_ranges(int64_t n, int64_t grain, const F& f) {
  if (n <= 0) return;
  auto call = [](int64_t begin, int64_t end, void* context) { (*static_cast<const F*>(context))(begin, end); };
  void* context = const_cast<void*>(static_cast<const void*>(&f));
  TORCH_CHECK(torch_parallel_for(0, n, std::max<int64_t>(grain, 1), call, context) == AOTI_TORCH_SUCCESS,
              "smore_ext: a kernel failed in a worker thread");
}

}  // namespace smore
