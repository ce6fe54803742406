// What device code is written against: CUDA itself, or the emulation that runs the same sources on the host in the C++
// tests. No torch here, nor in any .cu or .cuh file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#ifdef SMORE_CUDA_EMULATED
#include "emulation/cuda_emulation.h"
#else
#include <cuda_runtime.h>

// Shared memory of a block: SMORE_SHARED(float, tile, [8][33]). Uninitialised, as __shared__ is.
#define SMORE_SHARED(type, name, extent) __shared__ type name extent
// The shared memory whose size a launch states.
#define SMORE_DYNAMIC_SHARED(type, name)                        \
  extern __shared__ __align__(16) unsigned char smore_shared[]; \
  type* name = reinterpret_cast<type*>(smore_shared)
#endif

namespace smore::cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

// As variables: device code may not call functions of std::numeric_limits.
template <typename T>
inline constexpr T kNan = std::numeric_limits<T>::quiet_NaN();
template <typename T>
inline constexpr T kInfinity = std::numeric_limits<T>::infinity();

}  // namespace smore::cuda
