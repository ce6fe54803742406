// Forward kernel on the chip for powers of two: reads each of the M arrays once, writes the M filtered ones and the
// fused one.
#include "spectral/cuda/spectral_rows.cuh"

namespace smore::cuda {
namespace {

template <typename T>
inline constexpr int kForwardThreads = sizeof(T) == 4 ? 128 : 64;
// Blocks resident at a time on one processor, which bounds the registers, and on the 132 processors of an H100.
template <typename T, int D>
inline constexpr int kForwardResident = sizeof(T) == 8 ? 6
                                        : D < 256      ? 5
                                                       : 4;
template <typename T, int D>
inline constexpr int kForwardBlocks = 132 * kForwardResident<T, D>;

template <typename T, int D>
__global__ void __launch_bounds__(kForwardThreads<T>, kForwardResident<T, D>)
    spectral_rows_forward_kernel(const __grid_constant__ SpectralRowsForward<T> job, const SpectralScales scales,
                                 const bool vector) {
  using Fft = RowFft<T, D>;
  SMORE_DYNAMIC_SHARED(Complex<T>, memory);
  const int M = job.modalities;
  const unsigned warp = threadIdx.x / kWarp;
  const bool fused = job.y[M] != nullptr;
  const SpectralShared<T, D> shared(memory, kForwardThreads<T>, M + (fused ? 1 : 0));
  const Fft fft(shared.twiddles, shared.exchange + warp * Fft::kSpace);
  const auto tiles = WarpTiles<Fft::kRows>(job.n);
  const unsigned step = kForwardThreads<T> / kWarp * gridDim.x;
  unsigned tile = kForwardThreads<T> / kWarp * blockIdx.x + warp;

  // The rows that are wanted after those at work are always under way; in float64 registers do not suffice for that.
  constexpr bool kAhead = sizeof(T) == 4;
  Complex<T> next[8];
  if constexpr (kAhead) fft.fetch(job.x[0] + tiles.first(tile) * D, tiles.valid(tile), vector, next);
  shared.fill(job.weight, static_cast<int>(job.kept), M, M + (fused ? 1 : 0), scales.filter, scales.fusion);
  for (; tile < tiles.count(); tile += step) {
    Complex<T> product[Fft::kBins];
    for (int m = 0; m < M + (fused ? 1 : 0); ++m) {
      Complex<T> z[8], bins[Fft::kBins];
      if (m < M) {
        if constexpr (kAhead) {
#pragma unroll
          for (int i = 0; i < 8; ++i) z[i] = next[i];
        } else {
          fft.fetch(job.x[m] + tiles.first(tile) * D, tiles.valid(tile), vector, z);
        }
        fft.arrange(z);
        if constexpr (kAhead) {
          const bool same = m + 1 < M;
          const unsigned following = same ? tile : tile + step;
          fft.fetch(job.x[same ? m + 1 : 0] + tiles.first(following) * D, tiles.valid(following), vector, next);
        }
        fft.forward(z, bins);
        __syncwarp();
#pragma unroll
        for (int i = 0; i < Fft::kBins; ++i) product[i] = m == 0 ? bins[i] : product[i] * bins[i];
      } else {
#pragma unroll
        for (int i = 0; i < Fft::kBins; ++i) bins[i] = product[i];
      }
      if (job.y[m] == nullptr) continue;
      const Complex<T>* filter = shared.filter(m, fft.thread());
#pragma unroll
      for (int i = 0; i < Fft::kBins; ++i) bins[i] = bins[i] * filter[i];
      fft.inverse(bins, z);
      fft.store(z, job.y[m] + tiles.first(tile) * D, tiles.valid(tile), vector);
    }
  }
}

}  // namespace

template <typename T>
void spectral_rows_forward(const SpectralRowsForward<T>& job, cudaStream_t stream) {
  for_width(job.d, [&](auto width) {
    constexpr int D = decltype(width)::value, kThreads = kForwardThreads<T>;
    using Fft = RowFft<T, D>;
    const int M = job.modalities, filters = M + (job.y[M] != nullptr ? 1 : 0);
    bool vector = true;
    for (int m = 0; m < filters; ++m) vector &= aligned(job.y[m], Fft::kVectorBytes);  // null is
    for (int m = 0; m < M; ++m) vector &= aligned(job.x[m], Fft::kVectorBytes);
    const size_t bytes = sizeof(Complex<T>) * static_cast<size_t>(SpectralShared<T, D>::numbers(kThreads, filters));
    const unsigned blocks = even_blocks(ceil_div(job.n, int64_t{kThreads / Fft::kThreads}), kForwardBlocks<T, D>);
    SMORE_LAUNCH((spectral_rows_forward_kernel<T, D>), (Launch{blocks, kThreads, stream, bytes}), job,
                 SpectralScales(D, M, 2), vector);
  });
}

template void spectral_rows_forward(const SpectralRowsForward<float>&, cudaStream_t);
template void spectral_rows_forward(const SpectralRowsForward<double>&, cudaStream_t);

}  // namespace smore::cuda
