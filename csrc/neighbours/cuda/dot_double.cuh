// Dot products in double, bit for bit those of the CPU (neighbours/cpu/dot_double.inl).
#pragma once

#include "cuda/pack.cuh"

namespace smore::cuda {

// Products of floats are exact in double, so that fused and separate additions agree; for doubles the CPU rounds each.
__device__ __forceinline__ double add_product(float a, float b, double sum) {
  return fma(static_cast<double>(a), static_cast<double>(b), sum);
}
__device__ __forceinline__ double add_product(double a, double b, double sum) {
  return __dadd_rn(sum, __dmul_rn(a, b));
}

// By two neighbouring lanes: element j goes to partial sum j mod 8, and lane `half` of the pair holds sums 4 half to
// 4 half + 3. Both lanes get the result. Called by whole warps.
template <bool kPacked, typename T>
__device__ __forceinline__ double dot_double(const T* __restrict__ a, const T* __restrict__ b, int64_t d, int half) {
  constexpr int P = kPacked ? kFullPack<T> : 1;
  // Steps whose loads are in flight: 64 bytes of each row. Only nvcc unrolls.
  [[maybe_unused]] constexpr int kAhead = 16 / static_cast<int>(sizeof(T));
  double sum[4] = {0, 0, 0, 0};
  const int64_t whole = d & ~int64_t{7};
#pragma unroll kAhead
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

}  // namespace smore::cuda
