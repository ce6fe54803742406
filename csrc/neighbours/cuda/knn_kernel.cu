// Kernels of knn: squared norms, panels of unit rows, candidates from tiles of similarities, the choice among them.
#include "neighbours/cuda/knn_kernel.h"

#include <cstdint>
#include <limits>

#include "cuda/launch.cuh"
#include "cuda/pack.cuh"
#include "cuda/select.cuh"

namespace smore::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarp;
constexpr int kPairs = kWarp / 2;       // two lanes compute one dot product
constexpr int kFinishWarps = 4;         // at most, for the candidates of one row
constexpr int kPartRows = 4 * kWarp;    // of a tile's columns that pass through shared memory
constexpr int64_t kSortedShared = 128;  // pairs sorted in shared memory

constexpr double kMostDouble = std::numeric_limits<double>::max();
constexpr int kMostInt = std::numeric_limits<int>::max();

// Products of floats are exact in double, so that fused and separate additions agree; for doubles the CPU rounds each.
__device__ __forceinline__ double add_product(float a, float b, double sum) {
  return fma(static_cast<double>(a), static_cast<double>(b), sum);
}
__device__ __forceinline__ double add_product(double a, double b, double sum) {
  return __dadd_rn(sum, __dmul_rn(a, b));
}

// The dot product that the CPU computes (dot_double in neighbours/cpu/knn_kernel.inl), by two neighbouring lanes:
// element j goes to partial sum j mod 8, and lane `half` of the pair holds sums 4 half to 4 half + 3. Both lanes get
// the result. Called by whole warps.
template <bool kPacked, typename T>
__device__ __forceinline__ double dot_double(const T* __restrict__ a, const T* __restrict__ b, int64_t d, int half) {
  constexpr int P = kPacked ? kFullPack<T> : 1;
  double sum[4] = {0, 0, 0, 0};
  const int64_t whole = d & ~int64_t{7};
#pragma unroll 4
  for (int64_t j = 4 * half; j < whole; j += 8) {
#pragma unroll
    for (int m = 0; m < 4; m += P) {
      const Pack<T, P> x = load_pack<P>(a + j + m), y = load_pack<P>(b + j + m);
#pragma unroll
      for (int l = 0; l < P; ++l) sum[m + l] = add_product(x.at[l], y.at[l], sum[m + l]);
    }
  }
#pragma unroll
  for (int m = 0; m < 4; ++m) {
    const int64_t j = whole + 4 * half + m;
    if (j < d) sum[m] = add_product(a[j], b[j], sum[m]);
  }
#pragma unroll
  for (int m = 0; m < 4; ++m) sum[m] += __shfl_xor_sync(kAllLanes, sum[m], 1);
  return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

template <bool kPacked, typename T>
__global__ __launch_bounds__(kThreads, 4) void row_squares(const T* __restrict__ x, int64_t d,
                                                           double* __restrict__ square, KnnLists<T> lists,
                                                           int* __restrict__ not_finite) {
  const int64_t place = static_cast<int64_t>(blockIdx.x) * (kThreads / 2) + threadIdx.x / 2;
  const int64_t row = place < lists.n ? place : lists.n - 1;
  const int half = static_cast<int>(threadIdx.x % 2);
  const double sum = dot_double<kPacked>(x + row * d, x + row * d, d, half);
  if (place >= lists.n || half != 0) return;
  square[row] = sum;
  lists.count[row] = 0;
  lists.bar[row] = -kInfinity<T>;
  if (!(sum <= kMostDouble)) atomicMax(not_finite, kMostInt - static_cast<int>(row));
}

template <int P, typename T>
__global__ __launch_bounds__(kThreads) void unit_panel(const T* __restrict__ x, int64_t d,
                                                       const double* __restrict__ square, int64_t row, int64_t rows,
                                                       int64_t column, int64_t columns, T* __restrict__ unit) {
  const int64_t c = (static_cast<int64_t>(blockIdx.x) * kWarp + threadIdx.x) * P;
  const int64_t r = static_cast<int64_t>(blockIdx.y) * kWarps + threadIdx.y;
  if (c >= columns || r >= rows) return;
  const double norm = square[row + r];
  const double inverse = norm > 0 ? 1.0 / sqrt(norm) : 0.0;
  Pack<T, P> values = load_pack<P>(x + (row + r) * d + column + c);
#pragma unroll
  for (int l = 0; l < P; ++l) values.at[l] = static_cast<T>(static_cast<double>(values.at[l]) * inverse);
  store_pack(unit + r * columns + c, values);
}

template <typename T>
__device__ __forceinline__ BestList<T> list_of(const KnnLists<T>& lists, int64_t row) {
  return {lists.score + row * lists.capacity,
          lists.index + row * lists.capacity,
          lists.capacity,
          lists.k,
          lists.count[row],
          lists.bar[row]};
}

template <typename T>
__device__ __forceinline__ void keep(const KnnLists<T>& lists, int64_t row, const BestList<T>& list, int lane) {
  if (lane != 0) return;
  lists.count[row] = list.count;
  lists.bar[row] = list.bar;
}

// The first blocks take the tile's rows, one a warp. The others take its columns, 32 a block: parts of them pass
// through shared memory, where a warp has a column at a time.
template <typename T>
__global__ __launch_bounds__(kThreads, 4) void offer_tile(KnnLists<T> lists, const T* __restrict__ values, KnnTile tile,
                                                          unsigned row_blocks) {
  SMORE_SHARED(T, part, [kPartRows][kWarp + 1]);
  SMORE_SHARED(T, bars, [kWarp]);
  const int lane = static_cast<int>(threadIdx.x % kWarp), warp = static_cast<int>(threadIdx.x / kWarp);
  if (blockIdx.x < row_blocks) {
    const int64_t r = static_cast<int64_t>(blockIdx.x) * kWarps + warp;
    if (r >= tile.rows) return;
    BestList<T> list = list_of(lists, tile.row + r);
    offer_all<false>(list, lists.margin, values + r * tile.stride, tile.columns, tile.column, lane);
    keep(lists, tile.row + r, list, lane);
    return;
  }
  const int64_t past_strip = tile.row + tile.rows - tile.column;
  const int64_t first = (past_strip > 0 ? past_strip : 0) + static_cast<int64_t>(blockIdx.x - row_blocks) * kWarp;
  const int64_t c = first + lane < tile.columns ? first + lane : tile.columns - 1;
  if (warp == 0) bars[lane] = lists.bar[tile.column + c];
#pragma unroll 1
  for (int64_t r0 = 0; r0 < tile.rows; r0 += kPartRows) {
    __syncthreads();
#pragma unroll
    for (int r = warp; r < kPartRows; r += kWarps) {
      part[r][lane] = r0 + r < tile.rows ? values[(r0 + r) * tile.stride + c] : -kInfinity<T>;
    }
    __syncthreads();
#pragma unroll 1
    for (int q = warp; q < kWarp && first + q < tile.columns; q += kWarps) {
      bool reaches = false;
#pragma unroll
      for (int r = 0; r < kPartRows; r += kWarp) reaches |= part[r + lane][q] > bars[q];
      if (!__any_sync(kAllLanes, reaches)) continue;
      const int64_t row = tile.column + first + q;
      BestList<T> list = list_of(lists, row);
#pragma unroll 1
      for (int r = 0; r < kPartRows; r += kWarp) {
        offer<false>(list, lists.margin, part[r + lane][q], static_cast<uint32_t>(tile.row + r0 + r + lane), lane);
      }
      keep(lists, row, list, lane);
      if (lane == 0) bars[q] = list.bar;
      __syncwarp();
    }
  }
}

// One block a row.
template <bool kPacked, typename T>
__global__ __launch_bounds__(kFinishWarps* kWarp, 5) void finish_rows(KnnLists<T> lists, const T* __restrict__ x,
                                                                      int64_t d, const double* __restrict__ square,
                                                                      T* __restrict__ similarity,
                                                                      int64_t* __restrict__ index) {
  SMORE_SHARED(T, sorted_score, [kSortedShared]);
  SMORE_SHARED(uint32_t, sorted_index, [kSortedShared]);
  SMORE_SHARED(int64_t, kept, [1]);
  const int64_t row = blockIdx.x, k = lists.k;
  const int lane = static_cast<int>(threadIdx.x % kWarp), warp = static_cast<int>(threadIdx.x / kWarp);
  const int half = lane % 2, pair = static_cast<int>(threadIdx.x / 2), pairs = static_cast<int>(blockDim.x / 2);
  const T* own = x + row * d;
  const double own_square = square[row];
  similarity += row * k;
  index += row * k;
  if (!(own_square > 0)) {  // similarity 0 with every row
    for (int64_t j = threadIdx.x; j < k; j += blockDim.x) {
      similarity[j] = T(0);
      index[j] = j;
    }
    return;
  }
  BestList<T> list = list_of(lists, row);
  if (list.count >= k) {
    if (warp == 0) {
      cut_down<false>(list, lists.margin, lane);
      if (lane == 0) kept[0] = list.count;
    }
    __syncthreads();
    for (int64_t base = warp * kPairs; base < kept[0]; base += pairs) {
      const int64_t at = base + lane / 2, known = at < kept[0] ? at : kept[0] - 1;
      const int64_t j = list.index[known];
      const double dot = dot_double<kPacked>(own, x + j * d, d, half);
      if (at < kept[0] && half == 0) list.score[at] = knn_cosine<T>(dot, own_square, square[j], j == row);
    }
  } else {  // more near ties than the list holds: every row is measured, and the list keeps the k best so far
    list.count = 0;
    list.bar = -kInfinity<T>;
#pragma unroll 1
    for (int64_t base = 0; base < lists.n; base += pairs) {
      const int64_t j = base + pair < lists.n ? base + pair : lists.n - 1;
      const double dot = dot_double<kPacked>(own, x + j * d, d, half);
      const T cosine = knn_cosine<T>(dot, own_square, square[j], j == row);
      if (half == 0) sorted_score[pair] = base + pair < lists.n ? cosine : -kInfinity<T>;
      __syncthreads();
      if (warp == 0) {
#pragma unroll 1
        for (int at = lane; at - lane < pairs; at += kWarp) {
          offer<true>(list, T(0), at < pairs ? sorted_score[at] : -kInfinity<T>, static_cast<uint32_t>(base + at),
                      lane);
        }
      }
      __syncthreads();
    }
    if (threadIdx.x == 0) kept[0] = list.count;
  }
  __syncthreads();
  const int64_t n = kept[0];
  const T* best_score = list.score;
  const uint32_t* best_index = list.index;
  if (n <= kSortedShared) {
    for (int64_t j = threadIdx.x; j < n; j += blockDim.x) {
      sorted_score[j] = list.score[j];
      sorted_index[j] = list.index[j];
    }
    __syncthreads();
    sort_by_score(&sorted_score[0], &sorted_index[0], static_cast<int>(n));
    best_score = &sorted_score[0];
    best_index = &sorted_index[0];
  } else {
    sort_by_score(list.score, list.index, n);
  }
  for (int64_t j = threadIdx.x; j < k; j += blockDim.x) {
    similarity[j] = best_score[j];
    index[j] = best_index[j];
  }
}

}  // namespace

template <typename T>
void knn_squares(const T* x, int64_t d, double* square, const KnnLists<T>& lists, int* not_finite,
                 cudaStream_t stream) {
  check("knn_squares", cudaMemsetAsync(not_finite, 0, sizeof(int), stream));
  const Launch at{blocks_for(lists.n, kThreads / 2), kThreads, stream};
  if (packs_fit<T>(d, x)) {
    SMORE_LAUNCH((row_squares<true, T>), at, x, d, square, lists, not_finite);
  } else {
    SMORE_LAUNCH((row_squares<false, T>), at, x, d, square, lists, not_finite);
  }
}

template <typename T>
void knn_unit_panel(const T* x, int64_t d, const double* square, int64_t row, int64_t rows, int64_t column,
                    int64_t columns, T* unit, cudaStream_t stream) {
  constexpr int P = kFullPack<T>;
  const bool packed = packs_fit<T>(d, x, unit) && column % P == 0 && columns % P == 0;
  const dim3 grid(blocks_for(columns, kWarp * (packed ? P : 1)), blocks_for(rows, kWarps));
  const Launch at{grid, dim3(kWarp, kWarps), stream};
  if (packed) {
    SMORE_LAUNCH((unit_panel<P, T>), at, x, d, square, row, rows, column, columns, unit);
  } else {
    SMORE_LAUNCH((unit_panel<1, T>), at, x, d, square, row, rows, column, columns, unit);
  }
}

template <typename T>
void knn_offer(const KnnLists<T>& lists, const T* values, const KnnTile& tile, cudaStream_t stream) {
  const unsigned row_blocks = blocks_for(tile.rows, kWarps);
  const int64_t past_strip = tile.row + tile.rows - tile.column;
  const int64_t columns = tile.columns - std::clamp<int64_t>(past_strip, 0, tile.columns);
  const Launch at{row_blocks + blocks_for(columns, kWarp), kThreads, stream};
  SMORE_LAUNCH(offer_tile<T>, at, lists, values, tile, row_blocks);
}

template <typename T>
void knn_finish(const KnnLists<T>& lists, const T* x, int64_t d, const double* square, T* similarity, int64_t* index,
                cudaStream_t stream) {
  // Few candidates lie within the margin and are not among the k best.
  const int64_t warps = std::clamp<int64_t>(ceil_div(lists.k + 2, int64_t{kPairs}), 1, kFinishWarps);
  const Launch at{blocks_for(lists.n, 1), static_cast<unsigned>(warps * kWarp), stream};
  if (packs_fit<T>(d, x)) {
    SMORE_LAUNCH((finish_rows<true, T>), at, lists, x, d, square, similarity, index);
  } else {
    SMORE_LAUNCH((finish_rows<false, T>), at, lists, x, d, square, similarity, index);
  }
}

#define SMORE_INSTANTIATE(T)                                                                                \
  template void knn_squares<T>(const T*, int64_t, double*, const KnnLists<T>&, int*, cudaStream_t);         \
  template void knn_unit_panel<T>(const T*, int64_t, const double*, int64_t, int64_t, int64_t, int64_t, T*, \
                                  cudaStream_t);                                                            \
  template void knn_offer<T>(const KnnLists<T>&, const T*, const KnnTile&, cudaStream_t);                   \
  template void knn_finish<T>(const KnnLists<T>&, const T*, int64_t, const double*, T*, int64_t*, cudaStream_t);
SMORE_INSTANTIATE(float)
SMORE_INSTANTIATE(double)
#undef SMORE_INSTANTIATE

}  // namespace smore::cuda
