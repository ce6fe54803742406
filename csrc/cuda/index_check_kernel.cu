// One pass over index lists: a thread an id, a warp a row.
#include "cuda/index_check_kernel.h"

#include <algorithm>

#include "cuda/launch.cuh"

namespace smore::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr unsigned kMaxBlocks = 512;  // few: every warp ends with atomics on the same words

__device__ void lower(int64_t* to, int64_t value) {
  atomicMin(reinterpret_cast<long long*>(to), static_cast<long long>(value));
}

__global__ void __launch_bounds__(kThreads)
    find_bad_id_kernel(const int64_t* __restrict__ ids, int64_t n, int64_t limit, int64_t* first) {
  const int64_t step = int64_t{gridDim.x} * kThreads;
  for (int64_t b = int64_t{blockIdx.x} * kThreads + threadIdx.x; b < n; b += step) {
    const int64_t id = ids[b];
    if (id >= 0 && id < limit) continue;
    lower(first, b);
    return;  // the thread's later ones are of no interest
  }
}

template <typename I>
__global__ void __launch_bounds__(kThreads)
    check_rows_kernel(const I* __restrict__ rowptr, int64_t n_rows, const I* __restrict__ col, int64_t n_edges,
                      int64_t n_cols, bool sorted, CsrVerdict* verdict) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t warp = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
  if (warp == 0 && lane == 0 && (rowptr[0] != 0 || static_cast<int64_t>(rowptr[n_rows]) != n_edges)) {
    lower(&verdict->bad_row, 0);
  }
  int64_t shortest = kNothing, longest = -1;
  for (int64_t row = warp; row < n_rows; row += int64_t{gridDim.x} * kWarps) {
    const int64_t begin = rowptr[row], end = rowptr[row + 1];
    bool good = begin >= 0 && begin <= end && end <= n_edges;
    if (good) {
      shortest = min(shortest, end - begin);
      longest = max(longest, end - begin);
    }
    for (int64_t e = begin + lane; good && e < end; e += kWarp) {
      const int64_t c = col[e];
      good = c >= 0 && c < n_cols && (!sorted || e == begin || c > static_cast<int64_t>(col[e - 1]));
    }
    if (!good) lower(&verdict->bad_row, row);
  }
  if (lane == 0 && longest >= 0) {
    lower(&verdict->shortest, shortest);
    lower(&verdict->minus_longest, -longest);
  }
}

}  // namespace

void find_bad_id(const int64_t* ids, int64_t n, int64_t limit, int64_t* first, cudaStream_t stream) {
  check("find_bad_id", cudaMemsetAsync(first, 0x7f, sizeof *first, stream));
  const unsigned blocks = std::min(blocks_for(n, kThreads), kMaxBlocks);
  SMORE_LAUNCH(find_bad_id_kernel, (Launch{blocks, kThreads, stream}), ids, n, limit, first);
}

template <typename I>
void check_rows(const I* rowptr, int64_t n_rows, const I* col, int64_t n_edges, int64_t n_cols, bool sorted,
                CsrVerdict* verdict, cudaStream_t stream) {
  check("check_rows", cudaMemsetAsync(verdict, 0x7f, sizeof *verdict, stream));
  const unsigned blocks = std::min(blocks_for(std::max<int64_t>(n_rows, 1), kWarps), kMaxBlocks);
  SMORE_LAUNCH((check_rows_kernel<I>), (Launch{blocks, kThreads, stream}), rowptr, n_rows, col, n_edges, n_cols, sorted,
               verdict);
}

template void check_rows<int32_t>(const int32_t*, int64_t, const int32_t*, int64_t, int64_t, bool, CsrVerdict*,
                                  cudaStream_t);
template void check_rows<int64_t>(const int64_t*, int64_t, const int64_t*, int64_t, int64_t, bool, CsrVerdict*,
                                  cudaStream_t);

}  // namespace smore::cuda
