// The choice of the SIMD level: SMORE_SIMD is honoured, and checked. It is read once a process, so one test a
// program.
#include <cstdlib>
#include <string>

#include "cpu/simd/level.h"
#include "harness.h"

TEST(named_level_is_used) {
  setenv("SMORE_SIMD", "fastest", 1);
  std::string message;
  try {
    smore::simd_level();
  } catch (const std::exception& error) {
    message = error.what();
  }
  CHECK(message.find("got fastest") != std::string::npos);

  setenv("SMORE_SIMD", "portable", 1);
  CHECK(smore::simd_level() == smore::SimdLevel::portable);
  CHECK(smore::simd_level_name() == std::string("portable"));
  CHECK(std::string(smore::simd_levels_built()).starts_with("portable"));
}
