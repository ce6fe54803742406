// 16 lanes a row, forward and backward (cuda/row_lists.cuh says how gradients are added up).
#include "tables/cuda/gather_rows_kernel.h"

#include <algorithm>
#include <stdexcept>

#include "cuda/launch.cuh"
#include "cuda/row_lists.cuh"

namespace smore::cuda {
namespace {

// As many as a lane has of a piece, and 16 bytes at most.
template <typename S>
inline constexpr int kRowPack = kFullPack<S> < kGroupElements ? kFullPack<S> : kGroupElements;

template <typename S, int V>
__device__ __forceinline__ void load_wide(const S* __restrict__ row, int64_t first, int64_t d,
                                          Accumulator<S> (&x)[kGroupElements]) {
  S narrow[kGroupElements];
  load_piece<S, V>(row, first, d, narrow);
#pragma unroll
  for (int e = 0; e < kGroupElements; ++e) x[e] = widened(narrow[e]);
}

template <typename S, int V>
__global__ void __launch_bounds__(kRowThreads)
    gather_kernel(const S* __restrict__ table, int64_t n, int64_t width, const int64_t* __restrict__ index,
                  int64_t size, S* __restrict__ out) {
  const int64_t b = static_cast<int64_t>(blockIdx.x) * kGroups + group_of_block();
  if (b >= size) return;
  const int64_t row = index[b];
  const bool known = row >= 0 && row < n;
  for (int64_t first = 0; first < width; first += kPiece) {
    S x[kGroupElements] = {};
    if (known) load_piece<S, V>(table + row * width, first, width, x);
    store_piece<S, V>(x, out + b * width, first, width);
  }
}

RowLists lists_in(int32_t* scratch, int64_t n) {
  RowLists lists{};
  lists.entries = scratch;  // first, since it is to be aligned
  lists.count = lists.entries + n * kListed;
  lists.long_rows = lists.count + n + 1;
  return lists;
}

__global__ void __launch_bounds__(kRowThreads)
    gather_lists_kernel(const int64_t* __restrict__ index, int64_t size, int n, RowLists lists) {
  const int64_t b = static_cast<int64_t>(blockIdx.x) * kRowThreads + threadIdx.x;
  if (b >= size) return;
  const int64_t row = index[b];
  if (row >= 0 && row < n) enter(lists, static_cast<int>(row), n, static_cast<int32_t>(b));
}

// A row of the gradient that gets a whole block.
template <typename S, int V>
struct LongRow {
  const S* __restrict__ grad;
  const int64_t* __restrict__ index;
  int64_t places, width;
  int row;
  S* to;

  __device__ int64_t size() const { return places; }
  __device__ bool has(int64_t b, int side) const { return side == 0 && index[b] == row; }
  __device__ int entry(int64_t b, int) const { return static_cast<int>(b); }
  __device__ void add(int entry, int64_t first, Accumulator<S> (&sum)[kGroupElements]) const {
    Accumulator<S> x[kGroupElements];
    load_wide<S, V>(grad + entry * width, first, width, x);
#pragma unroll
    for (int e = 0; e < kGroupElements; ++e) sum[e] += x[e];
  }
  __device__ Accumulator<S> before(int64_t) const { return 0; }
  __device__ void finish(int64_t column, Accumulator<S> total) const { to[column] = narrowed<S>(total); }
};

template <typename S, int V>
__global__ void __launch_bounds__(kRowThreads, 3)
    gather_gradient_kernel(const S* __restrict__ grad, const int64_t* __restrict__ index, int64_t size, int n,
                           int64_t width, RowLists lists, int long_blocks, S* __restrict__ out) {
  typedef Accumulator<S> T;
  const int block = static_cast<int>(blockIdx.x);
  if (block < long_blocks) {
    SMORE_SHARED(int, list, [2 * kStretch]);
    SMORE_SHARED(int, totals, [kLooks][kRowWarps]);
    SMORE_SHARED(T, sums, [kGroups][kPiece]);
    const int n_long = lists.count[n];
    for (int i = block; i < n_long; i += long_blocks) {
      const int row = lists.long_rows[i];
      const LongRow<S, V> of{grad, index, size, width, row, out + static_cast<int64_t>(row) * width};
      add_long_row<T, V>(of, width, list, totals, sums);
    }
    return;
  }
  const int64_t row = static_cast<int64_t>(block - long_blocks) * kGroups + group_of_block();
  if (row >= n) return;
  const int count = lists.count[row];
  if (count > kListed) return;  // a block has it
  int entry = group_lane() < count ? lists.entries[row * kListed + group_lane()] : kNoEntry;
  if (count > 1) entry = sorted_entry(entry, count);
  for (int64_t first = 0; first < width; first += kPiece) {
    T sum[kGroupElements] = {}, x[kGroupElements];
    for (int k = 0; k < count; ++k) {
      const int64_t b = __shfl_sync(group_mask(), entry, k, kGroup);
      load_wide<S, V>(grad + b * width, first, width, x);
#pragma unroll
      for (int e = 0; e < kGroupElements; ++e) sum[e] += x[e];
    }
    S narrow[kGroupElements];
#pragma unroll
    for (int e = 0; e < kGroupElements; ++e) narrow[e] = narrowed<S>(sum[e]);
    store_piece<S, V>(narrow, out + row * width, first, width);
  }
}

}  // namespace

template <typename S>
void gather_rows(const S* table, int64_t n, int64_t width, const int64_t* index, int64_t size, S* out,
                 cudaStream_t stream) {
  const Launch at{blocks_for(size, kGroups), kRowThreads, stream};
  if (packs_fit<S>(width, table, out)) {
    SMORE_LAUNCH((gather_kernel<S, kRowPack<S>>), at, table, n, width, index, size, out);
  } else {
    SMORE_LAUNCH((gather_kernel<S, 1>), at, table, n, width, index, size, out);
  }
}

int64_t gather_scratch(int64_t n, int64_t size) { return n * (kListed + 1) + 1 + most_long_rows(size); }

void gather_lists(const int64_t* index, int64_t size, int64_t n, int32_t* scratch, cudaStream_t stream) {
  if (n >= INT32_MAX || size >= INT32_MAX) {
    throw std::length_error("smore_ext: gather_rows_backward: more than 2^31 rows or places");
  }
  const RowLists lists = lists_in(scratch, n);
  check("gather_rows_backward", cudaMemsetAsync(lists.count, 0, static_cast<size_t>(n + 1) * sizeof(int32_t), stream));
  SMORE_LAUNCH(gather_lists_kernel, (Launch{blocks_for(size, kRowThreads), kRowThreads, stream}), index, size,
               static_cast<int>(n), lists);
}

template <typename S>
void gather_rows_backward(const S* grad, const int64_t* index, int64_t size, int64_t n, int64_t width,
                          const int32_t* scratch, S* out, cudaStream_t stream) {
  const RowLists lists = lists_in(const_cast<int32_t*>(scratch), n);
  const int long_blocks = static_cast<int>(std::min(kMostLongBlocks, most_long_rows(size)));
  const Launch at{blocks_for(n, kGroups) + static_cast<unsigned>(long_blocks), kRowThreads, stream};
  if (packs_fit<S>(width, grad, out)) {
    SMORE_LAUNCH((gather_gradient_kernel<S, kRowPack<S>>), at, grad, index, size, static_cast<int>(n), width, lists,
                 long_blocks, out);
  } else {
    SMORE_LAUNCH((gather_gradient_kernel<S, 1>), at, grad, index, size, static_cast<int>(n), width, lists, long_blocks,
                 out);
  }
}

#define SMORE_INSTANTIATE(S)                                                                                     \
  template void gather_rows<S>(const S*, int64_t, int64_t, const int64_t*, int64_t, S*, cudaStream_t);           \
  template void gather_rows_backward<S>(const S*, const int64_t*, int64_t, int64_t, int64_t, const int32_t*, S*, \
                                        cudaStream_t)
SMORE_INSTANTIATE(float);
SMORE_INSTANTIATE(double);
SMORE_INSTANTIATE(BFloat16);
#undef SMORE_INSTANTIATE

}  // namespace smore::cuda
