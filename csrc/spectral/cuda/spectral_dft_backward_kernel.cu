// Backward kernel on the chip by definition, for small widths and few bins: reads each x and each arriving gradient
// once, writes the gradients of x, and sums the filter gradients of a block's rows.
#include "common/host_device.h"
#include "spectral/cuda/spectral_dft.cuh"

namespace smore::cuda {
namespace {

// In float64 the tables leave less shared memory.
template <typename T>
inline constexpr int kThreads = sizeof(T) == 4 ? 64 : 32;
// Blocks resident at a time on one processor: what shared memory allows. It makes a fixed number of blocks, not that of
// the device at hand: the order of the sums follows from it.
constexpr int64_t backward_blocks(int modalities) { return 132 * (modalities == 1 ? 6 : modalities == 2 ? 5 : 4); }

// Numbers of a warp: its tile, a spectrum between windows, the fused gradient's if windows leave no registers for it,
// the spectra of x, and the sums of its lanes.
template <typename Dft>
SMORE_HOST_DEVICE constexpr int backward_numbers(int modalities, int filters) {
  return Dft::kTile + 2 * Dft::kSaved + modalities * Dft::kKept + filters * Dft::kSums;
}

template <typename T, int Width, bool Windows>
__global__ void __launch_bounds__(kThreads<T>, (Windows && sizeof(T) == 8 ? 384 : 512) / kThreads<T>)
    spectral_dft_backward_kernel(const __grid_constant__ SpectralRowsBackward<T> job, const SpectralScales scales) {
  using Dft = RowDft<T, Width, Windows>;
  constexpr int kBins = Dft::kBins, kEach = Dft::kEach, kPack = Dft::kKeptPack;
  constexpr unsigned kWarps = kThreads<T> / kWarp;
  SMORE_DYNAMIC_SHARED(T, memory);
  const int M = job.modalities, d = static_cast<int>(job.d), kept = static_cast<int>(job.kept);
  const unsigned warp = threadIdx.x / kWarp;
  const bool fused = job.grad_y[M] != nullptr, filtered = job.grad_y[0] != nullptr;
  const int filters = M + (fused ? 1 : 0), numbers = backward_numbers<Dft>(M, filters);
  const DftShared<T, Width, Windows> shared(memory, filters);
  T* const own = shared.warps + warp * static_cast<unsigned>(numbers);
  T* const saved = own + Dft::kTile;
  T* const held = saved + Dft::kSaved;
  T* const spectra = held + Dft::kSaved;
  T* const sums = spectra + M * Dft::kKept;
  const Dft dft(shared.table, own, saved, d, kept);
  const auto tiles = WarpTiles<Dft::kRows>(job.n);
  const auto spectrum = [&](const T* array, unsigned tile, Complex<T>(&bins)[kBins]) {
    __syncwarp();
    dft.template transform<kFullPack<T> / 2>(array + tiles.first(tile) * d, tiles.valid(tile), bins);
  };
  // A pack of bins from bin i of the spectrum of x[m].
  const auto x = [&](int m, int i) { return dft.kept(spectra + m * Dft::kKept, i); };

  shared.fill(d, kept, job.weight, M, filters, scales);
  const Complex<T> zeros[kEach] = {};
  for (int f = 0; f < filters; ++f) dft.keep(sums + f * Dft::kSums, zeros);
  for (unsigned tile = kWarps * blockIdx.x + warp; tile < tiles.count(); tile += kWarps * gridDim.x) {
    Complex<T> g[kBins], common[kBins];  // common: conj(fusion filter) * spectrum of its gradient
    for (int m = 0; m < M; ++m) {
      spectrum(job.x[m], tile, g);
      dft.keep(spectra + m * Dft::kKept, g);
    }
    if (fused) {
      spectrum(job.grad_y[M], tile, g);
#pragma unroll
      for (int k = 0; k < kEach; k += kPack) {
        const auto filter = dft.filter(shared.filter(M), k);
        auto sum = dft.kept(sums + M * Dft::kSums, k);
#pragma unroll
        for (int i = k; i < kBins; i += kEach) {
          auto product = x(0, i);
#pragma unroll 1
          for (int m = 1; m < M; ++m) {
            const auto factor = x(m, i);
#pragma unroll
            for (int v = 0; v < kPack; ++v) product.at[v] = product.at[v] * factor.at[v];
          }
#pragma unroll
          for (int v = 0; v < kPack; ++v) {
            sum.at[v] = correlate_add(sum.at[v], product.at[v], g[i + v]);
            product.at[v] = correlate(filter.at[v], g[i + v]);
            if constexpr (!Windows) common[i + v] = product.at[v];
          }
          if constexpr (Windows) store_pack(dft.kept_at(held, i), product);
        }
        store_pack(dft.kept_at(sums + M * Dft::kSums, k), sum);
      }
    }
    for (int m = 0; m < M; ++m) {
      if (filtered) {
        spectrum(job.grad_y[m], tile, g);
      } else {
#pragma unroll
        for (int i = 0; i < kBins; ++i) g[i] = {0, 0};
      }
#pragma unroll
      for (int k = 0; k < kEach; k += kPack) {
        const auto filter = dft.filter(shared.filter(m), k);
        auto sum = dft.kept(sums + m * Dft::kSums, k);
#pragma unroll
        for (int i = k; i < kBins; i += kEach) {
          const auto own_x = x(m, i);
#pragma unroll
          for (int v = 0; filtered && v < kPack; ++v) {
            sum.at[v] = correlate_add(sum.at[v], own_x.at[v], g[i + v]);
            g[i + v] = correlate(filter.at[v], g[i + v]);
          }
          if (!fused) continue;
          Complex<T> part[kPack];
          if constexpr (Windows) {
            const auto pack = dft.kept(held, i);
#pragma unroll
            for (int v = 0; v < kPack; ++v) part[v] = pack.at[v];
          } else {
#pragma unroll
            for (int v = 0; v < kPack; ++v) part[v] = common[i + v];
          }
#pragma unroll 1
          for (int j = 0; j < M; ++j) {
            if (j == m) continue;
            const auto factor = x(j, i);
#pragma unroll
            for (int v = 0; v < kPack; ++v) part[v] = correlate(factor.at[v], part[v]);
          }
#pragma unroll
          for (int v = 0; v < kPack; ++v) g[i + v] = g[i + v] + part[v];
        }
        store_pack(dft.kept_at(sums + m * Dft::kSums, k), sum);
      }
      dft.template invert<kFullPack<T> / 2>(g, job.grad_x[m] + tiles.first(tile) * d, tiles.valid(tile));
    }
  }

  // Sums over the block's rows, in a fixed order.
  __syncthreads();
  const int bins = d / 2 + 1;
  for (int i = static_cast<int>(threadIdx.x); i < filters * kept; i += kThreads<T>) {
    const int f = i / kept, k = i % kept;
    double re = 0, im = 0;
    for (int w = 0; w < static_cast<int>(kWarps); ++w) {
      T* const of_warp = shared.warps + w * numbers + Dft::kTile + 2 * Dft::kSaved + M * Dft::kKept + f * Dft::kSums;
      for (int r = 0; r < Dft::kRowGroups; ++r) {
        const Complex<T> sum = *Dft::kept_at(of_warp, k % kEach, Dft::lane_of(r, k / kEach));
        re += static_cast<double>(sum.re), im += static_cast<double>(sum.im);
      }
    }
    double* to = job.partial + ((int64_t{blockIdx.x} * filters + f) * bins + k) * 2;
    to[0] = re, to[1] = im;
  }
}

}  // namespace

template <typename T>
int64_t spectral_dft_partials(int64_t n, int64_t d, int64_t kept, int modalities) {
  int64_t blocks = 0;
  for_dft_width(d, kept, modalities, [&](auto width, auto windows) {
    using Dft = RowDft<T, decltype(width)::value, decltype(windows)::value>;
    blocks = even_blocks(ceil_div(n, int64_t{kThreads<T> / kWarp * Dft::kRows}), backward_blocks(modalities));
  });
  return blocks;
}

template <typename T>
void spectral_dft_backward(const SpectralRowsBackward<T>& job, cudaStream_t stream) {
  for_dft_width(job.d, job.kept, job.modalities, [&](auto width, auto windows) {
    constexpr int kWidth = decltype(width)::value;
    constexpr bool kWindows = decltype(windows)::value;
    using Dft = RowDft<T, kWidth, kWindows>;
    const int M = job.modalities;
    const bool fused = job.grad_y[M] != nullptr;
    const int filters = M + (fused ? 1 : 0);
    const SpectralScales scales(job.d, M, 1);
    const auto blocks = static_cast<unsigned>(spectral_dft_partials<T>(job.n, job.d, job.kept, M));
    const int numbers =
        DftShared<T, kWidth, kWindows>::numbers(filters, kThreads<T> / kWarp, backward_numbers<Dft>(M, filters));
    SMORE_LAUNCH((spectral_dft_backward_kernel<T, kWidth, kWindows>),
                 (Launch{blocks, kThreads<T>, stream, sizeof(T) * static_cast<size_t>(numbers)}), job, scales);
    spectral_reduce(job.partial, int64_t{blocks}, job.d, job.kept, M, fused, scales, job.grad_weight, stream);
  });
}

#define SMORE_INSTANTIATE(T)                                                 \
  template int64_t spectral_dft_partials<T>(int64_t, int64_t, int64_t, int); \
  template void spectral_dft_backward(const SpectralRowsBackward<T>&, cudaStream_t);
SMORE_INSTANTIATE(float)
SMORE_INSTANTIATE(double)
#undef SMORE_INSTANTIATE

}  // namespace smore::cuda
