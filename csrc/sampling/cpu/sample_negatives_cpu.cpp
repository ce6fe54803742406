// CPU binding of sample_negatives: shares positions out over torch's threads.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <mutex>

#include "common/dispatch.h"
#include "cpu/csr_check.h"
#include "cpu/parallel.h"
#include "sampling/cpu/sample_negatives_kernel.h"
#include "sampling/sample_negatives.h"

namespace smore {
namespace {

using at::Tensor;
constexpr const char* kOp = "sample_negatives";

template <typename I>
Tensor run(const Tensor& users, const Tensor& rowptr, const Tensor& col, const Tensor& candidates, int64_t seed,
           int64_t offset, int64_t first) {
  const int64_t n_users = rowptr.size(0) - 1, size = users.size(0);
  const int64_t* ids = users.const_data_ptr<int64_t>();
  const int64_t* items = candidates.const_data_ptr<int64_t>();
  check_sorted_rows(kOp, "seen", rowptr.const_data_ptr<I>(), n_users, col.const_data_ptr<I>(), col.size(0),
                    std::numeric_limits<I>::max());
  bool known = true;
  for (int64_t b = 0; b < size; ++b) known &= static_cast<uint64_t>(ids[b]) < static_cast<uint64_t>(n_users);
  for (int64_t b = 0; !known && b < size; ++b) check_id(kOp, "users", ids[b], n_users, b);
  for (int64_t c = 0; c < candidates.size(0); ++c) {
    SMORE_CHECK_INDEX(items[c] >= 0, kOp, "candidates must be at least 0, got ", items[c], " at position ", c);
  }
  Tensor negatives = at::empty(users.sizes(), users.options());
  const SampleJob<I> job{ids,
                         rowptr.const_data_ptr<I>(),
                         col.const_data_ptr<I>(),
                         col.size(0),
                         items,
                         candidates.size(0),
                         static_cast<uint64_t>(seed),
                         static_cast<uint64_t>(offset),
                         first,
                         negatives.mutable_data_ptr<int64_t>()};
  int64_t stuck = -1;
  std::mutex mutex;
  parallel_ranges(size, 1024, [&](int64_t begin, int64_t end) {
    const int64_t position = sample_range(job, begin, end);
    if (position < 0) return;
    const std::lock_guard<std::mutex> lock(mutex);
    if (stuck < 0 || position < stuck) stuck = position;
  });
  SMORE_CHECK_VALUE(stuck < 0, kOp, "every user must leave at least one candidate unseen, got user ", ids[stuck],
                    " who has seen all ", candidates.size(0));
  return negatives;
}

Tensor sample_negatives_cpu(const Tensor& users, const Tensor& seen_rowptr, const Tensor& seen_col,
                            const Tensor& candidates, int64_t seed, int64_t offset, int64_t first) {
  check_sample_negatives(users, seen_rowptr, seen_col, candidates, seed, offset, first);
  const Tensor u = users.contiguous(), c = candidates.contiguous();
  const Tensor rowptr = seen_rowptr.contiguous(), col = seen_col.contiguous();
  return dispatch_index(rowptr, [&](auto i) { return run<decltype(i)>(u, rowptr, col, c, seed, offset, first); });
}

}  // namespace

TORCH_LIBRARY_IMPL(smore_ext, CPU, m) { sample_negatives_op::bind(m, &sample_negatives_cpu); }

}  // namespace smore
