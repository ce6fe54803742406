// Registers of floats from and to bfloat16 in memory.
namespace smore::SMORE_LEVEL {

typedef uint16_t Halves __attribute__((vector_size(SMORE_VECTOR_BYTES / 2)));
typedef uint16_t LooseHalves __attribute__((vector_size(SMORE_VECTOR_BYTES / 2), aligned(2), may_alias));
typedef uint32_t Words __attribute__((vector_size(SMORE_VECTOR_BYTES)));
typedef uint32_t LooseWords __attribute__((vector_size(SMORE_VECTOR_BYTES), aligned(2), may_alias));

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

// Two registers' worth at once, without a shuffle: the numbers at even places, and those at odd ones.
SMORE_INLINE void load_apart(const BFloat16* p, Vec<float>& even, Vec<float>& odd) {
  const Words pairs = *reinterpret_cast<const LooseWords*>(p);
  even = (Vec<float>)(pairs << 16);
  odd = (Vec<float>)(pairs & 0xffff0000);
}

template <int... L>
SMORE_INLINE void interleave(Vec<float>& even, Vec<float>& odd, std::integer_sequence<int, L...>) {
  constexpr int W = kWidth<float>;
  const Vec<float> low = __builtin_shufflevector(even, odd, (L / 2 + L % 2 * W)...);
  const Vec<float> high = __builtin_shufflevector(even, odd, (W / 2 + L / 2 + L % 2 * W)...);
  even = low, odd = high;
}

}  // namespace smore::SMORE_LEVEL
