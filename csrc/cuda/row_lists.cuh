// Gradients of gathered rows without a sort: each row of the source adds up what a batch took from it, in batch order.
//
// A first kernel enters every place of the batch in the list of its row: a counter and the first kListed entries, in
// the order of arrival. The second gives each row 16 lanes (row_pieces.cuh), which put the row's entries in order and
// add up. The few rows with more entries get a whole block, which finds them by reading the batch through, so that a
// popular row is no long chain for 16 lanes. An entry is a number that ascends in batch order; what it says is up to
// the kernels.
#pragma once

#include "cuda/row_pieces.cuh"

namespace smore::cuda {

inline constexpr int kListed = 8;  // one sector of 32 bytes
inline constexpr int kNoEntry = INT32_MAX;
inline constexpr int64_t kMostLongBlocks = 256;
inline constexpr int kLooks = 4, kRowWarps = kRowThreads / kWarp;
inline constexpr int kStretch = kLooks * kRowThreads;  // places that a block looks at before it adds up

struct RowLists {
  int32_t* count;      // [rows], then the number of long rows; zeroed before
  int32_t* long_rows;  // rows of more than kListed entries, in any order
  int32_t* entries;    // [rows, kListed]
};

inline int64_t most_long_rows(int64_t entries) { return entries / (kListed + 1); }

__device__ __forceinline__ void enter(const RowLists& lists, int row, int n_rows, int32_t entry) {
  const int32_t before = atomicAdd(lists.count + row, 1);
  if (before < kListed) {
    lists.entries[static_cast<int64_t>(row) * kListed + before] = entry;
  } else if (before == kListed) {
    lists.long_rows[atomicAdd(lists.count + n_rows, 1)] = row;
  }
}

// Lane k of the group gets the k-th smallest of the group's entries.
__device__ __forceinline__ int sorted_entry(int entry, int count) {
  const int lane = group_lane();
  int rank = 0, mine = kNoEntry;
  for (int k = 0; k < count; ++k) rank += __shfl_sync(group_mask(), entry, k, kGroup) < entry ? 1 : 0;
  for (int k = 0; k < count; ++k) {
    const unsigned holder = __ballot_sync(group_mask(), static_cast<int>(lane < count && rank == k));
    const int value = __shfl_sync(group_mask(), entry, (__ffs(static_cast<int>(holder)) - 1) % kGroup, kGroup);
    if (lane == k) mine = value;
  }
  return mine;
}

// Of kStretch places of the batch from `base` on, lists the entries that the row has, in order; returns how many there
// are. Of: `size` places; has(b, side) for b < size, and entry(b, side), of the two sides that a place has.
template <typename Of>
__device__ int find_entries(const Of& of, int64_t base, int* __restrict__ list, int (*totals)[kRowWarps]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t size = of.size();
  unsigned first[kLooks], second[kLooks];  // warps' votes: the row is the place's on this side
#pragma unroll
  for (int look = 0; look < kLooks; ++look) {
    const int64_t b = base + look * kRowThreads + static_cast<int>(threadIdx.x);
    first[look] = __ballot_sync(kAllLanes, static_cast<int>(b < size && of.has(b, 0)));
    second[look] = __ballot_sync(kAllLanes, static_cast<int>(b < size && of.has(b, 1)));
    if (lane == 0) totals[look][warp] = __popc(first[look]) + __popc(second[look]);
  }
  __syncthreads();
  int total = 0;
  const unsigned below = (1u << lane) - 1u;
#pragma unroll
  for (int look = 0; look < kLooks; ++look) {
    for (int w = 0; w < kRowWarps; ++w) {
      if (w == warp) {
        const int64_t b = base + look * kRowThreads + static_cast<int>(threadIdx.x);
        int at = total + __popc(first[look] & below) + __popc(second[look] & below);
        if (first[look] >> lane & 1u) list[at++] = of.entry(b, 0);
        if (second[look] >> lane & 1u) list[at] = of.entry(b, 1);
      }
      total += totals[look][w];
    }
  }
  __syncthreads();
  return total;
}

// A whole block adds up the entries of one row: group g every kGroups-th from g on, then the groups' sums in order.
// Of: size, has, entry as above; add(entry, first, sum) adds an entry's share to the lane's elements of a piece;
// before(column) is what the sum of an element begins with,
// finish(column, total) takes it. list, totals, sums: shared memory.
template <typename T, int V, typename Of>
__device__ void add_long_row(const Of& of, int64_t d, int* list, int (*totals)[kRowWarps], T (*sums)[kPiece]) {
  for (int64_t first = 0; first < d; first += kPiece) {
    T sum[kGroupElements] = {};
    for (int64_t base = 0; base < of.size(); base += kStretch) {
      const int found = find_entries(of, base, list, totals);
      for (int i = group_of_block(); i < found; i += kGroups) of.add(list[i], first, sum);
      __syncthreads();
    }
#pragma unroll
    for (int e = 0; e < kGroupElements; ++e) sums[group_of_block()][place_in_piece<V>(e / V) + e % V] = sum[e];
    __syncthreads();
    const int t = static_cast<int>(threadIdx.x);
    if (t < kPiece && first + t < d) {
      T total = of.before(first + t);
      for (int g = 0; g < kGroups; ++g) total += sums[g][t];
      of.finish(first + t, total);
    }
    __syncthreads();
  }
}

}  // namespace smore::cuda
