// Forward: two lanes a pair. Backward: a thread a pair for its slope, then a warp for 64 elements of a row of a
// gradient.
#include "neighbours/cuda/cosine_at_kernel.h"

#include "cuda/launch.cuh"
#include "neighbours/cuda/dot_double.cuh"

namespace smore::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarp;
constexpr int kElements = 2;  // of a row, a lane
constexpr int kPiece = kElements * kWarp;

template <typename T>
__device__ __forceinline__ bool known(const CosinePairs<T>& pairs, int64_t j) {
  return j >= 0 && j < pairs.m;
}

template <bool kPacked, typename T>
__global__ __launch_bounds__(kThreads) void cosine_kernel(CosinePairs<T> pairs, T* __restrict__ similarity) {
  const int64_t size = pairs.n * pairs.k, place = static_cast<int64_t>(blockIdx.x) * (kThreads / 2) + threadIdx.x / 2;
  const int64_t e = place < size ? place : size - 1, i = e / pairs.k, named = pairs.index[e];
  const int64_t j = known(pairs, named) ? named : 0;
  const int half = static_cast<int>(threadIdx.x % 2);
  const double dot =
      pairs.m > 0 ? dot_double<kPacked>(pairs.features + i * pairs.d, pairs.base + j * pairs.d, pairs.d, half) : 0.0;
  if (place >= size || half != 0) return;
  similarity[e] = j == named ? cosine<T>(dot, pairs.square[i], pairs.base_square[j], pairs.self && i == j) : T(0);
}

template <typename T>
__global__ __launch_bounds__(kThreads) void slope_kernel(CosinePairs<T> pairs, const T* __restrict__ grad,
                                                         const T* __restrict__ similarity,
                                                         CosineSlope* __restrict__ slope) {
  const int64_t e = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (e >= pairs.n * pairs.k) return;
  const int64_t i = e / pairs.k, j = pairs.index[e];
  slope[e] = known(pairs, j)
                 ? cosine_slope(grad[e], similarity[e], pairs.square[i], pairs.base_square[j], pairs.self && i == j)
                 : CosineSlope{0.0, 0.0};
}

// A warp's sums over pairs: for each element that a lane has, slope times the partner's element; and the shares. Every
// product and sum is rounded on its own, as the CPU rounds it.
template <typename T, bool kPacked>
struct Sums {
  double sum[kElements];
  double shares;

  // Where the lane's elements are: neighbours if they can be loaded as one, otherwise a warp's width apart.
  static __device__ int64_t place(int64_t at, int lane, int v) {
    return kPacked ? at + lane * kElements + v : at + v * kWarp + lane;
  }
  static __device__ void load(const T* __restrict__ row, int64_t at, int64_t d, int lane, T (&x)[kElements]) {
    if (kPacked) {
      Pack<T, kElements> pack{};
      if (place(at, lane, 0) < d) pack = load_pack<kElements>(row + place(at, lane, 0));
#pragma unroll
      for (int v = 0; v < kElements; ++v) x[v] = pack.at[v];
    } else {
#pragma unroll
      for (int v = 0; v < kElements; ++v) x[v] = place(at, lane, v) < d ? row[place(at, lane, v)] : T(0);
    }
  }

  // Pairs [begin, end) of a list. find(o, &slope, &partner): the o-th pair's slope, and the number of its partner. Each
  // lane looks one up, and all take it from there.
  template <typename F>
  __device__ void add(int64_t begin, int64_t end, const F& find, const T* __restrict__ partners, int64_t at, int64_t d,
                      int lane) {
    for (int64_t base = begin; base < end; base += kWarp) {
      CosineSlope mine{0.0, 0.0};
      int64_t partner = 0;
      if (base + lane < end) find(base + lane, &mine, &partner);
      const int count = end - base < kWarp ? static_cast<int>(end - base) : kWarp;
#pragma unroll 4
      for (int o = 0; o < count; ++o) {
        const double slope = __shfl_sync(kAllLanes, mine.slope, o);
        const double share = __shfl_sync(kAllLanes, mine.share, o);
        const long long other = __shfl_sync(kAllLanes, static_cast<long long>(partner), o);
        T x[kElements];
        load(partners + other * d, at, d, lane, x);
        shares = __dadd_rn(shares, share);
#pragma unroll
        for (int v = 0; v < kElements; ++v) {
          sum[v] = __dadd_rn(sum[v], __dmul_rn(slope, static_cast<double>(x[v])));
        }
      }
    }
  }

  __device__ void finish(const T* __restrict__ own, double square, int64_t at, int64_t d, int lane,
                         T* __restrict__ to) const {
    const double along = cosine_along(shares, square);
    T x[kElements];
    load(own, at, d, lane, x);
#pragma unroll
    for (int v = 0; v < kElements; ++v) {
      x[v] = static_cast<T>(__dsub_rn(sum[v], __dmul_rn(along, static_cast<double>(x[v]))));
    }
    if (kPacked) {
      Pack<T, kElements> pack;
#pragma unroll
      for (int v = 0; v < kElements; ++v) pack.at[v] = x[v];
      if (place(at, lane, 0) < d) store_pack(to + place(at, lane, 0), pack);
    } else {
#pragma unroll
      for (int v = 0; v < kElements; ++v) {
        if (place(at, lane, v) < d) to[place(at, lane, v)] = x[v];
      }
    }
  }
};

// kOfBase: of row j of base, otherwise of row i of the features, whose own pairs come first.
template <bool kOfBase, bool kPacked, typename T>
__global__ __launch_bounds__(kThreads, 4) void gradient_kernel(CosinePairs<T> pairs,
                                                               const CosineSlope* __restrict__ slope,
                                                               PairsByBase incoming, T* __restrict__ to) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp, d = pairs.d, k = pairs.k;
  if (row >= (kOfBase ? pairs.m : pairs.n)) return;
  const int64_t at = static_cast<int64_t>(blockIdx.y) * kPiece;
  Sums<T, kPacked> sums{};
  if (!kOfBase) {
    const auto own_pair = [&](int64_t e, CosineSlope* found, int64_t* partner) {
      *found = slope[e];
      *partner = known(pairs, pairs.index[e]) ? pairs.index[e] : 0;
    };
    if (pairs.m > 0) sums.add(row * k, (row + 1) * k, own_pair, pairs.base, at, d, lane);
  }
  if (incoming.start != nullptr) {
    const auto other_pair = [&](int64_t o, CosineSlope* found, int64_t* partner) {
      const int64_t e = incoming.order[o];
      *found = slope[e];
      *partner = e / k;
    };
    sums.add(incoming.start[row], incoming.start[row + 1], other_pair, pairs.features, at, d, lane);
  }
  const T* own = (kOfBase ? pairs.base : pairs.features) + row * d;
  sums.finish(own, kOfBase ? pairs.base_square[row] : pairs.square[row], at, d, lane, to + row * d);
}

template <bool kOfBase, typename T>
void gradient(const CosinePairs<T>& pairs, const CosineSlope* slope, const PairsByBase& incoming, T* to,
              cudaStream_t stream) {
  const dim3 grid(blocks_for(kOfBase ? pairs.m : pairs.n, kWarps), blocks_for(pairs.d, kPiece));
  const Launch at{grid, kThreads, stream};
  const auto aligned = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % (kElements * sizeof(T)) == 0; };
  if (pairs.d % kElements == 0 && aligned(pairs.features) && aligned(pairs.base) && aligned(to)) {
    SMORE_LAUNCH((gradient_kernel<kOfBase, true, T>), at, pairs, slope, incoming, to);
  } else {
    SMORE_LAUNCH((gradient_kernel<kOfBase, false, T>), at, pairs, slope, incoming, to);
  }
}

}  // namespace

template <typename T>
void cosine_at(const CosinePairs<T>& pairs, T* similarity, cudaStream_t stream) {
  const Launch at{blocks_for(pairs.n * pairs.k, kThreads / 2), kThreads, stream};
  if (packs_fit<T>(pairs.d, pairs.features, pairs.base)) {
    SMORE_LAUNCH((cosine_kernel<true, T>), at, pairs, similarity);
  } else {
    SMORE_LAUNCH((cosine_kernel<false, T>), at, pairs, similarity);
  }
}

template <typename T>
void cosine_slopes(const CosinePairs<T>& pairs, const T* grad, const T* similarity, CosineSlope* slope,
                   cudaStream_t stream) {
  SMORE_LAUNCH((slope_kernel<T>), (Launch{blocks_for(pairs.n * pairs.k, kThreads), kThreads, stream}), pairs, grad,
               similarity, slope);
}

template <typename T>
void cosine_feature_gradient(const CosinePairs<T>& pairs, const CosineSlope* slope, const PairsByBase& incoming,
                             T* grad_features, cudaStream_t stream) {
  gradient<false>(pairs, slope, pairs.self ? incoming : PairsByBase{nullptr, nullptr}, grad_features, stream);
}

template <typename T>
void cosine_base_gradient(const CosinePairs<T>& pairs, const CosineSlope* slope, const PairsByBase& incoming,
                          T* grad_base, cudaStream_t stream) {
  gradient<true>(pairs, slope, incoming, grad_base, stream);
}

#define SMORE_INSTANTIATE(T)                                                                                  \
  template void cosine_at<T>(const CosinePairs<T>&, T*, cudaStream_t);                                        \
  template void cosine_slopes<T>(const CosinePairs<T>&, const T*, const T*, CosineSlope*, cudaStream_t);      \
  template void cosine_feature_gradient<T>(const CosinePairs<T>&, const CosineSlope*, const PairsByBase&, T*, \
                                           cudaStream_t);                                                     \
  template void cosine_base_gradient<T>(const CosinePairs<T>&, const CosineSlope*, const PairsByBase&, T*,    \
                                        cudaStream_t);
SMORE_INSTANTIATE(float)
SMORE_INSTANTIATE(double)
#undef SMORE_INSTANTIATE

}  // namespace smore::cuda
