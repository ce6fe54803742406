// Kernels of masked_topk: candidates from tiles of scores, and their sort.
#include "ranking/cuda/masked_topk_kernel.h"

#include <cstdint>

#include "cuda/launch.cuh"
#include "cuda/row_bounds.cuh"
#include "cuda/select.cuh"

namespace smore::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarp;
constexpr int64_t kSortedShared = 2048;  // pairs sorted in shared memory; more are sorted where they are

// First entry of the ascending list col[begin..end) that is not below `item`.
template <typename I>
__device__ __forceinline__ int64_t first_at_least(const I* __restrict__ col, int64_t begin, int64_t end, int64_t item) {
  while (begin < end) {
    const int64_t middle = begin + (end - begin) / 2;
    if (static_cast<int64_t>(col[middle]) < item) {
      begin = middle + 1;
    } else {
      end = middle;
    }
  }
  return begin;
}

// One warp a list: a user's share of the tile's items.
template <typename T, typename I>
__global__ __launch_bounds__(kThreads, sizeof(T) == 4 ? 4 : 3) void offer_scores(TopkLists<T> lists, TopkSeen<I> seen,
                                                                                 T* scores, TopkTile tile) {
  const int64_t place = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (place >= tile.users * lists.splits) return;
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const int64_t user = place / lists.splits, split = place % lists.splits;
  const int64_t share = ((tile.items + lists.splits - 1) / lists.splits + kWarp - 1) / kWarp * kWarp;
  const int64_t begin = split * share < tile.items ? split * share : tile.items;
  const int64_t end = begin + share < tile.items ? begin + share : tile.items;
  const int64_t first = tile.item + begin;
  T* const own = scores + user * tile.stride + begin;
  if (seen.rowptr != nullptr) {
    const Range row = row_bounds(seen.rowptr, tile.user + user, seen.n_entries);
    for (int64_t e = first_at_least(seen.col, row.begin, row.end, first) + lane; e < row.end; e += kWarp) {
      const int64_t item = seen.col[e];
      if (item < first || item >= tile.item + end) break;  // below only where the list does not ascend
      own[item - first] = -kInfinity<T>;
    }
    __syncwarp();
  }
  const bool fresh = tile.item == 0;
  BestList<T> list{
      lists.score + place * lists.capacity, lists.index + place * lists.capacity,    lists.capacity, lists.k,
      fresh ? 0 : lists.count[place],       fresh ? -kInfinity<T> : lists.bar[place]};
  offer_all<true>(list, T(0), own, end - begin, first, lane);
  if (lane == 0) {
    lists.count[place] = list.count;
    lists.bar[place] = list.bar;
  }
}

// One block a user. kShared: all of a user's lists fit the dynamic shared memory; otherwise a user has one list.
template <bool kShared, typename T>
__global__ __launch_bounds__(1024) void sort_lists(TopkLists<T> lists, T* __restrict__ score,
                                                   int64_t* __restrict__ index) {
  SMORE_DYNAMIC_SHARED(T, shared_score);
  const int64_t user = blockIdx.x, k = lists.k, first = user * lists.splits;
  T* best_score = lists.score + first * lists.capacity;
  uint32_t* best_index = lists.index + first * lists.capacity;
  int64_t n = lists.count[first];
  if (kShared) {
    uint32_t* const shared_index = reinterpret_cast<uint32_t*>(shared_score + lists.splits * lists.capacity);
    n = 0;
    for (int64_t split = 0; split < lists.splits; ++split) {
      const int64_t count = lists.count[first + split];
      for (int64_t j = threadIdx.x; j < count; j += blockDim.x) {
        shared_score[n + j] = best_score[split * lists.capacity + j];
        shared_index[n + j] = best_index[split * lists.capacity + j];
      }
      n += count;
    }
    best_score = shared_score;
    best_index = shared_index;
    __syncthreads();
    sort_by_score(best_score, best_index, static_cast<int>(n));
  } else {
    sort_by_score(best_score, best_index, n);
  }
  for (int64_t j = threadIdx.x; j < k; j += blockDim.x) {
    score[user * k + j] = j < n ? best_score[j] : -kInfinity<T>;
    index[user * k + j] = j < n ? static_cast<int64_t>(best_index[j]) : -1;
  }
}

}  // namespace

template <typename T, typename I>
void topk_offer(const TopkLists<T>& lists, const TopkSeen<I>& seen, T* scores, const TopkTile& tile,
                cudaStream_t stream) {
  const Launch at{blocks_for(tile.users * lists.splits, kWarps), kThreads, stream};
  SMORE_LAUNCH((offer_scores<T, I>), at, lists, seen, scores, tile);
}

template <typename T>
void topk_finish(const TopkLists<T>& lists, int64_t users, T* score, int64_t* index, cudaStream_t stream) {
  const int64_t most = lists.splits * lists.capacity;
  Launch at{blocks_for(users, 1), most <= 128 ? 64u : most <= kSortedShared ? 256u : 1024u, stream};
  if (most <= kSortedShared) {
    at.shared = static_cast<size_t>(most) * (sizeof(T) + sizeof(uint32_t));
    SMORE_LAUNCH((sort_lists<true, T>), at, lists, score, index);
  } else {
    SMORE_LAUNCH((sort_lists<false, T>), at, lists, score, index);
  }
}

#define SMORE_INSTANTIATE(T)                                                                               \
  template void topk_offer<T, int32_t>(const TopkLists<T>&, const TopkSeen<int32_t>&, T*, const TopkTile&, \
                                       cudaStream_t);                                                      \
  template void topk_offer<T, int64_t>(const TopkLists<T>&, const TopkSeen<int64_t>&, T*, const TopkTile&, \
                                       cudaStream_t);                                                      \
  template void topk_finish<T>(const TopkLists<T>&, int64_t, T*, int64_t*, cudaStream_t);
SMORE_INSTANTIATE(float)
SMORE_INSTANTIATE(double)
#undef SMORE_INSTANTIATE

}  // namespace smore::cuda
