// Batched real transforms by cuFFT on the current device and stream, with plans that are kept.
//
// Plans are few and costly: the last ones used are kept, up to a number that Python can set. Workspace is torch's,
// taken at each use. Any thread may call at any time: one lock guards the list of plans, another one each plan while it
// is set up for a stream and started. While a CUDA graph is captured no plan can be made; a plan that was captured
// lives on for the graph.
#pragma once

#include <cstdint>

namespace smore::cuda {

// [n, d] -> [n, d/2+1] complex, without scale. All arrays are aligned to a complex number. `op` is for errors.
template <typename T>
void rows_to_spectra(const char* op, int64_t n, int64_t d, const T* rows, T* spectra);

// The way back, times d; spoils `spectra`. The imaginary parts of bin 0, and of bin d/2 for even d, must be zero.
template <typename T>
void spectra_to_rows(const char* op, int64_t n, int64_t d, T* spectra, T* rows);

}  // namespace smore::cuda
