// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011), for host and
// device, and draws in a range from it.
#pragma once

#include <cstdint>

#include "common/host_device.h"

namespace smore {

inline constexpr uint32_t kPhiloxMultiplier0 = 0xD2511F53u, kPhiloxMultiplier1 = 0xCD9E8D57u;
inline constexpr uint32_t kPhiloxKeyStep0 = 0x9E3779B9u, kPhiloxKeyStep1 = 0xBB67AE85u;
inline constexpr int kPhiloxRounds = 10;

struct Philox {
  uint32_t out[4];
};

SMORE_HOST_DEVICE inline Philox philox(uint64_t key, uint64_t counter_low, uint64_t counter_high) {
  Philox c{{static_cast<uint32_t>(counter_low), static_cast<uint32_t>(counter_low >> 32),
            static_cast<uint32_t>(counter_high), static_cast<uint32_t>(counter_high >> 32)}};
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < kPhiloxRounds; ++round, k0 += kPhiloxKeyStep0, k1 += kPhiloxKeyStep1) {
    const uint64_t p0 = static_cast<uint64_t>(kPhiloxMultiplier0) * c.out[0];
    const uint64_t p1 = static_cast<uint64_t>(kPhiloxMultiplier1) * c.out[2];
    c = {{static_cast<uint32_t>(p1 >> 32) ^ c.out[1] ^ k0, static_cast<uint32_t>(p1),
          static_cast<uint32_t>(p0 >> 32) ^ c.out[3] ^ k1, static_cast<uint32_t>(p0)}};
  }
  return c;
}

// floor(r * n / 2^64): a 64-bit draw scaled to 0..n-1, for n < 2^31.
SMORE_HOST_DEVICE inline int64_t scale_draw(uint32_t high, uint32_t low, int64_t n) {
  const uint64_t m = static_cast<uint64_t>(n);
  return static_cast<int64_t>((high * m + ((low * m) >> 32)) >> 32);
}

}  // namespace smore
