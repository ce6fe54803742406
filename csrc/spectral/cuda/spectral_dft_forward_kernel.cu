// Forward kernel on the chip by definition, for small widths and few bins: reads each of the M arrays once, writes the
// M filtered ones and the fused one.
#include "common/host_device.h"
#include "spectral/cuda/spectral_dft.cuh"

namespace smore::cuda {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / kWarp;
// Blocks resident at a time on one processor, which bounds the registers, and on the 132 processors of an H100.
constexpr int kResident = 4, kBlocks = 132 * kResident;

// Numbers of a warp: its tile, a spectrum between windows and, for the fusion, the product of the spectra.
template <typename Dft>
SMORE_HOST_DEVICE constexpr int forward_numbers(bool fused) {
  return Dft::kTile + Dft::kSaved + (fused ? Dft::kKept : 0);
}

template <typename T, int Width, bool Windows>
__global__ void __launch_bounds__(kThreads, kResident)
    spectral_dft_forward_kernel(const __grid_constant__ SpectralRowsForward<T> job, const SpectralScales scales) {
  using Dft = RowDft<T, Width, Windows>;
  SMORE_DYNAMIC_SHARED(T, memory);
  const int M = job.modalities, d = static_cast<int>(job.d), kept = static_cast<int>(job.kept);
  const unsigned warp = threadIdx.x / kWarp;
  const bool fused = job.y[M] != nullptr;
  const int outputs = M + (fused ? 1 : 0);
  const DftShared<T, Width, Windows> shared(memory, outputs);
  T* const own = shared.warps + warp * static_cast<unsigned>(forward_numbers<Dft>(fused));
  T* const saved = own + Dft::kTile;
  T* const product = saved + Dft::kSaved;
  const Dft dft(shared.table, own, saved, d, kept);
  const auto tiles = WarpTiles<Dft::kRows>(job.n);
  shared.fill(d, kept, job.weight, M, outputs, scales);
  for (unsigned tile = kWarps * blockIdx.x + warp; tile < tiles.count(); tile += kWarps * gridDim.x) {
    for (int m = 0; m < outputs; ++m) {
      Complex<T> bins[Dft::kBins];
      if (m < M) {
        dft.template transform<kFullPack<T>>(job.x[m] + tiles.first(tile) * d, tiles.valid(tile), bins);
        if (fused && m == 0) dft.keep(product, bins);
        if (fused && m > 0) {
#pragma unroll
          for (int i = 0; i < Dft::kBins; i += Dft::kKeptPack) {
            auto pack = dft.kept(product, i);
#pragma unroll
            for (int v = 0; v < Dft::kKeptPack; ++v) pack.at[v] = pack.at[v] * bins[i + v];
            store_pack(dft.kept_at(product, i), pack);
          }
        }
      } else {
        dft.recall(product, bins);
      }
      if (job.y[m] == nullptr) {
        __syncwarp();  // before the tile has the next array
        continue;
      }
#pragma unroll
      for (int k = 0; k < Dft::kEach; k += Dft::kKeptPack) {
        const auto filter = dft.filter(shared.filter(m), k);
#pragma unroll
        for (int i = k; i < Dft::kBins; i += Dft::kEach) {
#pragma unroll
          for (int v = 0; v < Dft::kKeptPack; ++v) bins[i + v] = bins[i + v] * filter.at[v];
        }
      }
      dft.template invert<kFullPack<T>>(bins, job.y[m] + tiles.first(tile) * d, tiles.valid(tile));
    }
  }
}

}  // namespace

template <typename T>
void spectral_dft_forward(const SpectralRowsForward<T>& job, cudaStream_t stream) {
  for_dft_width(job.d, job.kept, job.modalities, [&](auto width, auto windows) {
    constexpr int kWidth = decltype(width)::value;
    constexpr bool kWindows = decltype(windows)::value;
    using Dft = RowDft<T, kWidth, kWindows>;
    const int M = job.modalities;
    const bool fused = job.y[M] != nullptr;
    const int numbers =
        DftShared<T, kWidth, kWindows>::numbers(M + (fused ? 1 : 0), kWarps, forward_numbers<Dft>(fused));
    const unsigned blocks = even_blocks(ceil_div(job.n, int64_t{kWarps * Dft::kRows}), kBlocks);
    SMORE_LAUNCH((spectral_dft_forward_kernel<T, kWidth, kWindows>),
                 (Launch{blocks, kThreads, stream, sizeof(T) * static_cast<size_t>(numbers)}), job,
                 SpectralScales(job.d, M, 1));
  });
}

template void spectral_dft_forward(const SpectralRowsForward<float>&, cudaStream_t);
template void spectral_dft_forward(const SpectralRowsForward<double>&, cudaStream_t);

}  // namespace smore::cuda
