// The way that spectral ops take on a GPU: a setting, for tests and measurements.
#pragma once

#include <string>

namespace smore::cuda {

// "auto": by rule (spectral_path() in cuda/spectral_kernel.h), "fused": all on the chip, in either way, "cufft":
// transforms by cuFFT.
void set_spectral_path(const std::string& path);

}  // namespace smore::cuda
