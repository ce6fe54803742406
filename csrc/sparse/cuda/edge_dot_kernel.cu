// A group of lanes takes as many edges as it has lanes, wherever rows begin and end, so that long rows are nothing
// special. Each lane looks up the ends of one edge; then the group goes through the edges, kBatch at a time: a lane
// multiplies its columns of both rows, and the lanes' parts are added while they are handed out, an edge to a lane.
// Neighbouring edges mostly share their row of u, which then comes from the first cache.
#include "sparse/cuda/edge_dot_kernel.h"

#include "cuda/launch.cuh"
#include "cuda/pack.cuh"
#include "sparse/cuda/row_cuts.cuh"

namespace smore::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kBatch = 8;  // edges that are handed out at a time
constexpr int kAhead = 4;  // of them, those whose rows are under way at a time

__device__ __forceinline__ float fused(float a, float b, float c) { return fmaf(a, b, c); }
__device__ __forceinline__ double fused(double a, double b, double c) { return fma(a, b, c); }

// Lane l of a group of G gets the sum of part[l % kBatch] over the group, as a binary tree.
template <int G, typename T>
__device__ __forceinline__ T sum_for_each(T (&part)[kBatch], int lane) {
#pragma unroll
  for (int half = kBatch / 2; half >= 1; half /= 2) {
    const bool upper = (lane & half) != 0;
#pragma unroll
    for (int i = 0; i < half; ++i) {
      const T given = upper ? part[i] : part[i + half], kept = upper ? part[i + half] : part[i];
      part[i] = kept + __shfl_xor_sync(kAllLanes, given, half, G);
    }
  }
  T sum = part[0];
#pragma unroll
  for (int other = kBatch; other < G; other *= 2) sum += __shfl_xor_sync(kAllLanes, sum, other, G);
  return sum;
}

// Columns go in packs of V. M is the type in memory, T that of the sums.
template <typename M, typename I, int V, int G>
__global__ void __launch_bounds__(kThreads, 4)
    edge_dot_kernel(const RowCuts<Accumulator<M>, I> rows, const M* __restrict__ u, const M* __restrict__ v, int width,
                    Accumulator<M>* out) {
  using T = Accumulator<M>;
  const int lane = static_cast<int>(threadIdx.x) % G;
  const int64_t first = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / G * G, mine = first + lane;
  int64_t row = -1, col = -1;  // none
  if (mine < rows.a.n_edges) {
    row = row_of(rows, mine);
    col = rows.a.col[mine];
    if (row >= rows.a.n_rows || col < 0 || col >= rows.a.n_cols) row = col = -1;
  }
#pragma unroll 1
  for (int batch = 0; batch < G; batch += kBatch) {
    T part[kBatch] = {};
#pragma unroll
    for (int ahead = 0; ahead < kBatch; ahead += kAhead) {
      const M *left[kAhead], *right[kAhead];  // null: no edge
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        const int64_t r = __shfl_sync(kAllLanes, row, batch + ahead + i, G);
        const int64_t c = __shfl_sync(kAllLanes, col, batch + ahead + i, G);
        left[i] = r < 0 ? nullptr : u + r * width;
        right[i] = r < 0 ? nullptr : v + c * width;
      }
      for (int column = lane * V; column < width; column += G * V) {
        Pack<M, V> a[kAhead] = {}, b[kAhead] = {};
#pragma unroll
        for (int i = 0; i < kAhead; ++i) {
          if (left[i] != nullptr) a[i] = load_pack<V>(left[i] + column);
          if (right[i] != nullptr) b[i] = load_pack<V>(right[i] + column);
        }
#pragma unroll
        for (int i = 0; i < kAhead; ++i) {
#pragma unroll
          for (int p = 0; p < V; ++p) {
            part[ahead + i] = fused(widened(a[i].at[p]), widened(b[i].at[p]), part[ahead + i]);
          }
        }
      }
    }
    const T sum = sum_for_each<G>(part, lane);
    const bool known = __shfl_sync(kAllLanes, row, batch + lane % kBatch, G) >= 0;
    const int64_t edge = first + batch + lane;
    if (lane < kBatch && edge < rows.a.n_edges) out[edge] = known ? sum : kNan<T>;
  }
}

template <int V, int G, typename M, typename I>
void run(const EdgeDot<M, I>& job, const RowLengths& lengths, cudaStream_t stream) {
  const CsrMatrix<Accumulator<M>, I> a{job.rowptr, job.col, nullptr, job.n_rows, job.n_cols, job.n_edges};
  const unsigned blocks = blocks_for(ceil_div(job.n_edges, int64_t{G}) * G, kThreads);
  SMORE_LAUNCH((edge_dot_kernel<M, I, V, G>), (Launch{blocks, kThreads, stream}), cuts_of(a, lengths), job.u, job.v,
               static_cast<int>(job.width), job.out);
}

template <int V, typename M, typename I>
void run_width(const EdgeDot<M, I>& job, const RowLengths& lengths, cudaStream_t stream) {
  const int64_t packs = ceil_div(job.width, int64_t{V});
  if (packs <= 8) return run<V, 8>(job, lengths, stream);
  run<V, 16>(job, lengths, stream);
}

}  // namespace

template <typename M, typename I>
void edge_dot(const EdgeDot<M, I>& job, const RowLengths& lengths, cudaStream_t stream) {
  if (job.n_edges == 0) return;
  if (job.width > INT32_MAX / 2) throw std::length_error("smore_ext: edge_dot of width " + std::to_string(job.width));
  if (packs_fit<M>(job.width, job.u, job.v)) {
    run_width<kFullPack<M>>(job, lengths, stream);
  } else {
    run_width<1>(job, lengths, stream);
  }
}

#define SMORE_INSTANTIATE(M, I) template void edge_dot<M, I>(const EdgeDot<M, I>&, const RowLengths&, cudaStream_t);
SMORE_INSTANTIATE(float, int32_t)
SMORE_INSTANTIATE(float, int64_t)
SMORE_INSTANTIATE(double, int32_t)
SMORE_INSTANTIATE(double, int64_t)
SMORE_INSTANTIATE(BFloat16, int32_t)
SMORE_INSTANTIATE(BFloat16, int64_t)
#undef SMORE_INSTANTIATE

}  // namespace smore::cuda
