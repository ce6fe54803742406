// Sparse times dense: a group of lanes holds a row of y in registers and gathers the rows of x that its edges name.
//
// A long row is cut into pieces (row_cuts.cuh), each summed apart; a second, small kernel adds them in order.
#include "sparse/cuda/spmm_kernel.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "cuda/launch.cuh"
#include "cuda/pack.cuh"
#include "sparse/cuda/row_cuts.cuh"

namespace smore::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int64_t kAlign = 256;

// Columns of a group: G lanes with P packs of V elements each. M is the type in memory, T that of the sums.
template <typename M_, typename I_, int V_, int G_, int P_>
struct Shape {
  using M = M_;
  using T = Accumulator<M>;
  using I = I_;
  static constexpr int V = V_, G = G_, P = P_;
  static constexpr int kGroups = kThreads / G;
  static constexpr int kColumns = G * P * V;
  static constexpr int kAhead = P == 1 ? 8 : 4;                                // rows of x that are under way at a time
  static constexpr int kBlocks = P > 1 || V > 4 ? 4 : sizeof(T) == 4 ? 6 : 5;  // a multiprocessor at least
};

template <typename M, typename I>
struct Job : RowCuts<Accumulator<M>, I> {
  using T = Accumulator<M>;
  SpmmOutput<M> out;
  int64_t* begins;  // [n_chunks]: the long row whose first piece the chunk is, or -1
  T* head;          // [n_chunks, width]: what the row that begins[c] names sums before chunk c
  T* piece;         // [n_chunks, width]: what it sums in chunk c
  int width;
};

__device__ __forceinline__ float fused(float a, float b, float c) { return fmaf(a, b, c); }
__device__ __forceinline__ double fused(double a, double b, double c) { return fma(a, b, c); }

// What a lane holds of a row: P packs, whose columns begin at `first`, `first` + G * V, .. As memory has them, and as
// sums.
template <typename S>
struct Part {
  Pack<typename S::M, S::V> pack[S::P] = {};
};
template <typename S>
struct Sum {
  typename S::T at[S::P][S::V] = {};
};

template <typename S>
__device__ __forceinline__ int first_column() {
  return static_cast<int>(blockIdx.y) * S::kColumns + static_cast<int>(threadIdx.x) % S::G * S::V;
}

// Packs that lie in the row, if there is one; the others are left as they are. One condition a pack: it becomes a
// predicate of the load, not a branch.
template <typename S>
__device__ __forceinline__ void load_part(Part<S>& part, const typename S::M* row, int width, bool there = true) {
  const int first = first_column<S>();
#pragma unroll
  for (int p = 0; p < S::P; ++p) {
    const int column = first + p * S::G * S::V;
    if (there & (column < width)) part.pack[p] = load_pack<S::V>(row + column);
  }
}

// Adds w * x or, without x's row (w is 0 or NaN then), w * 0.
template <typename S>
__device__ __forceinline__ void add(Sum<S>& sum, typename S::T w, const Part<S>& x) {
#pragma unroll
  for (int p = 0; p < S::P; ++p) {
#pragma unroll
    for (int v = 0; v < S::V; ++v) sum.at[p][v] = fused(w, widened(x.pack[p].at[v]), sum.at[p][v]);
  }
}

// Sums in scratch memory, in packs of 16 bytes if rows of x go in packs.
template <typename S>
inline constexpr int kSumPack = S::V < kFullPack<typename S::T> ? S::V : kFullPack<typename S::T>;

template <typename S>
__device__ __forceinline__ void add_stored(Sum<S>& sum, const typename S::T* row, int width, bool there = true) {
  const int first = first_column<S>();
  constexpr int N = kSumPack<S>;
#pragma unroll
  for (int p = 0; p < S::P; ++p) {
    const int column = first + p * S::G * S::V;
    if (!(there & (column < width))) continue;
#pragma unroll
    for (int v = 0; v < S::V; v += N) {
      const Pack<typename S::T, N> pack = load_pack<N>(row + column + v);
#pragma unroll
      for (int i = 0; i < N; ++i) sum.at[p][v + i] += pack.at[i];
    }
  }
}

template <typename S>
__device__ __forceinline__ void store_sum(const Sum<S>& sum, typename S::T* row, int width) {
  const int first = first_column<S>();
  constexpr int N = kSumPack<S>;
#pragma unroll
  for (int p = 0; p < S::P; ++p) {
    const int column = first + p * S::G * S::V;
    if (column >= width) continue;
#pragma unroll
    for (int v = 0; v < S::V; v += N) {
      Pack<typename S::T, N> pack;
#pragma unroll
      for (int i = 0; i < N; ++i) pack.at[i] = sum.at[p][v + i];
      store_pack(row + column + v, pack);
    }
  }
}

template <typename T, typename I>
struct Edge {
  I col = -1;  // none
  T weight = 0;
};

template <typename T, typename I>
__device__ __forceinline__ Edge<T, I> load_edge(const CsrMatrix<T, I>& a, int64_t e, int64_t end) {
  if (e >= end) return {};
  const I col = __ldcs(a.col + e);
  const T weight = a.weight == nullptr ? T(1) : __ldcs(a.weight + e);  // does not wait for the column
  const bool known = col >= 0 && static_cast<int64_t>(col) < a.n_cols;
  return {known ? col : I(-1), known ? weight : kNan<T>};
}

// The sum over the group's edges, in order. The groups of a warp go through their edges in step: each lane loads one
// edge at a time and hands it to its group, kAhead rows of x are asked for before the first is used.
template <typename S>
__device__ __forceinline__ Sum<S> sum_edges(const Job<typename S::M, typename S::I>& job,
                                            const typename S::M* __restrict__ x, Range edges) {
  using T = typename S::T;
  using I = typename S::I;
  int64_t length = edges.end - edges.begin;
#pragma unroll
  for (int other = S::G; other < kWarp; other *= 2) length = max(length, __shfl_xor_sync(kAllLanes, length, other));
  const int64_t mine = edges.begin + static_cast<int>(threadIdx.x) % S::G;
  Sum<S> sum;
  Edge<T, I> next = load_edge(job.a, mine, edges.end);
  for (int64_t first = 0; first < length; first += S::G) {
    const Edge<T, I> edge = next;
    next = load_edge(job.a, mine + first + S::G, edges.end);
    const int count = static_cast<int>(min(length - first, int64_t{S::G}));
    for (int e = 0; e < count; e += S::kAhead) {
      I col[S::kAhead];
      T weight[S::kAhead];
      Part<S> row[S::kAhead];
#pragma unroll
      for (int i = 0; i < S::kAhead; ++i) {
        col[i] = __shfl_sync(kAllLanes, edge.col, e + i, S::G);
        weight[i] = __shfl_sync(kAllLanes, edge.weight, e + i, S::G);
      }
#pragma unroll
      for (int i = 0; i < S::kAhead; ++i) {
        load_part(row[i], x + static_cast<int64_t>(col[i]) * job.width, job.width, col[i] >= 0);
      }
#pragma unroll
      for (int i = 0; i < S::kAhead; ++i) add(sum, weight[i], row[i]);
    }
  }
  return sum;
}

template <typename S>
__device__ __forceinline__ void emit(const SpmmOutput<typename S::M>& out, int64_t row, int width, Sum<S> value) {
  using M = typename S::M;
  using T = typename S::T;
  const int first = first_column<S>();
  const T coefficient = out.coefficient == nullptr ? T(1) : *out.coefficient;
  const T inner = (out.inner == nullptr ? T(1) : out.inner[row]) * (out.both ? out.coefficient[1] : T(1));
  const T outer = (out.outer == nullptr ? T(1) : out.outer[row]) * out.scale;
#pragma unroll
  for (int p = 0; p < S::P; ++p) {
    const int column = first + p * S::G * S::V;
    if (column >= width) continue;
    const int64_t at = row * width + column;
#pragma unroll
    for (int v = 0; v < S::V; ++v) value.at[p][v] *= inner;
    if (out.addend != nullptr) {
      const Pack<M, S::V> addend = load_pack<S::V>(out.addend + at);
#pragma unroll
      for (int v = 0; v < S::V; ++v) value.at[p][v] = fused(coefficient, widened(addend.at[v]), value.at[p][v]);
    }
#pragma unroll
    for (int v = 0; v < S::V; ++v) value.at[p][v] *= outer;
    Pack<M, S::V> pack;
    if (out.y != nullptr) {
#pragma unroll
      for (int v = 0; v < S::V; ++v) pack.at[v] = narrowed<M>(value.at[p][v]);
      store_pack(out.y + at, pack);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (out.factor[i] == nullptr) continue;
      const Pack<M, S::V> factor = load_pack<S::V>(out.factor[i] + at);
#pragma unroll
      for (int v = 0; v < S::V; ++v) pack.at[v] = narrowed<M>(value.at[p][v] * widened(factor.at[v]));
      store_pack(out.scaled[i] + at, pack);
    }
  }
}

// The first `piece_blocks` blocks sum chunks (they have the longest sums, so they go first), the others rows.
template <typename S>
__global__ void __launch_bounds__(kThreads, S::kBlocks)
    spmm_kernel(const Job<typename S::M, typename S::I> job, const typename S::M* __restrict__ x,
                unsigned piece_blocks) {
  const int group = static_cast<int>(threadIdx.x) / S::G;
  const bool of_chunk = blockIdx.x < piece_blocks;
  const int64_t number = int64_t{of_chunk ? blockIdx.x : blockIdx.x - piece_blocks} * S::kGroups + group;
  const Share share = share_of(job, of_chunk, number);
  const Range edges = share.edges;
  if (of_chunk && blockIdx.y == 0 && threadIdx.x % S::G == 0 && number < job.n_chunks) {
    job.begins[number] = share.first_cut ? share.row : -1;
  }
  const Sum<S> sum = sum_edges<S>(job, x, edges);
  if (of_chunk && share.is_long) {
    store_sum(sum, job.piece + number * job.width, job.width);
  } else if (share.is_long) {
    store_sum(sum, job.head + job.chunks_up_to(edges.begin) * job.width, job.width);
  } else if (!of_chunk && share.row < job.a.n_rows) {
    emit(job.out, share.row, job.width, sum);
  }
}

// A group for each chunk that begins a long row: its head, then its pieces.
template <typename S>
__global__ void __launch_bounds__(kThreads, S::kBlocks) add_pieces_kernel(const Job<typename S::M, typename S::I> job) {
  const int64_t first = int64_t{blockIdx.x} * S::kGroups + static_cast<int>(threadIdx.x) / S::G;
  if (first >= job.n_chunks) return;
  const int64_t row = job.begins[first];
  if (row < 0) return;
  const int64_t last = job.chunks_up_to(edges_of(job, row).end);
  Sum<S> sum;
  add_stored(sum, job.head + first * job.width, job.width);
#pragma unroll 4
  for (int64_t c = first; c < last; ++c) add_stored(sum, job.piece + c * job.width, job.width);
  emit(job.out, row, job.width, sum);
}

int64_t begins_bytes(int64_t n_chunks) { return ceil_div(n_chunks * int64_t{sizeof(int64_t)}, kAlign) * kAlign; }

template <typename S>
void run(const Job<typename S::M, typename S::I>& job, const typename S::M* x, cudaStream_t stream) {
  const unsigned tiles = blocks_for(job.width, S::kColumns);
  const unsigned pieces = blocks_for(job.n_chunks, S::kGroups);
  const unsigned blocks = blocks_for(job.a.n_rows + int64_t{pieces} * S::kGroups, S::kGroups);
  SMORE_LAUNCH(spmm_kernel<S>, (Launch{dim3(blocks, tiles), kThreads, stream}), job, x, pieces);
  SMORE_LAUNCH(add_pieces_kernel<S>, (Launch{dim3(pieces, tiles), kThreads, stream}), job);
}

// The narrowest group that holds a row; of tiles for wider ones, those that cover it with the least waste.
template <int V, typename M, typename I>
void run_width(const Job<M, I>& job, const M* x, cudaStream_t stream) {
  const int packs = ceil_div(job.width, V);
  if (packs <= 8) return run<Shape<M, I, V, 8, 1>>(job, x, stream);
  if (packs <= 16) return run<Shape<M, I, V, 16, 1>>(job, x, stream);
  if constexpr (V > 4) {  // registers do not suffice for more
    run<Shape<M, I, V, 16, 2>>(job, x, stream);
  } else if (ceil_div(packs, 32) * 32 < ceil_div(packs, 48) * 48) {
    run<Shape<M, I, V, 16, 2>>(job, x, stream);
  } else {
    run<Shape<M, I, V, 16, 3>>(job, x, stream);
  }
}

}  // namespace

template <typename M>
int64_t spmm_scratch_bytes(int64_t n_edges, int64_t width, const RowLengths& lengths) {
  const int64_t n_chunks = chunks_for(n_edges, lengths);
  return begins_bytes(n_chunks) + 2 * n_chunks * width * int64_t{sizeof(Accumulator<M>)};
}

template <typename M, typename I>
void spmm(const CsrMatrix<Accumulator<M>, I>& a, const M* x, int64_t width, const SpmmOutput<M>& out,
          const RowLengths& lengths, void* scratch, cudaStream_t stream) {
  using T = Accumulator<M>;
  if (a.n_rows == 0 || width == 0) return;
  if (width > INT32_MAX / 2) throw std::length_error("smore_ext: spmm of width " + std::to_string(width));
  const RowCuts<T, I> rows = cuts_of(a, lengths);
  const int64_t n_chunks = rows.n_chunks;
  char* const bytes = static_cast<char*>(scratch);
  T* const head = n_chunks > 0 ? reinterpret_cast<T*>(bytes + begins_bytes(n_chunks)) : nullptr;
  T* const piece = n_chunks > 0 ? head + n_chunks * width : nullptr;
  const Job<M, I> job{{rows}, out, reinterpret_cast<int64_t*>(bytes), head, piece, static_cast<int>(width)};
  if (packs_fit<M>(width, x, out.y, out.addend, out.factor[0], out.factor[1], out.scaled[0], out.scaled[1])) {
    run_width<kFullPack<M>>(job, x, stream);
  } else {
    run_width<1>(job, x, stream);
  }
}

#define SMORE_INSTANTIATE(M, I)                                                                          \
  template void spmm<M, I>(const CsrMatrix<Accumulator<M>, I>&, const M*, int64_t, const SpmmOutput<M>&, \
                           const RowLengths&, void*, cudaStream_t);
#define SMORE_INSTANTIATE_BOTH(M)                                              \
  template int64_t spmm_scratch_bytes<M>(int64_t, int64_t, const RowLengths&); \
  SMORE_INSTANTIATE(M, int32_t)                                                \
  SMORE_INSTANTIATE(M, int64_t)
SMORE_INSTANTIATE_BOTH(float)
SMORE_INSTANTIATE_BOTH(double)
SMORE_INSTANTIATE_BOTH(BFloat16)
#undef SMORE_INSTANTIATE_BOTH
#undef SMORE_INSTANTIATE

}  // namespace smore::cuda
