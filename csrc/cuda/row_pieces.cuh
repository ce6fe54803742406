// Rows of embeddings in the hands of 16 lanes: pieces of 64 elements, 4 for each lane.
#pragma once

#include "cuda/pack.cuh"

namespace smore::cuda {

inline constexpr int kGroup = 16;  // lanes that share a row
inline constexpr int kGroupElements = 4;
inline constexpr int kPiece = kGroup * kGroupElements;
inline constexpr int kRowThreads = 256;
inline constexpr int kGroups = kRowThreads / kGroup;

__device__ __forceinline__ int group_lane() { return static_cast<int>(threadIdx.x) % kGroup; }
__device__ __forceinline__ int group_of_block() { return static_cast<int>(threadIdx.x) / kGroup; }
// The lanes of the thread's group, for warp collectives.
__device__ __forceinline__ unsigned group_mask() { return 0xffffu << (threadIdx.x & 16u); }

// Where in a piece the lane's pack number k begins, for packs of V elements.
template <int V>
__device__ __forceinline__ int place_in_piece(int k) {
  return (k * kGroup + group_lane()) * V;
}

// The lane's elements of the piece that begins at `first`; zeros behind the row's end.
template <typename T, int V>
__device__ __forceinline__ void load_piece(const T* __restrict__ row, int64_t first, int64_t d,
                                           T (&x)[kGroupElements]) {
#pragma unroll
  for (int k = 0; k < kGroupElements / V; ++k) {
    const int64_t at = first + place_in_piece<V>(k);
    Pack<T, V> pack{};
    if (at < d) pack = load_pack<V>(row + at);
#pragma unroll
    for (int v = 0; v < V; ++v) x[k * V + v] = pack.at[v];
  }
}

template <typename T, int V>
__device__ __forceinline__ void store_piece(const T (&x)[kGroupElements], T* __restrict__ row, int64_t first,
                                            int64_t d) {
#pragma unroll
  for (int k = 0; k < kGroupElements / V; ++k) {
    const int64_t at = first + place_in_piece<V>(k);
    Pack<T, V> pack;
#pragma unroll
    for (int v = 0; v < V; ++v) pack.at[v] = x[k * V + v];
    if (at < d) store_pack(row + at, pack);
  }
}

}  // namespace smore::cuda
