#include "cpu/simd/level.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace smore {
namespace {

SimdLevel highest_supported() {
#if defined(SMORE_SIMD_LEVELS)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl")) {
    return SimdLevel::avx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return SimdLevel::avx2;
#endif
  return SimdLevel::portable;
}

constexpr const char* kNames[] = {"portable", "avx2", "avx512"};

SimdLevel choose() {
  const SimdLevel highest = highest_supported();
  const char* wanted = std::getenv("SMORE_SIMD");
  if (wanted == nullptr || *wanted == '\0') return highest;
  for (int i = 0; i < 3; ++i) {
    if (std::string(wanted) != kNames[i]) continue;
    if (i <= static_cast<int>(highest)) return static_cast<SimdLevel>(i);
    throw std::runtime_error(std::string("SMORE_SIMD=") + wanted + ": this processor runs at most " +
                             kNames[static_cast<int>(highest)]);
  }
  throw std::runtime_error(std::string("SMORE_SIMD must be portable, avx2 or avx512, got ") + wanted);
}

}  // namespace

SimdLevel simd_level() {
  static const SimdLevel level = choose();
  return level;
}

const char* simd_level_name() { return kNames[static_cast<int>(simd_level())]; }

const char* simd_levels_built() {
#if defined(SMORE_SIMD_LEVELS)
  return "portable avx2 avx512";
#else
  return "portable";
#endif
}

}  // namespace smore
