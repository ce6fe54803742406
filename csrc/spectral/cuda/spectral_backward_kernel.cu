// Backward kernel on the chip for powers of two: reads each x and each arriving gradient once, writes the gradients of
// x, and sums the filter gradients of a block's rows.
#include "spectral/cuda/spectral_rows.cuh"

namespace smore::cuda {
namespace {

// Shared memory limits float64 to as many threads as this.
template <typename T, int M>
inline constexpr int kBackwardThreads = sizeof(T) == 4 || M < 3 ? 64 : 32;

// Blocks that are to be resident on one processor, which bounds the registers.
template <typename T, int M>
constexpr int backward_resident() {
  if (sizeof(T) == 8) return M < 3 ? 6 : 12;
  return M < 3 ? 8 : 6;
}
// A fixed number, not that of the device at hand: the order of the sums follows from it.
template <typename T, int M>
inline constexpr int kBackwardBlocks = 132 * backward_resident<T, M>();

template <typename T, int D, int M>
struct BackwardShared {
  using Fft = RowFft<T, D>;
  static constexpr int kThreads = kBackwardThreads<T, M>;
  static constexpr int kColumn = kThreads + (Fft::kThreads < 16 ? Fft::kThreads : 0);  // distance of a thread's sums
  static constexpr bool kSpectra = sizeof(T) == 8;  // spectra of x are kept here, as registers do not suffice
  static constexpr int numbers(int filters) {
    return SpectralShared<T, D>::numbers(kThreads, filters) + filters * Fft::kBins * kColumn +
           (kSpectra ? M * Fft::kBins * kThreads : 0);
  }
};

// A thread's bins of some spectra that wait for their use, in registers or in shared memory. In registers, the ninth
// bin of thread 0 has the place of the imaginary parts of its bins 0 and d/2, which are zero.
template <typename T, int Count, int Threads, bool Shared>
class HeldBins {
 public:
  __device__ HeldBins(Complex<T>* shared, bool zero) : shared_(Shared ? shared + threadIdx.x : nullptr), zero_(zero) {}
  __device__ __forceinline__ void put(int m, const Complex<T> (&bins)[9]) {
    if constexpr (Shared) {
#pragma unroll
      for (int i = 0; i < 9; ++i) shared_[(m * 9 + i) * Threads] = bins[i];
    } else {
#pragma unroll
      for (int i = 0; i < 8; ++i) own_[m][i] = bins[i];
      own_[m][0].im = zero_ ? bins[8].re : bins[0].im;
      own_[m][4].im = zero_ ? bins[8].im : bins[4].im;
    }
  }
  __device__ __forceinline__ Complex<T> get(int m, int i) const {
    if constexpr (Shared) {
      return shared_[(m * 9 + i) * Threads];
    } else {
      if (i == 8) return {own_[m][0].im, own_[m][4].im};
      return {own_[m][i].re, i % 4 == 0 && zero_ ? T(0) : own_[m][i].im};
    }
  }

 private:
  Complex<T>* const shared_;
  const bool zero_;
  Complex<T> own_[Shared ? 1 : Count][8];
};

template <typename T, int D, int M>
__global__ void __launch_bounds__(kBackwardThreads<T, M>, backward_resident<T, M>())
    spectral_rows_backward_kernel(const __grid_constant__ SpectralRowsBackward<T> job, const SpectralScales scales,
                                  const bool vector) {
  using Fft = RowFft<T, D>;
  using Memory = BackwardShared<T, D, M>;
  constexpr int kThreads = Memory::kThreads, kRows = kThreads / Fft::kThreads, kColumn = Memory::kColumn;
  constexpr int kBins = Fft::kBins;
  SMORE_DYNAMIC_SHARED(Complex<T>, memory);
  const unsigned warp = threadIdx.x / kWarp;
  const bool fused = M > 1 || job.grad_y[M] != nullptr;
  const int filters = M + (fused ? 1 : 0);
  const bool filtered = job.grad_y[0] != nullptr;
  const SpectralShared<T, D> shared(memory, kThreads, filters);
  Complex<T>* const sums = shared.rest;
  const Fft fft(shared.twiddles, shared.exchange + warp * Fft::kSpace);
  const int t = fft.thread();
  HeldBins<T, M, kThreads, Memory::kSpectra> x(sums + filters * kBins * kColumn, t == 0);
  HeldBins<T, 1, kThreads, false> common(nullptr, t == 0);  // conj(fusion filter) * spectrum of its gradient
  const auto add_to_sum = [&](int f, int i, Complex<T> a, Complex<T> b) {
    Complex<T>& sum = sums[(f * kBins + i) * kColumn + static_cast<int>(threadIdx.x)];
    sum = correlate_add(sum, a, b);
  };

  for (int i = 0; i < filters * kBins; ++i) sums[i * kColumn + static_cast<int>(threadIdx.x)] = {0, 0};
  const auto tiles = WarpTiles<Fft::kRows>(job.n);
  const unsigned step = kThreads / kWarp * gridDim.x;
  unsigned tile = kThreads / kWarp * blockIdx.x + warp;
  constexpr bool kAhead = sizeof(T) == 4 && M < 3;  // for more, registers do not suffice
  Complex<T> next[8];
  if constexpr (kAhead) fft.fetch(job.x[0] + tiles.first(tile) * D, tiles.valid(tile), vector, next);
  shared.fill(job.weight, static_cast<int>(job.kept), M, filters, scales.filter, scales.fusion);
  for (; tile < tiles.count(); tile += step) {
    Complex<T> z[8], g[kBins];
    // The spectrum of `array`, while what follows is on its way. The barriers keep the compiler from moving loads up to
    // where no registers are left for them.
    const auto spectrum = [&](const T* array, const T* following, unsigned following_tile) {
      __syncwarp();
      if constexpr (kAhead) {
#pragma unroll
        for (int i = 0; i < 8; ++i) z[i] = next[i];
      } else {
        fft.fetch(array + tiles.first(tile) * D, tiles.valid(tile), vector, z);
      }
      fft.arrange(z);
      if constexpr (kAhead) {
        fft.fetch(following + tiles.first(following_tile) * D, tiles.valid(following_tile), vector, next);
      }
      fft.forward(z, g);
      __syncwarp();
    };
#pragma unroll
    for (int m = 0; m < M; ++m) {
      spectrum(job.x[m], m + 1 < M ? job.x[m + 1] : job.grad_y[fused ? M : 0], tile);
      x.put(m, g);
    }
    if (fused) {
      spectrum(job.grad_y[M], filtered ? job.grad_y[0] : job.x[0], filtered ? tile : tile + step);
      const Complex<T>* filter = shared.filter(M, t);
#pragma unroll
      for (int i = 0; i < kBins; ++i) {
        if (i == kBins - 1 && t > 0) break;
        Complex<T> product = x.get(0, i);
#pragma unroll
        for (int m = 1; m < M; ++m) product = product * x.get(m, i);
        add_to_sum(M, i, product, g[i]);
        g[i] = correlate(filter[i], g[i]);
      }
      common.put(0, g);
    }
#pragma unroll
    for (int m = 0; m < M; ++m) {
      if (filtered) {
        spectrum(job.grad_y[m], m + 1 < M ? job.grad_y[m + 1] : job.x[0], m + 1 < M ? tile : tile + step);
      } else {
#pragma unroll
        for (int i = 0; i < kBins; ++i) g[i] = {0, 0};
      }
      const Complex<T>* filter = shared.filter(m, t);
#pragma unroll
      for (int i = 0; i < kBins; ++i) {
        if (i == kBins - 1 && t > 0) break;
        Complex<T> sum{0, 0};
        if (filtered) {
          add_to_sum(m, i, x.get(m, i), g[i]);
          sum = correlate(filter[i], g[i]);
        }
        if (fused) {
          Complex<T> part = common.get(0, i);
#pragma unroll
          for (int j = 0; j < M; ++j) {
            if (j != m) part = correlate(x.get(j, i), part);
          }
          sum = sum + part;
        }
        g[i] = sum;
      }
      fft.inverse(g, z);
      fft.store(z, job.grad_x[m] + tiles.first(tile) * D, tiles.valid(tile), vector);
    }
  }

  // Sums over the block's rows, from the first to the last.
  __syncthreads();
  const int bins = D / 2 + 1;
  for (int i = static_cast<int>(threadIdx.x); i < filters * kBins * Fft::kThreads; i += kThreads) {
    const int thread = i % Fft::kThreads, bin = i / Fft::kThreads % kBins, f = i / Fft::kThreads / kBins;
    if (bin == kBins - 1 && thread > 0) continue;
    const Complex<T>* column = sums + (f * kBins + bin) * kColumn + thread;
    double re = 0, im = 0;
    for (int row = 0; row < kRows; ++row) {
      const Complex<T> sum = column[row * Fft::kThreads];
      re += static_cast<double>(sum.re), im += static_cast<double>(sum.im);
    }
    double* to = job.partial + ((int64_t{blockIdx.x} * filters + f) * bins + Fft::bin(thread, bin)) * 2;
    to[0] = re, to[1] = im;
  }
}

template <typename T, int D, int M>
void launch_backward(const SpectralRowsBackward<T>& job, cudaStream_t stream) {
  using Memory = BackwardShared<T, D, M>;
  using Fft = RowFft<T, D>;
  const bool fused = job.grad_y[M] != nullptr;
  const int filters = M + (fused ? 1 : 0);
  bool vector = true;
  for (int m = 0; m < filters; ++m) vector &= aligned(job.grad_y[m], Fft::kVectorBytes);
  for (int m = 0; m < M; ++m) {
    vector &= aligned(job.x[m], Fft::kVectorBytes) && aligned(job.grad_x[m], Fft::kVectorBytes);
  }
  const SpectralScales scales(D, M, 2);
  const auto blocks = static_cast<unsigned>(spectral_rows_partials<T>(job.n, D, M));
  const size_t bytes = sizeof(Complex<T>) * static_cast<size_t>(Memory::numbers(filters));
  SMORE_LAUNCH((spectral_rows_backward_kernel<T, D, M>), (Launch{blocks, Memory::kThreads, stream, bytes}), job, scales,
               vector);
  spectral_reduce(job.partial, int64_t{blocks}, D, job.kept, M, fused, scales, job.grad_weight, stream);
}

template <typename T, typename F>
void for_modalities(int modalities, const F& f) {
  if (modalities == 1) return f(std::integral_constant<int, 1>());
  if (modalities == 2) return f(std::integral_constant<int, 2>());
  if (modalities == 3) return f(std::integral_constant<int, 3>());
  throw std::invalid_argument("smore_ext: no spectral kernel on the chip for " + std::to_string(modalities) +
                              " modalities");
}

}  // namespace

template <typename T>
int64_t spectral_rows_partials(int64_t n, int64_t d, int modalities) {
  int64_t blocks = 0;
  for_modalities<T>(modalities, [&](auto m) {
    constexpr int M = decltype(m)::value;
    blocks = even_blocks(ceil_div(n, int64_t{kBackwardThreads<T, M>} * 16 / d), kBackwardBlocks<T, M>);
  });
  return blocks;
}

template <typename T>
void spectral_rows_backward(const SpectralRowsBackward<T>& job, cudaStream_t stream) {
  for_width(job.d, [&](auto width) {
    for_modalities<T>(job.modalities,
                      [&](auto m) { launch_backward<T, decltype(width)::value, decltype(m)::value>(job, stream); });
  });
}

#define SMORE_INSTANTIATE(T)                                         \
  template int64_t spectral_rows_partials<T>(int64_t, int64_t, int); \
  template void spectral_rows_backward(const SpectralRowsBackward<T>&, cudaStream_t);
SMORE_INSTANTIATE(float)
SMORE_INSTANTIATE(double)
#undef SMORE_INSTANTIATE

}  // namespace smore::cuda
