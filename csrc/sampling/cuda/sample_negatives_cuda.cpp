// CUDA binding of sample_negatives.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <limits>

#include "common/dispatch.h"
#include "cuda/capture.h"
#include "cuda/index_check.h"
#include "sampling/cuda/sample_negatives_kernel.h"
#include "sampling/sample_negatives.h"

namespace smore {
namespace {

using at::Tensor;
constexpr const char* kOp = "sample_negatives";

// Reads the launch's verdict back and throws what the CPU op throws, in its order.
void raise(const Tensor& verdict, const Tensor& users, const Tensor& candidates, int64_t n_users) {
  constexpr int64_t kNone = std::numeric_limits<int64_t>::max() / 2;
  static_assert(sizeof(cuda::SampleVerdict) == 3 * sizeof(int64_t));
  const Tensor on_host = verdict.cpu();
  const int64_t* first = on_host.const_data_ptr<int64_t>();
  if (first[0] < kNone) cuda::check_ids_cuda(kOp, "users", users, n_users);
  const int64_t candidate = first[1], position = first[2];
  SMORE_CHECK_INDEX(candidate > kNone, kOp, "candidates must be at least 0, got ",
                    candidates[candidate].item<int64_t>(), " at position ", candidate);
  SMORE_CHECK_VALUE(position > kNone, kOp, "every user must leave at least one candidate unseen, got user ",
                    users[position].item<int64_t>(), " who has seen all ", candidates.size(0));
}

template <typename I>
Tensor run(const Tensor& users, const Tensor& rowptr, const Tensor& col, const Tensor& candidates, int64_t seed,
           int64_t offset, int64_t first) {
  const int64_t n_users = rowptr.size(0) - 1;
  cuda::check_csr_cuda(kOp, "seen", rowptr, col, std::numeric_limits<I>::max(), true);
  Tensor negatives = at::empty(users.sizes(), users.options());
  const SampleJob<I> job{users.const_data_ptr<int64_t>(),
                         rowptr.const_data_ptr<I>(),
                         col.const_data_ptr<I>(),
                         col.size(0),
                         candidates.const_data_ptr<int64_t>(),
                         candidates.size(0),
                         static_cast<uint64_t>(seed),
                         static_cast<uint64_t>(offset),
                         first,
                         negatives.mutable_data_ptr<int64_t>()};
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  // A graph that is being captured runs later: nothing can be read back, and positions without a draw keep -1.
  if (cuda::capturing()) {
    cuda::sample_negatives<I>(job, users.size(0), n_users, nullptr, stream);
    return negatives;
  }
  Tensor verdict = at::empty({3}, users.options());
  cuda::sample_negatives<I>(job, users.size(0), n_users,
                            reinterpret_cast<cuda::SampleVerdict*>(verdict.mutable_data_ptr<int64_t>()), stream);
  raise(verdict, users, candidates, n_users);
  return negatives;
}

Tensor sample_negatives_cuda(const Tensor& users, const Tensor& seen_rowptr, const Tensor& seen_col,
                             const Tensor& candidates, int64_t seed, int64_t offset, int64_t first) {
  check_sample_negatives(users, seen_rowptr, seen_col, candidates, seed, offset, first);
  const c10::cuda::CUDAGuard guard(users.device());
  const Tensor u = users.contiguous(), c = candidates.contiguous();
  const Tensor rowptr = seen_rowptr.contiguous(), col = seen_col.contiguous();
  return dispatch_index(rowptr, [&](auto i) { return run<decltype(i)>(u, rowptr, col, c, seed, offset, first); });
}

}  // namespace

TORCH_LIBRARY_IMPL(smore_ext, CUDA, m) { sample_negatives_op::bind(m, &sample_negatives_cuda); }

}  // namespace smore
