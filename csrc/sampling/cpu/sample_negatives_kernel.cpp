#include "sampling/cpu/sample_negatives_kernel.h"

#include "cpu/philox_block.h"
#include "cpu/sorted_row.h"

#define SMORE_KERNEL_FILE "cpu/philox_block.inl"
#include "cpu/simd/foreach_level.h"

namespace smore {
namespace {

// Most users have seen few items: comparing with all of them beats a search, whose branches nobody can foretell.
template <typename I>
bool saw(const I* row, const I* row_end, int64_t item) {
  if (row_end - row > 64) return contains(row, row_end, item);
  bool found = false;
  for (; row != row_end; ++row) found |= static_cast<int64_t>(*row) == item;
  return found;
}

// The draw for one position; -1 if its user has seen every candidate.
template <typename I>
int64_t draw(const SampleJob<I>& job, int64_t b) {
  const I* row = job.seen_col + job.seen_rowptr[job.users[b]];
  const I* row_end = job.seen_col + job.seen_rowptr[job.users[b] + 1];
  for (int call = 0; call < kSampleTries / 2; ++call) {
    const Philox r = sample_words(job.seed, job.offset, job.first + b, call);
    for (int half = 0; half < 4; half += 2) {
      const int64_t item = job.candidates[scale_draw(r.out[half], r.out[half + 1], job.n_candidates)];
      if (!saw(row, row_end, item)) return item;
    }
  }
  int64_t open = 0;
  const auto unseen = [&](int64_t item) { return !contains(row, row_end, item); };
  for (int64_t c = 0; c < job.n_candidates; ++c) open += unseen(job.candidates[c]) ? 1 : 0;
  if (open == 0) return -1;
  const Philox r = sample_words(job.seed, job.offset, job.first + b, kSampleTries / 2);
  int64_t rank = scale_draw(r.out[0], r.out[1], open);
  for (int64_t c = 0;; ++c) {
    if (unseen(job.candidates[c]) && rank-- == 0) return job.candidates[c];
  }
}

}  // namespace

template <typename I>
int64_t sample_range(const SampleJob<I>& job, int64_t begin, int64_t end) {
  for (int64_t first = begin; first < end; first += kPhiloxBlock) {
    const int64_t count = std::min<int64_t>(kPhiloxBlock, end - first);
    uint32_t low[kPhiloxBlock];
    for (int l = 0; l < kPhiloxBlock; ++l) low[l] = static_cast<uint32_t>(job.first + first + l);
    // Positions of a block share their upper half, unless the lower one overflows in it: then one by one.
    const bool together = low[0] <= low[kPhiloxBlock - 1];
    PhiloxBlock r;
    if (together) {
      SMORE_DISPATCH(philox_block_at)
      (job.seed, low, static_cast<uint32_t>(static_cast<uint64_t>(job.first + first) >> 32), job.offset, r);
    }
    // Everything is far apart in memory: the next block's row pointers and this block's rows are asked for ahead.
    const I *row[kPhiloxBlock], *row_end[kPhiloxBlock];
    for (int64_t l = 0; l < count; ++l) {
      const int64_t ahead = std::min(first + kPhiloxBlock + l, end - 1);
      __builtin_prefetch(job.seen_rowptr + job.users[ahead]);
      row[l] = job.seen_col + job.seen_rowptr[job.users[first + l]];
      row_end[l] = job.seen_col + job.seen_rowptr[job.users[first + l] + 1];
      __builtin_prefetch(row[l]);
    }
    for (int64_t l = 0; l < count; ++l) {
      const int64_t b = first + l;
      if (together) {  // nearly always the first of all draws will do
        const int64_t item = job.candidates[scale_draw(r.out[0][l], r.out[1][l], job.n_candidates)];
        if (!saw(row[l], row_end[l], item)) {
          job.negatives[b] = item;
          continue;
        }
      }
      job.negatives[b] = draw(job, b);
      if (job.negatives[b] < 0) return b;
    }
  }
  return -1;
}

template int64_t sample_range<int32_t>(const SampleJob<int32_t>&, int64_t, int64_t);
template int64_t sample_range<int64_t>(const SampleJob<int64_t>&, int64_t, int64_t);

}  // namespace smore
