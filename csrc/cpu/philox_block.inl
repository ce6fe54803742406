namespace smore::SMORE_LEVEL {

// Philox of kPhiloxBlock counters that differ in their lowest word only.

#if SMORE_VECTOR_BYTES >= 32

// 32-bit lanes. A product of two is 64 bits wide, so even and odd lanes are multiplied apart: gcc does not find that.
#if SMORE_VECTOR_BYTES == 64
typedef __m512i PhiloxLanes;
SMORE_INLINE PhiloxLanes philox_all(uint32_t x) { return _mm512_set1_epi32(static_cast<int>(x)); }
SMORE_INLINE PhiloxLanes philox_even(PhiloxLanes a, PhiloxLanes b) { return _mm512_maskz_mul_epu32(0xff, a, b); }
SMORE_INLINE PhiloxLanes philox_down(PhiloxLanes a) { return _mm512_maskz_srli_epi64(0xff, a, 32); }
SMORE_INLINE PhiloxLanes philox_up(PhiloxLanes a) { return _mm512_maskz_slli_epi64(0xff, a, 32); }
SMORE_INLINE PhiloxLanes philox_join(PhiloxLanes even, PhiloxLanes odd) {
  return _mm512_mask_blend_epi32(0xaaaa, even, odd);
}
SMORE_INLINE PhiloxLanes philox_xor(PhiloxLanes a, PhiloxLanes b, PhiloxLanes c) {
  return _mm512_maskz_ternarylogic_epi32(0xffff, a, b, c, 0x96);
}
SMORE_INLINE PhiloxLanes philox_from(const uint32_t* x) { return _mm512_loadu_si512(x); }
SMORE_INLINE void philox_to(uint32_t* x, PhiloxLanes a) { _mm512_storeu_si512(x, a); }
#else
typedef __m256i PhiloxLanes;
SMORE_INLINE PhiloxLanes philox_all(uint32_t x) { return _mm256_set1_epi32(static_cast<int>(x)); }
SMORE_INLINE PhiloxLanes philox_even(PhiloxLanes a, PhiloxLanes b) { return _mm256_mul_epu32(a, b); }
SMORE_INLINE PhiloxLanes philox_down(PhiloxLanes a) { return _mm256_srli_epi64(a, 32); }
SMORE_INLINE PhiloxLanes philox_up(PhiloxLanes a) { return _mm256_slli_epi64(a, 32); }
SMORE_INLINE PhiloxLanes philox_join(PhiloxLanes even, PhiloxLanes odd) { return _mm256_blend_epi32(even, odd, 0xaa); }
SMORE_INLINE PhiloxLanes philox_xor(PhiloxLanes a, PhiloxLanes b, PhiloxLanes c) {
  return _mm256_xor_si256(a, _mm256_xor_si256(b, c));
}
SMORE_INLINE PhiloxLanes philox_from(const uint32_t* x) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
}
SMORE_INLINE void philox_to(uint32_t* x, PhiloxLanes a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(x), a); }
#endif

SMORE_INLINE void philox_product(PhiloxLanes x, PhiloxLanes by, PhiloxLanes& high, PhiloxLanes& low) {
  const PhiloxLanes even = philox_even(x, by), odd = philox_even(philox_down(x), by);
  high = philox_join(philox_down(even), odd);
  low = philox_join(even, philox_up(odd));
}

inline void philox_block_at(uint64_t key, const uint32_t* low, uint32_t second, uint64_t high, PhiloxBlock& block) {
  constexpr int kLanes = SMORE_VECTOR_BYTES / 4;
  const PhiloxLanes by0 = philox_all(kPhiloxMultiplier0), by1 = philox_all(kPhiloxMultiplier1);
  for (int at = 0; at < kPhiloxBlock; at += kLanes) {
    PhiloxLanes c0 = philox_from(low + at), c1 = philox_all(second), c2 = philox_all(static_cast<uint32_t>(high)),
                c3 = philox_all(static_cast<uint32_t>(high >> 32));
    uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
    for (int round = 0; round < kPhiloxRounds; ++round, k0 += kPhiloxKeyStep0, k1 += kPhiloxKeyStep1) {
      PhiloxLanes high0, low0, high1, low1;
      philox_product(c0, by0, high0, low0);
      philox_product(c2, by1, high1, low1);
      c0 = philox_xor(high1, c1, philox_all(k0));
      c1 = low1;
      c2 = philox_xor(high0, c3, philox_all(k1));
      c3 = low0;
    }
    philox_to(block.out[0] + at, c0);
    philox_to(block.out[1] + at, c1);
    philox_to(block.out[2] + at, c2);
    philox_to(block.out[3] + at, c3);
  }
}

#else

inline void philox_block_at(uint64_t key, const uint32_t* low, uint32_t second, uint64_t high, PhiloxBlock& block) {
  for (int l = 0; l < kPhiloxBlock; ++l) {
    const Philox words = philox(key, static_cast<uint64_t>(second) << 32 | low[l], high);
    for (int w = 0; w < 4; ++w) block.out[w][l] = words.out[w];
  }
}

#endif

}  // namespace smore::SMORE_LEVEL
