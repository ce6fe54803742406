// Negative sampling: one thread a position; the rare exact draw is made by a whole warp.
#include "sampling/cuda/sample_negatives_kernel.h"

#include <algorithm>

#include "cuda/launch.cuh"
#include "cuda/row_bounds.cuh"

namespace smore::cuda {
namespace {

constexpr int kThreads = 64;  // small blocks: a batch of 2,048 spreads over 32 multiprocessors
constexpr unsigned kCheckBlocks = 1024;

// Whether the ascending row holds the item. Loads of the last part do not wait for each other.
template <typename I>
__device__ bool saw(const I* __restrict__ row, int64_t length, int64_t item) {
  constexpr int64_t kScan = 8;
  while (length > kScan) {
    const int64_t half = length / 2;
    const bool upper = static_cast<int64_t>(row[half]) <= item;
    row = upper ? row + half : row;
    length = upper ? length - half : half;
  }
  bool found = false;
#pragma unroll
  for (int64_t e = 0; e < kScan; ++e) {
    if (e < length) found |= static_cast<int64_t>(row[e]) == item;
  }
  return found;
}

__device__ void note(int64_t* first, int64_t position) {
  atomicMin(reinterpret_cast<long long*>(first), static_cast<long long>(position));
}

// A candidate of rank `scale_draw(words, unseen ones)` among those that the row does not hold, or -1 if it holds all.
// All lanes of the warp call it with the same arguments; the candidates are shared out over them.
template <typename I>
__device__ int64_t draw_exactly(const int64_t* __restrict__ candidates, int64_t n, const I* row, int64_t length,
                                uint32_t high, uint32_t low) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const auto unseen = [&](int64_t first) {
    const int64_t c = first + lane;
    return __ballot_sync(kAllLanes, static_cast<int>(c < n && !saw(row, length, candidates[c])));
  };
  int64_t open = 0;
  for (int64_t first = 0; first < n; first += kWarp) open += __popc(unseen(first));
  if (open == 0) return -1;
  int64_t rank = scale_draw(high, low, open);
  for (int64_t first = 0; first < n; first += kWarp) {
    unsigned here = unseen(first);
    const int count = __popc(here);
    if (rank < count) {
      for (; rank > 0; --rank) here &= here - 1;
      return candidates[first + __ffs(static_cast<int>(here)) - 1];
    }
    rank -= count;
  }
  return -1;
}

template <typename I>
__global__ void __launch_bounds__(kThreads)
    sample_kernel(SampleJob<I> job, int64_t size, int64_t n_users, SampleVerdict* verdict) {
  const int64_t b = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (verdict != nullptr) {
    for (int64_t c = b; c < job.n_candidates; c += static_cast<int64_t>(gridDim.x) * kThreads) {
      if (job.candidates[c] < 0) note(&verdict->bad_candidate, c);
    }
  }
  const int64_t user = b < size ? job.users[b] : -1;
  const bool known = user >= 0 && user < n_users;
  if (b < size && !known && verdict != nullptr) note(&verdict->unknown_user, b);
  const Range seen = known ? row_bounds(job.seen_rowptr, user, job.n_seen) : Range{0, 0};
  const int64_t begin = seen.begin, length = seen.end - seen.begin;
  const I* row = job.seen_col + begin;

  int64_t drawn = -1;
  for (int call = 0; known && drawn < 0 && call < kSampleTries / 2; ++call) {
    const Philox r = sample_words(job.seed, job.offset, job.first + b, call);
    const int64_t first = job.candidates[scale_draw(r.out[0], r.out[1], job.n_candidates)];
    const int64_t second = job.candidates[scale_draw(r.out[2], r.out[3], job.n_candidates)];
    if (!saw(row, length, first)) {
      drawn = first;
    } else if (!saw(row, length, second)) {
      drawn = second;
    }
  }
  // Positions without luck, one after the other, each by all lanes.
  for (unsigned left = __ballot_sync(kAllLanes, static_cast<int>(known && drawn < 0)); left != 0; left &= left - 1) {
    const int owner = __ffs(static_cast<int>(left)) - 1;
    const int64_t position = __shfl_sync(kAllLanes, b, owner);
    const Philox r = sample_words(job.seed, job.offset, job.first + position, kSampleTries / 2);
    const int64_t item =
        draw_exactly(job.candidates, job.n_candidates, job.seen_col + __shfl_sync(kAllLanes, begin, owner),
                     __shfl_sync(kAllLanes, length, owner), r.out[0], r.out[1]);
    if (position == b) drawn = item;
  }
  if (known && drawn < 0 && verdict != nullptr) note(&verdict->no_choice, b);
  if (b < size) job.negatives[b] = drawn;
}

}  // namespace

template <typename I>
void sample_negatives(const SampleJob<I>& job, int64_t size, int64_t n_users, SampleVerdict* verdict,
                      cudaStream_t stream) {
  unsigned blocks = blocks_for(size, kThreads);
  if (verdict != nullptr) {
    check("sample_negatives", cudaMemsetAsync(verdict, 0x7f, sizeof(SampleVerdict), stream));
    blocks = std::max(blocks, std::min(kCheckBlocks, blocks_for(job.n_candidates, kThreads)));
  }
  SMORE_LAUNCH((sample_kernel<I>), (Launch{blocks, kThreads, stream}), job, size, n_users, verdict);
}

template void sample_negatives<int32_t>(const SampleJob<int32_t>&, int64_t, int64_t, SampleVerdict*, cudaStream_t);
template void sample_negatives<int64_t>(const SampleJob<int64_t>&, int64_t, int64_t, SampleVerdict*, cudaStream_t);

}  // namespace smore::cuda
