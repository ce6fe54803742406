// Which vector instructions the kernels use, decided once at run time.
#pragma once

#if defined(__x86_64__) && !defined(SMORE_PORTABLE_ONLY)
#define SMORE_SIMD_LEVELS
#endif

namespace smore {

enum class SimdLevel { portable = 0, avx2 = 1, avx512 = 2 };

// Highest level that this processor runs, or the one named by the environment variable SMORE_SIMD
// (portable, avx2, avx512). Throws std::runtime_error if that name is unknown or the processor lacks it.
SimdLevel simd_level();
const char* simd_level_name();
// Levels compiled into this library, separated by spaces, lowest first.
const char* simd_levels_built();

}  // namespace smore
