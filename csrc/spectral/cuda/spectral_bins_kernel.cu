// What lies between the transforms where cuFFT makes them: filters and the fusion's product, their gradients, and for
// every way the last sums of the filter gradients.
#include <cmath>

#include "cuda/complex.cuh"
#include "cuda/launch.cuh"
#include "spectral/cuda/spectral_kernel.h"

namespace smore::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kBlocks = 132 * 8;  // resident at a time on the 132 processors of an H100; fixed, as sums depend on it

template <typename T>
__device__ __host__ inline Complex<T>* complex(T* numbers) {
  return reinterpret_cast<Complex<T>*>(numbers);
}
template <typename T>
__device__ __host__ inline const Complex<T>* complex(const T* numbers) {
  return reinterpret_cast<const Complex<T>*>(numbers);
}

// Filters of `bins` bins with their scales, read where they lie.
template <typename T>
struct Filters {
  SpectralFilters<T> arrays;
  int64_t d, kept, modalities;
  bool filtered;     // or the fusion's filter is all there is
  T filter, fusion;  // scales

  __device__ __forceinline__ Complex<T> at(int64_t f, int64_t k) const {
    if (k >= kept) return {0, 0};
    const int64_t bins = d / 2 + 1, place = filtered ? f : 0;
    const T* w = (arrays.together != nullptr ? arrays.together + place * bins * 2 : arrays.each[place]) + 2 * k;
    const T scale = f < modalities ? filter : fusion;
    return {w[0] * scale, k == 0 || 2 * k == d ? T(0) : w[1] * scale};
  }
};

template <typename T>
__global__ void __launch_bounds__(kThreads)
    spectral_filter_bins(const __grid_constant__ Filters<T> filters, const int64_t total, const bool fused,
                         Complex<T>* const spectra) {
  const int64_t bins = filters.d / 2 + 1, M = filters.modalities, step = int64_t{kThreads} * gridDim.x;
  const int64_t turn = step % bins;  // how far the bin moves at each step
  int64_t at = int64_t{kThreads} * blockIdx.x + threadIdx.x;
  for (int64_t k = at % bins; at < total; at += step) {
    Complex<T> product{1, 0};
    for (int64_t m = 0; m < M; ++m) {
      const Complex<T> s = spectra[m * total + at];
      product = m == 0 ? s : product * s;
      if (filters.filtered) spectra[m * total + at] = s * filters.at(m, k);
    }
    if (fused) spectra[M * total + at] = product * filters.at(M, k);
    k += turn;
    if (k >= bins) k -= bins;
  }
}

// Bins of a block: all of them, or for long rows a stretch of so many.
__device__ __host__ inline int block_bins(int64_t d) {
  const int64_t bins = d / 2 + 1;
  return bins < kThreads ? static_cast<int>(bins) : kThreads;
}

// A thread has one bin of every so-manieth row of its block's range of rows [n / partials]. M = 0 takes any number of
// modalities: each part of the grid's z makes one filter's gradient and reads what it needs of the others again.
template <typename T, int M>
__global__ void __launch_bounds__(kThreads, M == 3 && sizeof(T) == 4 ? 3 : 2)
    spectral_gradient_bins(const __grid_constant__ SpectralBinsBackward<T> job,
                           const __grid_constant__ Filters<T> filters, const int64_t rows) {
  SMORE_SHARED(Complex<T>, slots, [kThreads]);
  const Complex<T>* const spectra = complex(job.spectra);
  Complex<T>* const gradients = complex(job.gradients);
  const bool filtered = job.filtered, fused = job.fused;
  const int64_t n = job.n, bins = filters.d / 2 + 1, total = n * bins, modalities = M == 0 ? filters.modalities : M;
  const int width = block_bins(filters.d), height = kThreads / width, thread = static_cast<int>(threadIdx.x);
  const int column = thread % width, slot = thread / width;
  const int64_t k = int64_t{width} * blockIdx.y + column;
  const bool active = slot < height && k < bins;
  const int64_t begin = rows * blockIdx.x, end = begin + rows < n ? begin + rows : n;
  constexpr int kOwn = M == 0 ? 1 : M + 1;  // sums of a thread
  Complex<T> sums[kOwn];
#pragma unroll
  for (int f = 0; f < kOwn; ++f) sums[f] = {0, 0};

  if constexpr (M > 0) {
    Complex<T> filter[M + 1];
#pragma unroll
    for (int f = 0; f <= M; ++f) filter[f] = active && (f < M ? filtered : fused) ? filters.at(f, k) : Complex<T>{0, 0};
    for (int64_t row = begin + slot; active && row < end; row += height) {
      const int64_t at = row * bins + k;
      Complex<T> x[M], common{0, 0};
#pragma unroll
      for (int m = 0; m < M; ++m) x[m] = spectra[m * total + at];
      if (fused) {
        const Complex<T> g = gradients[M * total + at];
        Complex<T> product = x[0];
#pragma unroll
        for (int m = 1; m < M; ++m) product = product * x[m];
        sums[M] = correlate_add(sums[M], product, g);
        common = correlate(filter[M], g);
      }
#pragma unroll
      for (int m = 0; m < M; ++m) {
        Complex<T> sum{0, 0};
        if (filtered) {
          const Complex<T> g = gradients[m * total + at];
          sums[m] = correlate_add(sums[m], x[m], g);
          sum = correlate(filter[m], g);
        }
        if (fused) {
          Complex<T> part = common;
#pragma unroll
          for (int j = 0; j < M; ++j) {
            if (j != m) part = correlate(x[j], part);
          }
          sum = sum + part;
        }
        gradients[m * total + at] = sum;
      }
    }
  } else {
    const int64_t own = blockIdx.z;
    for (int64_t row = begin + slot; active && row < end; row += height) {
      const int64_t at = row * bins + k;
      const Complex<T> g = filtered || own == modalities ? gradients[own * total + at] : Complex<T>{0, 0};
      if (own == modalities) {
        Complex<T> product = spectra[at];
        for (int64_t m = 1; m < modalities; ++m) product = product * spectra[m * total + at];
        sums[0] = correlate_add(sums[0], product, g);
      } else {
        Complex<T> sum{0, 0};
        if (filtered) {
          sums[0] = correlate_add(sums[0], spectra[own * total + at], g);
          sum = correlate(filters.at(own, k), g);
        }
        if (fused) {
          Complex<T> part = correlate(filters.at(modalities, k), gradients[modalities * total + at]);
          for (int64_t j = 0; j < modalities; ++j) {
            if (j != own) part = correlate(spectra[j * total + at], part);
          }
          sum = sum + part;
        }
        gradients[own * total + at] = sum;
      }
    }
  }

  const int64_t count = modalities + (fused ? 1 : 0);
#pragma unroll
  for (int f = 0; f < kOwn; ++f) {
    const int64_t of = M == 0 ? int64_t{blockIdx.z} : f;
    if (of >= count) break;
    __syncthreads();
    slots[thread] = sums[f];
    __syncthreads();
    if (slot > 0 || k >= bins) continue;
    double re = 0, im = 0;
    for (int s = 0; s < height; ++s) {
      re += static_cast<double>(slots[s * width + column].re);
      im += static_cast<double>(slots[s * width + column].im);
    }
    double* to = job.partial + ((int64_t{blockIdx.x} * count + of) * bins + k) * 2;
    to[0] = re, to[1] = im;
  }
}

constexpr int kReduceColumns = 32, kReduceStrips = 32;

template <typename T>
struct Gradients {
  T* each[kSpectralPointers];
};

// Blocks: a stretch of the 2 * bins numbers of one filter (x), and the filter (y). Strip s adds up partial sums s,
// s + 32, ..; then the strips are added in their order.
template <typename T>
__global__ void __launch_bounds__(kReduceColumns* kReduceStrips)
    spectral_reduce_kernel(const double* const partial, const int64_t partials, const int64_t count,
                           const int64_t first_filter, const int64_t modalities, const int64_t d, const int64_t kept,
                           const double filter, const double fusion, const __grid_constant__ Gradients<T> gradients) {
  SMORE_SHARED(double, strips, [kReduceStrips][kReduceColumns]);
  const int column = static_cast<int>(threadIdx.x), strip = static_cast<int>(threadIdx.y);
  const int64_t values = (d / 2 + 1) * 2, at = int64_t{kReduceColumns} * blockIdx.x + column;
  const int64_t f = first_filter + blockIdx.y;
  double sum = 0;
  if (at < 2 * kept) {
#pragma unroll 8
    for (int64_t p = strip; p < partials; p += kReduceStrips) sum += partial[(p * count + f) * values + at];
  }
  strips[strip][column] = sum;
  __syncthreads();
  if (strip > 0 || at >= values) return;
  for (int s = 1; s < kReduceStrips; ++s) sum += strips[s][column];
  const int64_t k = at / 2;
  const bool alone = k == 0 || 2 * k == d;  // any other bin stands for its mirror too
  const double scale = (f < modalities ? filter : fusion) * (alone ? 1 : 2);
  T* const gradient = gradients.each[blockIdx.y];
  if (gradient != nullptr) gradient[at] = alone && at % 2 == 1 ? T(0) : static_cast<T>(sum * scale);
}

template <typename T>
Filters<T> filters_of(const SpectralFilters<T>& arrays, int64_t d, int64_t kept, int64_t modalities, bool filtered) {
  const SpectralScales scales(d, modalities, 1);
  return {arrays, d, kept, modalities, filtered, static_cast<T>(scales.filter), static_cast<T>(scales.fusion)};
}

// Rows of a block: eight for each of its threads at least, so that few partial sums come of few rows.
int64_t block_rows(int64_t n, int64_t d) {
  const int64_t stretches = ceil_div(d / 2 + 1, int64_t{block_bins(d)});
  const int64_t fewest = 8 * (kThreads / block_bins(d)), blocks = kBlocks / stretches > 1 ? kBlocks / stretches : 1;
  const int64_t even = ceil_div(n, blocks);
  return even > fewest ? even : fewest;
}

}  // namespace

SpectralScales::SpectralScales(int64_t d, int64_t modalities, double gain) {
  const double width = static_cast<double>(d), M = static_cast<double>(modalities);
  filter = 1 / (gain * width);
  fusion = std::pow(width, -0.5 * (M + 1)) * std::pow(gain, -M);
  filter_gradient = 1 / (gain * gain * width);
  fusion_gradient = fusion / gain;
}

template <typename T>
void spectral_bins_forward(const SpectralBinsForward<T>& job, cudaStream_t stream) {
  const int64_t total = job.n * (job.d / 2 + 1), blocks = ceil_div(total, int64_t{kThreads});
  const auto grid = static_cast<unsigned>(blocks < 2 * kBlocks ? blocks : 2 * kBlocks);
  SMORE_LAUNCH(spectral_filter_bins<T>, (Launch{grid, kThreads, stream}),
               filters_of(job.weight, job.d, job.kept, job.modalities, job.filtered), total, job.fused,
               complex(job.spectra));
}

int64_t spectral_bins_partials(int64_t n, int64_t d) { return ceil_div(n, block_rows(n, d)); }

template <typename T>
void spectral_bins_backward(const SpectralBinsBackward<T>& job, cudaStream_t stream) {
  const int64_t M = job.modalities, count = M + (job.fused ? 1 : 0);
  const auto partials = static_cast<unsigned>(spectral_bins_partials(job.n, job.d));
  const auto stretches = static_cast<unsigned>(ceil_div(job.d / 2 + 1, int64_t{block_bins(job.d)}));
  const Filters<T> filters = filters_of(job.weight, job.d, job.kept, M, job.filtered);
  const Launch at{dim3(partials, stretches, M > 3 ? static_cast<unsigned>(count) : 1), kThreads, stream};
  const int64_t rows = block_rows(job.n, job.d);
  if (M == 1) {
    SMORE_LAUNCH((spectral_gradient_bins<T, 1>), at, job, filters, rows);
  } else if (M == 2) {
    SMORE_LAUNCH((spectral_gradient_bins<T, 2>), at, job, filters, rows);
  } else if (M == 3) {
    SMORE_LAUNCH((spectral_gradient_bins<T, 3>), at, job, filters, rows);
  } else {
    SMORE_LAUNCH((spectral_gradient_bins<T, 0>), at, job, filters, rows);
  }
}

template <typename T>
void spectral_reduce(const double* partial, int64_t partials, int64_t d, int64_t kept, int64_t modalities, bool fused,
                     const SpectralScales& scales, T* const* grad_weight, cudaStream_t stream) {
  const int64_t count = modalities + (fused ? 1 : 0);
  const unsigned stretches = blocks_for((d / 2 + 1) * 2, kReduceColumns);
  for (int64_t first = 0; first < count; first += kSpectralPointers) {
    const int64_t some = count - first < kSpectralPointers ? count - first : kSpectralPointers;
    Gradients<T> gradients{};
    for (int64_t f = 0; f < some; ++f) gradients.each[f] = grad_weight[first + f];
    SMORE_LAUNCH(spectral_reduce_kernel<T>,
                 (Launch{dim3(stretches, static_cast<unsigned>(some)), dim3(kReduceColumns, kReduceStrips), stream}),
                 partial, partials, count, first, modalities, d, kept, scales.filter_gradient, scales.fusion_gradient,
                 gradients);
  }
}

#define SMORE_INSTANTIATE(T)                                                                                    \
  template void spectral_bins_forward(const SpectralBinsForward<T>&, cudaStream_t);                             \
  template void spectral_bins_backward(const SpectralBinsBackward<T>&, cudaStream_t);                           \
  template void spectral_reduce(const double*, int64_t, int64_t, int64_t, int64_t, bool, const SpectralScales&, \
                                T* const*, cudaStream_t);
SMORE_INSTANTIATE(float)
SMORE_INSTANTIATE(double)
#undef SMORE_INSTANTIATE

}  // namespace smore::cuda
