// The words of neighbouring counters of Philox, which are made together.
#pragma once

#include <cstdint>

#include "common/philox.h"

namespace smore {

inline constexpr int kPhiloxBlock = 16;
struct PhiloxBlock {
  uint32_t out[4][kPhiloxBlock];
};

}  // namespace smore
