// The best k of a stream of scores, kept by one warp in a list that only it touches, and the sort of what was kept.
//
// Nearly every score fails the list's bar, so a warp compares many of them and agrees by one vote that none is of
// interest. The others are appended in the order in which they came; a full list is cut down to what can still be among
// the k best, and the bar rises. Lists lie in global (or shared) memory: any k, and no copy of them between launches.
#pragma once

#include "common/score_bits.h"
#include "cuda/device.cuh"

namespace smore::cuda {

// `count` of a list that more near ties came to than it holds.
inline constexpr int64_t kNearTies = -1;

template <typename T>
struct BestList {
  T* score;
  uint32_t* index;
  int64_t capacity;  // above k, unless no more than that many scores come
  int64_t k;
  int64_t count;  // the same in all lanes, as is bar
  T bar;          // scores that are not above it need not be kept
};

__device__ __forceinline__ int64_t warp_sum(int64_t value) {
  for (int bits = kWarp / 2; bits > 0; bits /= 2) value += __shfl_xor_sync(kAllLanes, value, bits);
  return value;
}

// The largest number that at least k of the n scores reach, as score_bits: the k-th best score. One bit at a time, from
// the highest. *above: how many scores exceed it.
template <typename T>
__device__ __forceinline__ typename ScoreBits<T>::type kth_best(const T* score, int64_t n, int64_t k, int lane,
                                                                int64_t* above) {
  typedef typename ScoreBits<T>::type Bits;
  constexpr int kHeld = 4;  // scores that a lane holds in registers
  Bits found = 0;
  int64_t reaching_next = 0;
  const int64_t groups = (n + kWarp - 1) / kWarp;
  if (groups <= kHeld) {
    Bits held[kHeld];
#pragma unroll
    for (int g = 0; g < kHeld; ++g) held[g] = g * kWarp + lane < n ? score_bits(score[g * kWarp + lane]) : Bits{0};
#pragma unroll 1
    for (int bit = 8 * static_cast<int>(sizeof(Bits)) - 1; bit >= 0; --bit) {
      const Bits trial = found | Bits{1} << bit;
      int reaching = 0;
#pragma unroll
      for (int g = 0; g < kHeld; ++g) {
        if (g < groups) reaching += __popc(__ballot_sync(kAllLanes, held[g] >= trial));
      }
      if (reaching >= k) {
        found = trial;
      } else {
        reaching_next = reaching;  // the last trial that fails is one above the k-th best
      }
    }
  } else {
#pragma unroll 1
    for (int bit = 8 * static_cast<int>(sizeof(Bits)) - 1; bit >= 0; --bit) {
      const Bits trial = found | Bits{1} << bit;
      int64_t reaching = 0;
#pragma unroll 4
      for (int64_t at = lane; at < n; at += kWarp) reaching += score_bits(score[at]) >= trial ? 1 : 0;
      reaching = warp_sum(reaching);
      if (reaching >= k) {
        found = trial;
      } else {
        reaching_next = reaching;
      }
    }
  }
  *above = reaching_next;
  return found;
}

// Cuts a list of at least k scores down. kExact: to the k best, of equal ones those that came first. Otherwise to all
// that lie within `margin` of the k-th best. Keeps the order.
template <bool kExact, typename T>
__device__ __forceinline__ void cut_down(BestList<T>& list, T margin, int lane) {
  int64_t above = 0;
  const T worst = score_from_bits<T>(kth_best(list.score, list.count, list.k, lane, &above));
  list.bar = kExact ? worst : worst - margin;
  const unsigned lower_lanes = (1u << lane) - 1;
  int64_t equal_places = list.k - above, kept = 0;
#pragma unroll 1
  for (int64_t base = 0; base < list.count; base += kWarp) {
    const bool there = base + lane < list.count;
    const T score = there ? list.score[base + lane] : -kInfinity<T>;
    const uint32_t index = there ? list.index[base + lane] : 0;
    bool keep = score > list.bar;
    if (kExact) {
      const unsigned equal = __ballot_sync(kAllLanes, score == list.bar);
      if (score == list.bar && __popc(equal & lower_lanes) < equal_places) keep = true;
      equal_places -= __popc(equal);
    }
    const unsigned keeping = __ballot_sync(kAllLanes, keep);
    __syncwarp();  // all have read before one writes
    if (keep) {
      const int64_t to = kept + __popc(keeping & lower_lanes);
      list.score[to] = score;
      list.index[to] = index;
    }
    kept += __popc(keeping);
  }
  __syncwarp();
  list.count = kept;
}

// Offers one score a lane (-inf or NaN: none), in the order of the lanes. Called by whole warps.
template <bool kExact, typename T>
__device__ __forceinline__ void offer(BestList<T>& list, T margin, T score, uint32_t index, int lane) {
  unsigned pending = __ballot_sync(kAllLanes, score > list.bar);
  while (pending != 0) {
    if (list.count == list.capacity) {
      cut_down<kExact>(list, margin, lane);
      if (!kExact && list.count == list.capacity) {
        list.count = kNearTies;
        list.bar = kInfinity<T>;
        return;
      }
      pending &= __ballot_sync(kAllLanes, score > list.bar);
      continue;
    }
    const int64_t to = list.count + __popc(pending & ((1u << lane) - 1));
    const bool fits = (pending >> lane & 1u) != 0 && to < list.capacity;
    if (fits) {
      list.score[to] = score + T(0);  // -0 is 0
      list.index[to] = index;
    }
    const unsigned fitting = __ballot_sync(kAllLanes, fits);
    list.count += __popc(fitting);
    pending &= ~fitting;
    __syncwarp();
  }
}

// Offers scores[0..n), whose indices start at `first`. Called by whole warps.
template <bool kExact, typename T>
__device__ __forceinline__ void offer_all(BestList<T>& list, T margin, const T* scores, int64_t n, int64_t first,
                                          int lane) {
  constexpr int kAhead = 64 / static_cast<int>(sizeof(T));  // loads in flight
  for (int64_t base = 0; base < n; base += kAhead * kWarp) {
    bool reaches = false;
    if (base + kAhead * kWarp <= n) {
      T ahead[kAhead];
#pragma unroll
      for (int i = 0; i < kAhead; ++i) ahead[i] = scores[base + i * kWarp + lane];
#pragma unroll
      for (int i = 0; i < kAhead; ++i) reaches |= ahead[i] > list.bar;
    } else {
      for (int64_t at = base + lane; at < n; at += kWarp) reaches |= scores[at] > list.bar;
    }
    if (!__any_sync(kAllLanes, reaches)) continue;
#pragma unroll 1
    for (int64_t at = base; at < base + kAhead * kWarp && at < n; at += kWarp) {
      offer<kExact>(list, margin, at + lane < n ? scores[at + lane] : -kInfinity<T>,
                    static_cast<uint32_t>(first + at + lane), lane);
    }
  }
}

// Sorts n pairs in shared memory, or in global memory that only this block uses: score descending, then index
// ascending. Called by whole blocks, with a barrier before it; ends with one. A bitonic network whose comparisons all
// point the same way: pairs beyond n would be last and stay there, so any n will do.
template <typename I, typename T>
__device__ __forceinline__ void sort_by_score(T* score, uint32_t* index, I n) {
  for (I half = 1; half < n; half *= 2) {
    for (I stride = half; stride > 0; stride /= 2) {
      for (I pair = static_cast<I>(threadIdx.x);; pair += static_cast<I>(blockDim.x)) {
        const I within = pair & (stride - 1), group = 2 * (pair - within), first = group + within;
        if (first >= n) break;
        const I second = stride == half ? group + 2 * stride - 1 - within : first + stride;
        if (second >= n) continue;
        const T a = score[first], b = score[second];
        const uint32_t i = index[first], j = index[second];
        if (a > b || (a == b && i < j)) continue;
        score[first] = b;
        score[second] = a;
        index[first] = j;
        index[second] = i;
      }
      __syncthreads();
    }
  }
}

}  // namespace smore::cuda
