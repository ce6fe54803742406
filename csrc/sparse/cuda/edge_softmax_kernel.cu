// A group of lanes a row: what the row's results need (the largest logit and a sum, or a sum), then the results. A long
// row is cut into pieces (row_cuts.cuh): the first kernel leaves what each needs in scratch memory, and in the second
// every piece puts those of its row together, all in the same order, and writes its own results.
#include "sparse/cuda/edge_softmax_kernel.h"

#include "cuda/launch.cuh"
#include "sparse/cuda/row_cuts.cuh"

namespace smore::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kBlocks = 8;  // a multiprocessor at least

__device__ __forceinline__ float exponential(float x) { return expf(x); }
__device__ __forceinline__ double exponential(double x) { return exp(x); }

// f(lane's value, that of a neighbour) over the group, as a binary tree; every lane gets the result.
template <int G, typename V, typename F>
__device__ __forceinline__ V over_group(V value, const F& f) {
#pragma unroll
  for (int other = G / 2; other >= 1; other /= 2) value = f(value, __shfl_xor_sync(kAllLanes, value, other, G));
  return value;
}

template <typename T>
__device__ __forceinline__ T finite_or_zero(T top) {  // minus infinity: nothing, or logits of minus infinity alone
  return top == -kInfinity<T> ? T(0) : top;
}

template <typename T_>
struct Softmax {
  using T = T_;
  const T* logits;
  T* y;

  struct Needs {
    T top = -kInfinity<T>, sum = 0;  // of exp(l - top)
  };

  template <int G>
  __device__ Needs needs(Range edges, int lane) const {
    Needs n;
    for (int64_t e = edges.begin + lane; e < edges.end; e += G) n.top = max(n.top, logits[e]);
    n.top = over_group<G>(n.top, [](T a, T b) { return max(a, b); });
    const T shift = finite_or_zero(n.top);
    for (int64_t e = edges.begin + lane; e < edges.end; e += G) n.sum += exponential(logits[e] - shift);
    n.sum = over_group<G>(n.sum, [](T a, T b) { return a + b; });
    return n;
  }
  __device__ static Needs joined(Needs a, Needs b) {
    const T top = max(a.top, b.top), shift = finite_or_zero(top);
    return {top, a.sum * exponential(a.top - shift) + b.sum * exponential(b.top - shift)};
  }
  template <int G>
  __device__ static Needs joined_over_group(Needs n) {
#pragma unroll
    for (int other = G / 2; other >= 1; other /= 2) {
      const T top = __shfl_xor_sync(kAllLanes, n.top, other, G), sum = __shfl_xor_sync(kAllLanes, n.sum, other, G);
      n = joined(n, {top, sum});
    }
    n.sum = __shfl_sync(kAllLanes, n.sum, 0, G);  // a product contracted with one of the sums: lanes differ
    return n;
  }
  __device__ void finish(int64_t e, Needs n) const { y[e] = exponential(logits[e] - finite_or_zero(n.top)) / n.sum; }
};

template <typename T_>
struct SoftmaxBackward {
  using T = T_;
  const T *y, *grad;
  T* grad_logits;

  struct Needs {
    T sum = 0;  // of y * grad
  };

  template <int G>
  __device__ Needs needs(Range edges, int lane) const {
    Needs n;
    for (int64_t e = edges.begin + lane; e < edges.end; e += G) n.sum += y[e] * grad[e];
    return joined_over_group<G>(n);
  }
  __device__ static Needs joined(Needs a, Needs b) { return {a.sum + b.sum}; }
  template <int G>
  __device__ static Needs joined_over_group(Needs n) {
    return {over_group<G>(n.sum, [](T a, T b) { return a + b; })};
  }
  __device__ void finish(int64_t e, Needs n) const { grad_logits[e] = y[e] * (grad[e] - n.sum); }
};

template <typename Work, typename I>
struct Job : RowCuts<typename Work::T, I> {
  Work work;
  typename Work::Needs* head;   // [n_chunks]: of the row whose first piece chunk c is, before chunk c
  typename Work::Needs* piece;  // [n_chunks]: in chunk c
};

template <int G>
__device__ __forceinline__ int64_t group_number() {
  return (int64_t{blockIdx.x} * kThreads + threadIdx.x) / G;
}

// A group for each chunk, then for each row.
template <typename Work, typename I, int G>
__global__ void __launch_bounds__(kThreads, kBlocks) edge_rows_kernel(const Job<Work, I> job, int64_t chunk_groups) {
  const int lane = static_cast<int>(threadIdx.x) % G;
  const int64_t group = group_number<G>();
  const bool of_chunk = group < chunk_groups;
  const int64_t number = of_chunk ? group : group - chunk_groups;
  const Share share = share_of(job, of_chunk, number);
  const typename Work::Needs needs = job.work.template needs<G>(share.edges, lane);
  if (share.is_long) {
    if (lane == 0) (of_chunk ? job.piece[number] : job.head[job.chunks_up_to(share.edges.begin)]) = needs;
  } else if (!of_chunk) {
    for (int64_t e = share.edges.begin + lane; e < share.edges.end; e += G) job.work.finish(e, needs);
  }
}

// A group for each chunk: those that are pieces of a long row write it, the first of them its head too.
template <typename Work, typename I, int G>
__global__ void __launch_bounds__(kThreads, kBlocks) edge_pieces_kernel(const Job<Work, I> job) {
  const int lane = static_cast<int>(threadIdx.x) % G;
  const Share share = share_of(job, true, group_number<G>());
  typename Work::Needs needs;
  Range edges = share.edges;
  if (share.is_long) {
    const Range all = edges_of(job, share.row);
    const int64_t first = job.chunks_up_to(all.begin), last = job.chunks_up_to(all.end);
    if (lane == 0) needs = job.head[first];
    for (int64_t c = first + lane; c < last; c += G) needs = Work::joined(needs, job.piece[c]);
    if (share.first_cut) edges.begin = all.begin;
  }
  needs = Work::template joined_over_group<G>(needs);
  for (int64_t e = edges.begin + lane; e < edges.end; e += G) job.work.finish(e, needs);
}

template <int G, typename Work, typename I>
void run(const Job<Work, I>& job, cudaStream_t stream) {
  constexpr int kGroups = kThreads / G;
  const int64_t chunk_groups = ceil_div(job.n_chunks, int64_t{kGroups}) * kGroups;
  const unsigned blocks = blocks_for(chunk_groups + job.a.n_rows, kGroups);
  SMORE_LAUNCH((edge_rows_kernel<Work, I, G>), (Launch{blocks, kThreads, stream}), job, chunk_groups);
  SMORE_LAUNCH((edge_pieces_kernel<Work, I, G>), (Launch{blocks_for(job.n_chunks, kGroups), kThreads, stream}), job);
}

template <typename Work, typename I>
void run_rows(const EdgeRows<I>& rows, const Work& work, const RowLengths& lengths, void* scratch,
              cudaStream_t stream) {
  if (rows.n_rows == 0 || rows.n_edges == 0) return;
  const CsrMatrix<typename Work::T, I> a{rows.rowptr, nullptr, nullptr, rows.n_rows, 0, rows.n_edges};
  const RowCuts<typename Work::T, I> cuts = cuts_of(a, lengths);
  auto* const head = static_cast<typename Work::Needs*>(scratch);
  const Job<Work, I> job{{cuts}, work, head, head == nullptr ? nullptr : head + cuts.n_chunks};
  if (rows.n_edges <= 16 * rows.n_rows) return run<8>(job, stream);
  run<32>(job, stream);
}

}  // namespace

template <typename T>
int64_t edge_softmax_scratch_bytes(int64_t n_edges, const RowLengths& lengths) {
  return 2 * chunks_for(n_edges, lengths) * int64_t{sizeof(typename Softmax<T>::Needs)};
}

template <typename T, typename I>
void edge_softmax(const EdgeRows<I>& rows, const T* logits, T* y, const RowLengths& lengths, void* scratch,
                  cudaStream_t stream) {
  run_rows(rows, Softmax<T>{logits, y}, lengths, scratch, stream);
}

template <typename T, typename I>
void edge_softmax_backward(const EdgeRows<I>& rows, const T* y, const T* grad, T* grad_logits,
                           const RowLengths& lengths, void* scratch, cudaStream_t stream) {
  run_rows(rows, SoftmaxBackward<T>{y, grad, grad_logits}, lengths, scratch, stream);
}

#define SMORE_INSTANTIATE(T, I)                                                                                   \
  template void edge_softmax<T, I>(const EdgeRows<I>&, const T*, T*, const RowLengths&, void*, cudaStream_t);     \
  template void edge_softmax_backward<T, I>(const EdgeRows<I>&, const T*, const T*, T*, const RowLengths&, void*, \
                                            cudaStream_t);
#define SMORE_INSTANTIATE_BOTH(T)                                             \
  template int64_t edge_softmax_scratch_bytes<T>(int64_t, const RowLengths&); \
  SMORE_INSTANTIATE(T, int32_t)                                               \
  SMORE_INSTANTIATE(T, int64_t)
SMORE_INSTANTIATE_BOTH(float)
SMORE_INSTANTIATE_BOTH(double)
#undef SMORE_INSTANTIATE_BOTH
#undef SMORE_INSTANTIATE

}  // namespace smore::cuda
