// Group by group: one call of the vectorised generator has the words of all its elements.
#ifdef SMORE_LEVEL  // this file includes itself, once for each instruction level

#include "cpu/philox_block.inl"

namespace smore::SMORE_LEVEL {

template <typename S>
void dropout_at(const Dropout<S>& job, Range groups) {
  const uint64_t offset = job.rule.offset_now();
  const uint32_t threshold = job.rule.threshold;
  const Accumulator<S> scale = job.rule.scale;
  for (int64_t g = groups.begin; g < groups.end; ++g) {
    const uint64_t counter = static_cast<uint64_t>(g * kDropoutLanes) | kDropoutCounters;
    uint32_t low[kPhiloxBlock];
    for (int l = 0; l < kPhiloxBlock; ++l) low[l] = static_cast<uint32_t>(counter) + static_cast<uint32_t>(l);
    PhiloxBlock words;
    philox_block_at(job.rule.seed, low, static_cast<uint32_t>(counter >> 32), offset, words);
    const S* x = job.x + g * kDropoutGroup;
    S* y = job.y + g * kDropoutGroup;
    const int64_t count = std::min(kDropoutGroup, job.size - g * kDropoutGroup);
    // By way of arrays of its own, of fixed length: loops that the compiler makes vectors of, without a branch.
    S from[kDropoutGroup] = {}, to[kDropoutGroup];
    std::memcpy(from, x, static_cast<size_t>(count) * sizeof(S));
    Accumulator<S> value[kDropoutGroup];
    for (int64_t e = 0; e < kDropoutGroup; ++e) value[e] = widened(from[e]) * scale;
    for (int w = 0; w < 4; ++w) {
      for (int l = 0; l < kPhiloxBlock; ++l) {
        Accumulator<S>& here = value[w * kPhiloxBlock + l];
        here = words.out[w][l] < threshold ? Accumulator<S>(0) : here;
      }
    }
    for (int64_t e = 0; e < kDropoutGroup; ++e) to[e] = narrowed<S>(value[e]);
    std::memcpy(y, to, static_cast<size_t>(count) * sizeof(S));
  }
}

}  // namespace smore::SMORE_LEVEL

#else

#include "cpu/philox_block.h"
#include "sampling/dropout_kernel.h"

#define SMORE_KERNEL_FILE "sampling/cpu/dropout_kernel.cpp"
#include "cpu/simd/foreach_level.h"

namespace smore {

static_assert(kDropoutLanes == kPhiloxBlock && kDropoutGroup == 4 * kPhiloxBlock);

template <typename S>
void dropout(const Dropout<S>& job, Range groups) {
  SMORE_DISPATCH(dropout_at<S>)(job, groups);
}

template void dropout<float>(const Dropout<float>&, Range);
template void dropout<double>(const Dropout<double>&, Range);
template void dropout<BFloat16>(const Dropout<BFloat16>&, Range);

}  // namespace smore

#endif
