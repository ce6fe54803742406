#include "cpu/sample_kernel.h"

#include "cpu/sorted_row.h"

namespace smore {
namespace {

// floor(r * n / 2^64): a 64-bit draw scaled to 0..n-1, for n < 2^31.
int64_t scale(uint32_t high, uint32_t low, int64_t n) {
  const uint64_t m = static_cast<uint64_t>(n);
  return static_cast<int64_t>((high * m + ((low * m) >> 32)) >> 32);
}

}  // namespace

Philox philox(uint64_t key, uint64_t counter_low, uint64_t counter_high) {
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  uint32_t c0 = static_cast<uint32_t>(counter_low), c1 = static_cast<uint32_t>(counter_low >> 32);
  uint32_t c2 = static_cast<uint32_t>(counter_high), c3 = static_cast<uint32_t>(counter_high >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = static_cast<uint64_t>(0xD2511F53u) * c0, p1 = static_cast<uint64_t>(0xCD9E8D57u) * c2;
    const uint32_t n0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0, n2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(p1);
    c3 = static_cast<uint32_t>(p0);
    c0 = n0;
    c2 = n2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

template <typename I>
int64_t sample_range(const SampleJob<I>& job, int64_t begin, int64_t end) {
  for (int64_t b = begin; b < end; ++b) {
    const I* row = job.seen_col + job.seen_rowptr[job.users[b]];
    const I* row_end = job.seen_col + job.seen_rowptr[job.users[b] + 1];
    int64_t found = -1;
    // One generator call gives two draws; the last call, number kSampleTries / 2, serves the exact draw.
    for (int attempt = 0; attempt < kSampleTries && found < 0; attempt += 2) {
      const Philox r =
          philox(job.seed, static_cast<uint64_t>(b) | static_cast<uint64_t>(attempt / 2) << 48, job.offset);
      for (int half = 0; half < 4 && found < 0; half += 2) {
        const int64_t item = job.candidates[scale(r.out[half], r.out[half + 1], job.n_candidates)];
        if (!contains(row, row_end, item)) found = item;
      }
    }
    if (found < 0) {
      int64_t open = 0;
      const auto unseen = [&](int64_t item) { return !contains(row, row_end, item); };
      for (int64_t c = 0; c < job.n_candidates; ++c) open += unseen(job.candidates[c]) ? 1 : 0;
      if (open == 0) return b;
      const Philox r =
          philox(job.seed, static_cast<uint64_t>(b) | static_cast<uint64_t>(kSampleTries / 2) << 48, job.offset);
      int64_t rank = scale(r.out[0], r.out[1], open);
      for (int64_t c = 0; found < 0; ++c) {
        if (unseen(job.candidates[c]) && rank-- == 0) found = job.candidates[c];
      }
    }
    job.negatives[b] = found;
  }
  return -1;
}

template int64_t sample_range<int32_t>(const SampleJob<int32_t>&, int64_t, int64_t);
template int64_t sample_range<int64_t>(const SampleJob<int64_t>&, int64_t, int64_t);

}  // namespace smore
