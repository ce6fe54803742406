// spectral_filter and spectrum_fusion on a GPU, in one of three ways: all on the chip, by fast transforms (rows) or by
// transforms as they are defined (dft), or with the transforms left to cuFFT and one kernel for all that lies between
// them (bins). No torch, no cuFFT here.
//
// M modalities, bins = d/2+1. Filters are [bins, 2]. Filter gradients come as partial sums that a last kernel adds up
// in their order, so results are the same for every run.
#pragma once

#include "cuda/device.cuh"

namespace smore::cuda {

inline constexpr int kFusedModalities = 3;  // modalities that the kernels on the chip are made for

enum class SpectralPath { fused, dft, cufft };

// Which way is taken for rows of length d.
constexpr SpectralPath spectral_path(int64_t d, int64_t modalities) {
  if (modalities > kFusedModalities) return SpectralPath::cufft;
  if (d == 16 || d == 32 || d == 64 || d == 128 || d == 256 || d == 512) return SpectralPath::fused;
  return d >= 2 && d < 64 ? SpectralPath::dft : SpectralPath::cufft;
}

// ---- On the chip. Entry M of `weight`, `y` and `grad_y` belongs to the fusion; null: no fusion, which is for M = 1.

template <typename T>
struct SpectralRowsForward {
  int64_t n, d;
  int modalities;
  const T* x[kFusedModalities];  // [n, d] each
  const T* weight[kFusedModalities + 1];
  T* y[kFusedModalities + 1];  // [n, d] each
};

template <typename T>
struct SpectralRowsBackward {
  int64_t n, d;
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
int64_t spectral_dft_partials(int64_t n, int64_t d, int modalities);

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
  int64_t n, d, modalities;
  bool fused;
  SpectralFilters<T> weight;
  T* spectra;  // in: M spectra; out: those of the M filtered arrays and, if `fused`, of the fused one
};

template <typename T>
struct SpectralBinsBackward {
  int64_t n, d, modalities;
  bool fused;
  SpectralFilters<T> weight;
  const T* spectra;  // M spectra of x
  T* gradients;      // in: those of the M + fused gradients that arrive; out: the first M are those of x
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
template <typename T>
void spectral_reduce(const double* partial, int64_t partials, int64_t d, int64_t modalities, bool fused,
                     const SpectralScales& scales, T* const* grad_weight, cudaStream_t stream);

}  // namespace smore::cuda
