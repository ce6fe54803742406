// Filter rows in the frequency domain, and fuse several rows there. No torch here.
//
// Rows are real and of length d. Two rows travel as one complex row (one as real, one as imaginary part), and
// one vector register holds the same element of `width` such pairs, so a whole FFT runs without a single
// shuffle. A pair's spectrum is Z = A + iB; a real filter (Hermitian spectrum) acts on both rows at once, and
// A, B are taken apart, bin k together with bin d - k, only where spectra of different arrays are multiplied.
// Where few bins are kept, products with tables of cosines and sines are cheaper: see spectral_kept.inl.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cpu/aligned.h"

namespace smore {

// Cosines and sines of 2 pi (j + 1/2) k / d: `rows` of `step` numbers each.
template <typename T>
struct WaveTable {
  int64_t step;
  AlignedBuffer<T> cosine, sine;
  WaveTable(int64_t rows, int64_t step) : step(step), cosine(rows * step), sine(rows * step) {}
};

// How rows of one length are transformed, for the lowest `kept` of d/2+1 bins. Immutable once made, shared by threads.
template <typename T>
struct SpectralPlan {
  struct Stage {
    int64_t radix;    // this stage's factor of d
    int64_t rest;     // sub-transforms: n / radix
    int64_t stride;   // product of the radices before it
    int64_t twiddle;  // offset into `table`: [rest][radix - 1] complex, e^(-2 pi i p k / n)
    int64_t root;     // offset into `table`: [radix] complex, e^(-2 pi i k / radix)
  };
  int64_t d, kept;
  std::vector<Stage> stages;
  std::vector<T> table;
  // Where d has a large prime factor, instead of stages: chirp [d] complex, e^(-pi i j^2 / d); the spectrum of its
  // inverse over [convolution->d], divided by that; and the plan of a power of two for the convolution.
  std::vector<T> chirp, chirp_spectrum;
  std::shared_ptr<const SpectralPlan> convolution;
  // By definition, instead of stages: [positions][bins] and [bins][positions], zero beyond the kept bins.
  std::unique_ptr<const WaveTable<T>> to_bins, to_rows;

  // Complex numbers that a transform needs room for.
  int64_t room() const { return convolution != nullptr ? convolution->d : d; }
};

// Plan for rows of length d >= 1 and 1 <= kept <= d/2+1, from a small cache. Thread-safe.
template <typename T>
std::shared_ptr<const SpectralPlan<T>> spectral_plan(int64_t d, int64_t kept);

template <typename T>
struct SpectralForward {
  const SpectralPlan<T>* plan;
  int64_t n;               // rows
  int64_t modalities;      // arrays in x
  const T* const* x;       // modalities pointers to [n, d]
  const T* const* weight;  // modalities pointers to [d/2+1, 2], or null: fusion only
  T* const* y;             // filtered arrays, [n, d] each
  const T* fusion_weight;  // [d/2+1, 2], or null: no fusion
  T* fused;                // [n, d]
};

template <typename T>
struct SpectralBackward {
  const SpectralPlan<T>* plan;
  int64_t n;
  int64_t modalities;
  const T* const* x;
  const T* const* weight;  // or null
  const T* fusion_weight;  // or null
  const T* const* grad_y;  // [n, d] each
  const T* grad_fused;     // [n, d], or null
  T* const* grad_x;        // [n, d] each
  double* partial;         // [spectral_chunks(n)][spectral_filters()][d/2+1][2]: one chunk's filter gradients, of which
                           // those of bins that are not kept say nothing
};

// Filters of a job: those of the arrays, then that of the fusion.
template <typename Job>
int64_t spectral_filters(const Job& job) {
  return (job.weight != nullptr ? job.modalities : 0) + (job.fusion_weight != nullptr ? 1 : 0);
}

// Rows that share one partial sum of the filter gradients. Fixed, so results do not depend on the thread
// count.
inline constexpr int64_t kSpectralChunkRows = 512;
inline int64_t spectral_chunks(int64_t n) { return (n + kSpectralChunkRows - 1) / kSpectralChunkRows; }

// Both work on chunks [begin, end).
template <typename T>
void spectral_forward(const SpectralForward<T>& job, int64_t begin, int64_t end);
template <typename T>
void spectral_backward(const SpectralBackward<T>& job, int64_t begin, int64_t end);

}  // namespace smore
