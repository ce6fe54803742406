// Registers of floats from and to bfloat16 in memory.
namespace smore::SMORE_LEVEL {

typedef uint16_t Halves __attribute__((vector_size(SMORE_VECTOR_BYTES / 2)));
typedef uint16_t LooseHalves __attribute__((vector_size(SMORE_VECTOR_BYTES / 2), aligned(2), may_alias));
typedef uint32_t Words __attribute__((vector_size(SMORE_VECTOR_BYTES)));

SMORE_INLINE Vec<float> load(const BFloat16* p) {
  const Halves halves = *reinterpret_cast<const LooseHalves*>(p);
  return (Vec<float>)(__builtin_convertvector(halves, Words) << 16);
}

// Rounds to the nearest, ties to even; NaN is 0x7fc0 whatever it was, as in torch.
SMORE_INLINE void store(BFloat16* p, Vec<float> v) {
  const Words bits = (Words)v, rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16, is_nan = (Words)(v != v);
  const Words halves = (rounded & ~is_nan) | (is_nan & 0x7fc0);
  *reinterpret_cast<LooseHalves*>(p) = __builtin_convertvector(halves, Halves);
}

}  // namespace smore::SMORE_LEVEL
