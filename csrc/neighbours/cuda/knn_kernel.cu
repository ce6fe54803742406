// Kernels of knn: panels of unit rows, candidates from tiles of similarities, the choice among them.
#include "neighbours/cuda/knn_kernel.h"

#include <cstdint>

#include "cuda/launch.cuh"
#include "cuda/select.cuh"
#include "neighbours/cosine.h"
#include "neighbours/cuda/dot_double.cuh"

namespace smore::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarp;
constexpr int kPairs = kWarp / 2;       // two lanes compute one dot product
constexpr int kFinishWarps = 4;         // at most, for the candidates of one row
constexpr int kPartRows = 4 * kWarp;    // of a tile's columns that pass through shared memory
constexpr int64_t kSortedShared = 128;  // pairs sorted in shared memory

template <typename T>
__global__ __launch_bounds__(kThreads) void empty_lists(KnnLists<T> lists, int64_t rows) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (row >= rows) return;
  lists.count[row] = 0;
  lists.bar[row] = -kInfinity<T>;
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

// The first blocks take the tile's rows, one a warp. The others, if there are any, take its columns, 32 a block: parts
// of them pass through shared memory, where a warp has a column at a time.
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

template <typename T>
struct Neighbour {
  T similarity;
  int64_t index;
};

// Writes the neighbours of a row, by a block: the row itself if it is first, then others(0), others(1), ... but for
// number `itself`, which is the row.
template <typename T, typename F>
__device__ __forceinline__ void write_row(KnnSelf self, int64_t listed, int64_t row, T own_similarity, int64_t itself,
                                          T* __restrict__ similarity, int64_t* __restrict__ index, const F& others) {
  const int64_t first = self == KnnSelf::first ? 1 : 0, width = first + knn_others(listed, self);
  for (int64_t place = threadIdx.x; place < width; place += blockDim.x) {
    Neighbour<T> found{own_similarity, row};
    if (place >= first) found = others(place - first < itself ? place - first : place - first + 1);
    similarity[row * width + place] = found.similarity;
    index[row * width + place] = found.index;
  }
}

// One block a row.
template <bool kPacked, typename T>
__global__ __launch_bounds__(kFinishWarps* kWarp, 5) void finish_rows(KnnLists<T> lists, KnnTables<T> tables,
                                                                      T* __restrict__ similarity,
                                                                      int64_t* __restrict__ index) {
  SMORE_SHARED(T, sorted_score, [kSortedShared]);
  SMORE_SHARED(uint32_t, sorted_index, [kSortedShared]);
  SMORE_SHARED(int64_t, kept, [1]);
  SMORE_SHARED(int64_t, itself, [1]);
  const int64_t row = blockIdx.x, k = lists.k, d = tables.d;
  const int lane = static_cast<int>(threadIdx.x % kWarp), warp = static_cast<int>(threadIdx.x / kWarp);
  const int half = lane % 2, pair = static_cast<int>(threadIdx.x / 2), pairs = static_cast<int>(blockDim.x / 2);
  const T* own = tables.queries + row * d;
  const double own_square = tables.query_square[row];
  if (!(own_square > 0)) {  // similarity 0 with every row
    write_row(tables.self, k, row, T(0), tables.self == KnnSelf::none ? k : row, similarity, index,
              [](int64_t j) { return Neighbour<T>{T(0), j}; });
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
      const double dot = dot_double<kPacked>(own, tables.base + j * d, d, half);
      if (at < kept[0] && half == 0) list.score[at] = cosine<T>(dot, own_square, tables.base_square[j], false);
    }
  } else {  // more near ties than the list holds: every row is measured, and the list keeps the k best so far
    list.count = 0;
    list.bar = -kInfinity<T>;
#pragma unroll 1
    for (int64_t base = 0; base < tables.n; base += pairs) {
      const int64_t j = base + pair < tables.n ? base + pair : tables.n - 1;
      const double dot = dot_double<kPacked>(own, tables.base + j * d, d, half);
      const T similar = cosine<T>(dot, own_square, tables.base_square[j], false);
      if (half == 0) sorted_score[pair] = base + pair < tables.n ? similar : -kInfinity<T>;
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
  // The row itself may be anywhere among its equals, or have been left behind them.
  if (threadIdx.x == 0) itself[0] = k;
  __syncthreads();
  for (int64_t j = threadIdx.x; tables.self != KnnSelf::none && j < k; j += blockDim.x) {
    if (best_index[j] == row) itself[0] = j;
  }
  __syncthreads();
  write_row(tables.self, k, row, T(1), itself[0], similarity, index,
            [&](int64_t j) { return Neighbour<T>{best_score[j], best_index[j]}; });
}

}  // namespace

template <typename T>
void knn_begin(const KnnLists<T>& lists, int64_t rows, cudaStream_t stream) {
  SMORE_LAUNCH((empty_lists<T>), (Launch{blocks_for(rows, kThreads), kThreads, stream}), lists, rows);
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
void knn_offer(const KnnLists<T>& lists, const T* values, const KnnTile& tile, bool to_columns, cudaStream_t stream) {
  const unsigned row_blocks = blocks_for(tile.rows, kWarps);
  const int64_t past_strip = tile.row + tile.rows - tile.column;
  const int64_t columns = to_columns ? tile.columns - std::clamp<int64_t>(past_strip, 0, tile.columns) : 0;
  const Launch at{row_blocks + blocks_for(columns, kWarp), kThreads, stream};
  SMORE_LAUNCH(offer_tile<T>, at, lists, values, tile, row_blocks);
}

template <typename T>
void knn_finish(const KnnLists<T>& lists, const KnnTables<T>& tables, int64_t rows, T* similarity, int64_t* index,
                cudaStream_t stream) {
  // Few candidates lie within the margin and are not among the k best.
  const int64_t warps = std::clamp<int64_t>(ceil_div(lists.k + 2, int64_t{kPairs}), 1, kFinishWarps);
  const Launch at{blocks_for(rows, 1), static_cast<unsigned>(warps * kWarp), stream};
  if (packs_fit<T>(tables.d, tables.queries, tables.base)) {
    SMORE_LAUNCH((finish_rows<true, T>), at, lists, tables, similarity, index);
  } else {
    SMORE_LAUNCH((finish_rows<false, T>), at, lists, tables, similarity, index);
  }
}

#define SMORE_INSTANTIATE(T)                                                                                \
  template void knn_begin<T>(const KnnLists<T>&, int64_t, cudaStream_t);                                    \
  template void knn_unit_panel<T>(const T*, int64_t, const double*, int64_t, int64_t, int64_t, int64_t, T*, \
                                  cudaStream_t);                                                            \
  template void knn_offer<T>(const KnnLists<T>&, const T*, const KnnTile&, bool, cudaStream_t);             \
  template void knn_finish<T>(const KnnLists<T>&, const KnnTables<T>&, int64_t, T*, int64_t*, cudaStream_t);
SMORE_INSTANTIATE(float)
SMORE_INSTANTIATE(double)
#undef SMORE_INSTANTIATE

}  // namespace smore::cuda
