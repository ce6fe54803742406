// Every warp works for itself, on tiles of 8 rows by 512 bytes. The product of the two factors for the tile is summed
// up in registers and put into shared memory, which frees the registers for many loads at a time; then the parameter
// and its moments pass by once. The warps of a block share nothing but its columns of the factor, so they drift apart,
// and the arithmetic of some runs while others wait for memory.
#include "tables/cuda/factored_adam_kernel.h"

#include <algorithm>

#include "cuda/launch.cuh"
#include "cuda/pack.cuh"

namespace smore::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarp;
constexpr int kRows = 8;                 // of a warp's tile
constexpr int kBatch = 2;                // rows that are loaded at a time
constexpr int kDepth = 64;               // terms of the product that are in shared memory at a time
constexpr int64_t kBlocksWanted = 4096;  // about ten times as many as run at once on a large device
constexpr int64_t kMostRounds = 8;
constexpr int64_t kMostRows = 65535;  // of a grid
// Blocks that share a multiprocessor, with 80 registers a thread and 64 KB of shared memory each. Consumer devices of
// compute capability 12 have the memory for one only, so they may as well use more registers.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
constexpr int kBlocksAtOnce = 2;
#else
constexpr int kBlocksAtOnce = 3;
#endif

template <typename T>
constexpr int kLane = kFullPack<T>;  // columns of a lane
template <typename T>
constexpr int kColumns = kWarp * kLane<T>;

template <typename T>
struct Shared {
  alignas(16) T factor[kDepth][kColumns<T>];
  union alignas(16) {
    T rows[kRows][kDepth];       // of grad_rows
    T grad[kRows][kColumns<T>];  // their product with the factor
  } tile[kWarps];
  T minus_step, root_correction;
};

template <typename T>
struct Constants {
  T one_minus_beta1, beta2, one_minus_beta2, eps;
};

__device__ __forceinline__ float fused(float a, float b, float c) { return fmaf(a, b, c); }
__device__ __forceinline__ double fused(double a, double b, double c) { return fma(a, b, c); }
__device__ __forceinline__ float root(float x) { return sqrtf(x); }
__device__ __forceinline__ double root(double x) { return sqrt(x); }

// The table and its moments are passed by once: they must not push the two factors out of the cache.
template <int N, typename T>
__device__ __forceinline__ Pack<T, N> stream_in(const T* from) {
  if constexpr (N == 1) {
    return {__ldcs(from)};
  } else if constexpr (N == 4) {
    const float4 x = __ldcs(reinterpret_cast<const float4*>(from));
    return {x.x, x.y, x.z, x.w};
  } else {
    const double2 x = __ldcs(reinterpret_cast<const double2*>(from));
    return {x.x, x.y};
  }
}
template <typename T, int N>
__device__ __forceinline__ void stream_out(T* to, const Pack<T, N>& x) {
  if constexpr (N == 1) {
    __stcs(to, x.at[0]);
  } else if constexpr (N == 4) {
    __stcs(reinterpret_cast<float4*>(to), make_float4(x.at[0], x.at[1], x.at[2], x.at[3]));
  } else {
    __stcs(reinterpret_cast<double2*>(to), make_double2(x.at[0], x.at[1]));
  }
}

template <typename T>
__device__ __forceinline__ void adam_update(const Constants<T>& c, T minus_step, T root_correction, T grad, T& param,
                                            T& average, T& square) {
  average = fused(grad - average, c.one_minus_beta1, average);
  square = fused(c.one_minus_beta2 * grad, grad, square * c.beta2);
  const T size = fused(root(square), root_correction, c.eps);
  param = fused(minus_step, average / size, param);
}

__device__ __forceinline__ double value_of(const Scalar& scalar) {
  if (scalar.float_on_device != nullptr) return static_cast<double>(*scalar.float_on_device);
  return scalar.double_on_device != nullptr ? *scalar.double_on_device : scalar.value;
}

// The two numbers that change with each step, as the host would compute them, by threads of two warps.
template <typename T>
__device__ void read_step(const FactoredAdam<T>& job, Shared<T>& shared) {
  if (threadIdx.x != 0 && threadIdx.x != kWarp) return;
  const double correction = 1 - pow(threadIdx.x == 0 ? job.beta1 : job.beta2, value_of(job.step));
  if (threadIdx.x == 0) {
    shared.minus_step = static_cast<T>(-(value_of(job.lr) / correction));
  } else {
    shared.root_correction = static_cast<T>(1 / sqrt(correction));
  }
}

// Terms [from, from + kDepth) of the block's columns of the factor; beyond its edges, zeros.
template <typename T>
__device__ __forceinline__ void stage_factor(const FactoredAdam<T>& job, int64_t from, int64_t left,
                                             Shared<T>& shared) {
  constexpr int kStep = kThreads / kColumns<T>;
  const int c = static_cast<int>(threadIdx.x) % kColumns<T>, first = static_cast<int>(threadIdx.x) / kColumns<T>;
  const int terms = left + c < job.width ? static_cast<int>(min(job.d - from, int64_t{kDepth})) : 0;
  const T* source = job.factor + (from + first) * job.width + left + c;
#pragma unroll 4
  for (int k = first; k < kDepth; k += kStep, source += kStep * job.width) {
    shared.factor[k][c] = k < terms ? __ldg(source) : T(0);
  }
}

// The same terms of a warp's rows.
template <typename T>
__device__ __forceinline__ void stage_rows(const FactoredAdam<T>& job, int64_t from, int64_t row, int lane,
                                           T (&rows)[kRows][kDepth]) {
  const int64_t terms = job.d - from, count = job.n - row;
  const T* source = job.grad_rows + row * job.d + from + lane;
#pragma unroll 4
  for (int r = 0; r < kRows; ++r, source += job.d) {
#pragma unroll
    for (int k = 0; k < kDepth; k += kWarp) {
      rows[r][k + lane] = r < count && k + lane < terms ? __ldg(source + k) : T(0);
    }
  }
}

// Adds the product of the terms in shared memory, for the lane's neighbouring columns.
template <typename T>
__device__ __forceinline__ void multiply(const T (&rows)[kRows][kDepth], const T (&factor)[kDepth][kColumns<T>],
                                         int lane, int depth, T (&grad)[kRows][kLane<T>]) {
  constexpr int V = kLane<T>;
#pragma unroll 1
  for (int k = 0; k < depth; k += V) {
    Pack<T, V> terms[V];
#pragma unroll
    for (int i = 0; i < V; ++i) terms[i] = load_pack<V>(&factor[k + i][lane * V]);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const Pack<T, V> row = load_pack<V>(&rows[r][k]);  // the same for all lanes: one read
#pragma unroll
      for (int i = 0; i < V; ++i) {
#pragma unroll
        for (int j = 0; j < V; ++j) grad[r][j] = fused(row.at[i], terms[i].at[j], grad[r][j]);
      }
    }
  }
}

// Passes over a tile. A lane has neighbouring columns, as packs, or one column in every 32; either way a warp's access
// to memory is one run.
template <typename T, bool kPacked>
__device__ __forceinline__ void update(const FactoredAdam<T>& job, const Constants<T>& constants,
                                       const Shared<T>& shared, int lane, int64_t row, int64_t left,
                                       const T (&grad)[kRows][kColumns<T>]) {
  const T minus_step = shared.minus_step, root_correction = shared.root_correction;
  constexpr int V = kPacked ? kLane<T> : 1;
  constexpr int kPieces = kLane<T> / V;
  using Piece = Pack<T, V>;
  const int64_t rows = job.n - row, columns = job.width - left - lane * V, first = row * job.width + left + lane * V;
  T *param = job.param + first, *average = job.average + first, *square = job.square + first;
#pragma unroll 1
  for (int r = 0; r < kRows; r += kBatch) {
    Piece p[kBatch][kPieces] = {}, m[kBatch][kPieces] = {}, v[kBatch][kPieces] = {};
    const auto each = [&](const auto& f) {
      int64_t at = 0;
#pragma unroll
      for (int b = 0; b < kBatch; ++b, at += job.width) {
#pragma unroll
        for (int i = 0; i < kPieces; ++i) {
          if (r + b < rows && i * kWarp < columns) f(b, i, at + i * kWarp);
        }
      }
    };
    each([&](int b, int i, int64_t at) {
      p[b][i] = stream_in<V>(param + at);
      m[b][i] = stream_in<V>(average + at);
      v[b][i] = stream_in<V>(square + at);
    });
    each([&](int b, int i, int64_t at) {
      const Piece g = load_pack<V>(&grad[r + b][i * kWarp + lane * V]);
#pragma unroll
      for (int j = 0; j < V; ++j) {
        adam_update(constants, minus_step, root_correction, g.at[j], p[b][i].at[j], m[b][i].at[j], v[b][i].at[j]);
      }
      stream_out(param + at, p[b][i]);
      stream_out(average + at, m[b][i]);
      stream_out(square + at, v[b][i]);
    });
    param += kBatch * job.width, average += kBatch * job.width, square += kBatch * job.width;
  }
}

// kDeep: for any d. Without it d <= kDepth, and a block reads its columns of the factor once.
template <typename T, bool kPacked, bool kDeep>
__global__ void __launch_bounds__(kThreads, kDeep ? 2 : kBlocksAtOnce)
    factored_adam_kernel(const FactoredAdam<T> job, const Constants<T> constants, int rounds) {
  constexpr int V = kLane<T>;
  SMORE_DYNAMIC_SHARED(Shared<T>, shared);
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t left = int64_t{blockIdx.x} * kColumns<T>;
  auto& tile = shared->tile[warp];

  read_step(job, *shared);
  stage_factor(job, 0, left, *shared);
  __syncthreads();

#pragma unroll 1
  for (int round = 0; round < rounds; ++round) {
    const int64_t row = ((int64_t{blockIdx.y} * rounds + round) * kWarps + warp) * kRows;
    if (!kDeep && row >= job.n) break;  // no barrier follows
    __syncwarp();
    stage_rows(job, 0, row, lane, tile.rows);
    __syncwarp();
    T grad[kRows][V] = {};
    multiply(tile.rows, shared->factor, lane, static_cast<int>(min(job.d, int64_t{kDepth})), grad);
    if constexpr (kDeep) {
#pragma unroll 1
      for (int64_t from = kDepth; job.d > kDepth && from < job.d + kDepth; from += kDepth) {
        __syncthreads();
        stage_factor(job, from < job.d ? from : 0, left, *shared);  // at last, the first terms for the next round
        __syncthreads();
        if (from >= job.d) break;
        stage_rows(job, from, row, lane, tile.rows);
        __syncwarp();
        multiply(tile.rows, shared->factor, lane, static_cast<int>(min(job.d - from, int64_t{kDepth})), grad);
      }
    }
    __syncwarp();
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      Pack<T, V> sums;
#pragma unroll
      for (int j = 0; j < V; ++j) sums.at[j] = grad[r][j];
      store_pack(&tile.grad[r][lane * V], sums);
    }
    __syncwarp();
    update<T, kPacked>(job, constants, *shared, lane, row, left, tile.grad);
  }
}

}  // namespace

template <typename T>
int adam_rounds(int64_t n, int64_t width) {
  const int64_t down = ceil_div(n, kWarps * kRows), across = ceil_div(width, kColumns<T>);
  const int64_t rounds = std::clamp<int64_t>(down * across / kBlocksWanted, 1, kMostRounds);
  return static_cast<int>(std::max(rounds, ceil_div(down, kMostRows)));
}

template <typename T>
void factored_adam(const FactoredAdam<T>& job, int rounds, cudaStream_t stream) {
  if (job.n == 0 || job.width == 0) return;
  const Constants<T> constants{static_cast<T>(1 - job.beta1), static_cast<T>(job.beta2), static_cast<T>(1 - job.beta2),
                               static_cast<T>(job.eps)};
  const dim3 grid(blocks_for(job.width, kColumns<T>), blocks_for(job.n, int64_t{rounds} * kWarps * kRows));
  const Launch at{grid, kThreads, stream, sizeof(Shared<T>)};
  if (!packs_fit<T>(job.width, job.param, job.average, job.square)) {
    SMORE_LAUNCH((factored_adam_kernel<T, false, true>), at, job, constants, rounds);
  } else if (job.d > kDepth) {
    SMORE_LAUNCH((factored_adam_kernel<T, true, true>), at, job, constants, rounds);
  } else {
    SMORE_LAUNCH((factored_adam_kernel<T, true, false>), at, job, constants, rounds);
  }
}

#define SMORE_INSTANTIATE(T)                     \
  template int adam_rounds<T>(int64_t, int64_t); \
  template void factored_adam<T>(const FactoredAdam<T>&, int, cudaStream_t);
SMORE_INSTANTIATE(float)
SMORE_INSTANTIATE(double)
#undef SMORE_INSTANTIATE

}  // namespace smore::cuda
