// What the forward and the backward kernel for powers of two share: shared memory of a block and its tables.
#pragma once

#include <type_traits>

#include "cuda/row_fft.cuh"
#include "spectral/cuda/spectral_kernel.h"
#include "spectral/cuda/spectral_tiles.cuh"

namespace smore::cuda {

// Shared memory: an exchange for each warp, twiddle factors, and each filter in the order of the threads' bins.
template <typename T, int D>
struct SpectralShared {
  using Fft = RowFft<T, D>;
  static constexpr int kFilter = Fft::kThreads * Fft::kBins;

  static constexpr int numbers(int threads, int filters) {
    return threads / kWarp * Fft::kSpace + Fft::kTable + filters * kFilter;
  }

  Complex<T>* exchange;
  Complex<T>* twiddles;
  Complex<T>* filters;
  Complex<T>* rest;  // what a kernel has beyond these

  __device__ SpectralShared(Complex<T>* shared, int threads, int count)
      : exchange(shared),
        twiddles(exchange + threads / kWarp * Fft::kSpace),
        filters(twiddles + Fft::kTable),
        rest(filters + count * kFilter) {}

  // The filters that there are, times their scale; the imaginary parts of bins 0 and d/2 are left out, and bins that
  // are not kept. Ends with a barrier.
  __device__ void fill(const T* const* weight, int kept, int modalities, int count, double filter,
                       double fusion) const {
    for (int i = static_cast<int>(threadIdx.x); i < Fft::kTable; i += static_cast<int>(blockDim.x)) {
      twiddles[i] = Fft::twiddle(i);
    }
    for (int f = 0; f < count; ++f) {
      const double scale = f < modalities ? filter : fusion;
      if (weight[f] == nullptr) continue;
      for (int i = static_cast<int>(threadIdx.x); i < kFilter; i += static_cast<int>(blockDim.x)) {
        const int k = Fft::bin(i / Fft::kBins, i % Fft::kBins);
        const T re = static_cast<T>(weight[f][2 * k] * scale), im = static_cast<T>(weight[f][2 * k + 1] * scale);
        filters[f * kFilter + i] = {k < kept ? re : T(0), k < kept && k % (D / 2) != 0 ? im : T(0)};
      }
    }
    __syncthreads();
  }

  // This thread's bins of filter f.
  __device__ __forceinline__ const Complex<T>* filter(int f, int thread) const {
    return filters + f * kFilter + thread * Fft::kBins;
  }
};

inline bool aligned(const void* p, size_t bytes) { return reinterpret_cast<uintptr_t>(p) % bytes == 0; }

// Runs f(std::integral_constant<int, d>()) for the widths that have kernels.
template <typename F>
void for_width(int64_t d, const F& f) {
  switch (d) {
    case 16:
      return f(std::integral_constant<int, 16>());
    case 32:
      return f(std::integral_constant<int, 32>());
    case 64:
      return f(std::integral_constant<int, 64>());
    case 128:
      return f(std::integral_constant<int, 128>());
    case 256:
      return f(std::integral_constant<int, 256>());
    case 512:
      return f(std::integral_constant<int, 512>());
    default:
      throw std::invalid_argument("smore_ext: no fast transform on the chip for width " + std::to_string(d));
  }
}

}  // namespace smore::cuda
