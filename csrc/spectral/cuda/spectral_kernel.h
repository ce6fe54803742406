// spectral_filter and spectrum_fusion on a GPU, in one of three ways: all on the chip, by fast transforms (rows) or by
// transforms as they are defined (dft), or with the transforms left to cuFFT and one kernel for all that lies between
// them (bins). No torch, no cuFFT here.
//
// M modalities, bins = d/2+1. Filters are [bins, 2]; bins from `kept` on count for nothing. Filter gradients come as
// partial sums that a last kernel adds up in their order, so results are the same for every run.
#pragma once

#include "cuda/device.cuh"

namespace smore::cuda {

inline constexpr int kFusedModalities = 3;  // modalities that the kernels on the chip are made for

enum class SpectralPath { fused, dft, cufft };

// Columns of the products that make transforms by definition: as many as bins are kept, in steps. 0: too many.
constexpr int dft_columns(int64_t kept) { return kept <= 8 ? 8 : kept <= 16 ? 16 : kept <= 32 ? 32 : 0; }

// Whether such a product takes a row in several windows, of 2 * columns - 1 numbers each. They follow one another, each
// turning the bins a little: not too many of them, for what rounding does.
constexpr bool dft_windows(int64_t d, int64_t kept) {
  const int64_t columns = dft_columns(kept), window = 2 * columns - 1;
  return columns > 0 && d > window && dft_columns(d / 2 + 1) != columns && d <= 32 * window;
}

// Which way is taken for rows of length d. Fast transforms on the chip wait for memory whatever is kept.
constexpr SpectralPath spectral_path(int64_t d, int64_t modalities, int64_t kept) {
  if (modalities > kFusedModalities) return SpectralPath::cufft;
  if (d == 16 || d == 32 || d == 64 || d == 128 || d == 256 || d == 512) return SpectralPath::fused;
  return d >= 2 && (d < 64 || dft_windows(d, kept)) ? SpectralPath::dft : SpectralPath::cufft;
}

// ---- On the chip. Entry M of `weight`, `y` and `grad_y` belongs to the fusion; null: no fusion, which is for M = 1.
// The others, and those of `grad_weight`, may be null if there is a fusion: only the fused array is wanted then.

template <typename T>
struct SpectralRowsForward {
  int64_t n, d, kept;
  int modalities;
  const T* x[kFusedModalities];  // [n, d] each
  const T* weight[kFusedModalities + 1];
  T* y[kFusedModalities + 1];  // [n, d] each
};

template <typename T>
struct SpectralRowsBackward {
  int64_t n, d, kept;
  int modalities;
  const T* x[kFusedModalities];
  const T* weight[kFusedModalities + 1];
  const T* grad_y[kFusedModalities + 1];
  T* grad_x[kFusedModalities];
  double* partial;  // [spectral_rows_partials() or spectral_dft_partials()][M + fused][bins][2]
  T* grad_weight[kFusedModalities + 1];
};

// Partial sums of the filter gradients.
template <typename T>
int64_t spectral_rows_partials(int64_t n, int64_t d, int modalities);
template <typename T>
int64_t spectral_dft_partials(int64_t n, int64_t d, int64_t kept, int modalities);

template <typename T>
void spectral_rows_forward(const SpectralRowsForward<T>& job, cudaStream_t stream);
template <typename T>
void spectral_rows_backward(const SpectralRowsBackward<T>& job, cudaStream_t stream);

template <typename T>
void spectral_dft_forward(const SpectralRowsForward<T>& job, cudaStream_t stream);
template <typename T>
void spectral_dft_backward(const SpectralRowsBackward<T>& job, cudaStream_t stream);

// ---- Between the transforms. Spectra are [n, bins] complex as cuFFT makes them, without scale, and follow one
// another.

// `count` filters: pointers, or for more than kSpectralPointers of them one array [count, bins, 2].
inline constexpr int kSpectralPointers = 8;
template <typename T>
struct SpectralFilters {
  const T* each[kSpectralPointers];
  const T* together;  // or null
};

template <typename T>
struct SpectralBinsForward {
  int64_t n, d, kept, modalities;
  bool filtered, fused;
  SpectralFilters<T> weight;
  T* spectra;  // in: M spectra; out: if `filtered`, those of the filtered arrays and, if `fused`, of the fused one
};

template <typename T>
struct SpectralBinsBackward {
  int64_t n, d, kept, modalities;
  bool filtered, fused;
  SpectralFilters<T> weight;
  const T* spectra;  // M spectra of x
  T* gradients;      // in: those of the gradients that arrive, M (if `filtered`) and the fused one's; out: M of x
  double* partial;   // [spectral_bins_partials()][M + fused][bins][2]
};

int64_t spectral_bins_partials(int64_t n, int64_t d);

template <typename T>
void spectral_bins_forward(const SpectralBinsForward<T>& job, cudaStream_t stream);
template <typename T>
void spectral_bins_backward(const SpectralBinsBackward<T>& job, cudaStream_t stream);

// ---- For all.

// What spectra are multiplied with, for transforms without scale whose forward one comes times `gain`.
struct SpectralScales {
  double filter, fusion, filter_gradient, fusion_gradient;
  SpectralScales(int64_t d, int64_t modalities, double gain);
};

// grad_weight[f] = the sum of the partial sums of filter f, scaled; the M filters, then that of the fusion if `fused`.
// Null: not wanted.
template <typename T>
void spectral_reduce(const double* partial, int64_t partials, int64_t d, int64_t kept, int64_t modalities, bool fused,
                     const SpectralScales& scales, T* const* grad_weight, cudaStream_t stream);

}  // namespace smore::cuda
