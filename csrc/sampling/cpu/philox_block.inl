namespace smore::SMORE_LEVEL {

// Philox of kPhiloxBlock counters that differ in their lowest word only. Plain loops over lanes: the compiler makes
// vectors of them.
SMORE_INLINE void philox_round(uint32_t k0, uint32_t k1, PhiloxBlock& c) {
  PhiloxBlock n;
  for (int l = 0; l < kPhiloxBlock; ++l) {
    const uint64_t p0 = static_cast<uint64_t>(kPhiloxMultiplier0) * c.out[0][l];
    const uint64_t p1 = static_cast<uint64_t>(kPhiloxMultiplier1) * c.out[2][l];
    n.out[0][l] = static_cast<uint32_t>(p1 >> 32) ^ c.out[1][l] ^ k0;
    n.out[1][l] = static_cast<uint32_t>(p1);
    n.out[2][l] = static_cast<uint32_t>(p0 >> 32) ^ c.out[3][l] ^ k1;
    n.out[3][l] = static_cast<uint32_t>(p0);
  }
  c = n;
}

inline void philox_block_at(uint64_t key, const uint32_t* low, uint32_t second, uint64_t high, PhiloxBlock& block) {
  for (int l = 0; l < kPhiloxBlock; ++l) {
    block.out[0][l] = low[l];
    block.out[1][l] = second;
    block.out[2][l] = static_cast<uint32_t>(high);
    block.out[3][l] = static_cast<uint32_t>(high >> 32);
  }
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < kPhiloxRounds; ++round, k0 += kPhiloxKeyStep0, k1 += kPhiloxKeyStep1) {
    philox_round(k0, k1, block);
  }
}

}  // namespace smore::SMORE_LEVEL
