// One vector register of floats or doubles, in the compiler's own vector types. Included once per level.
namespace smore::SMORE_LEVEL {

template <typename T>
struct VecOf;

template <>
struct VecOf<float> {
  typedef float type __attribute__((vector_size(SMORE_VECTOR_BYTES)));
  typedef float loose __attribute__((vector_size(SMORE_VECTOR_BYTES), aligned(4), may_alias));
  typedef int32_t mask __attribute__((vector_size(SMORE_VECTOR_BYTES)));
};

template <>
struct VecOf<double> {
  typedef double type __attribute__((vector_size(SMORE_VECTOR_BYTES)));
  typedef double loose __attribute__((vector_size(SMORE_VECTOR_BYTES), aligned(8), may_alias));
  typedef int64_t mask __attribute__((vector_size(SMORE_VECTOR_BYTES)));
};

template <typename T>
using Vec = typename VecOf<T>::type;

template <typename T>
inline constexpr int kWidth = SMORE_VECTOR_BYTES / static_cast<int>(sizeof(T));

template <typename T>
SMORE_INLINE Vec<T> load(const T* p) {
  return *reinterpret_cast<const typename VecOf<T>::loose*>(p);
}

template <typename T>
SMORE_INLINE void store(T* p, Vec<T> v) {
  *reinterpret_cast<typename VecOf<T>::loose*>(p) = v;
}

template <typename T>
SMORE_INLINE Vec<T> broadcast(T s) {
  return s - Vec<T>{};  // s - 0 is s, also for -0: no instruction but the broadcast. s + 0 would need an addition
}

// a * b + c, rounded once where the level has the instruction.
SMORE_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
#if SMORE_VECTOR_BYTES == 64
  return (Vec<float>)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif SMORE_VECTOR_BYTES == 32
  return (Vec<float>)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}

SMORE_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
#if SMORE_VECTOR_BYTES == 64
  return (Vec<double>)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif SMORE_VECTOR_BYTES == 32
  return (Vec<double>)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#else
  return a * b + c;
#endif
}

SMORE_INLINE Vec<float> square_root(Vec<float> v) {
#if SMORE_VECTOR_BYTES == 64
  return (Vec<float>)_mm512_maskz_sqrt_ps(0xffff, (__m512)v);
#elif SMORE_VECTOR_BYTES == 32
  return (Vec<float>)_mm256_sqrt_ps((__m256)v);
#else
  for (int i = 0; i < kWidth<float>; ++i) v[i] = std::sqrt(v[i]);
  return v;
#endif
}

SMORE_INLINE Vec<double> square_root(Vec<double> v) {
#if SMORE_VECTOR_BYTES == 64
  return (Vec<double>)_mm512_maskz_sqrt_pd(0xff, (__m512d)v);
#elif SMORE_VECTOR_BYTES == 32
  return (Vec<double>)_mm256_sqrt_pd((__m256d)v);
#else
  for (int i = 0; i < kWidth<double>; ++i) v[i] = std::sqrt(v[i]);
  return v;
#endif
}

// Sum of the lanes, always as the same binary tree.
template <typename T>
SMORE_INLINE T lane_sum(Vec<T> v) {
  T lanes[kWidth<T>];
  store(lanes, v);
  for (int half = kWidth<T> / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}

// Bit i is set where lane i of a is greater than lane i of b (false for NaN).
SMORE_INLINE uint32_t greater_bits(Vec<float> a, Vec<float> b) {
#if SMORE_VECTOR_BYTES == 64
  return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GT_OQ);
#elif SMORE_VECTOR_BYTES == 32
  return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_GT_OQ)));
#else
  const VecOf<float>::mask m = a > b;
  uint32_t bits = 0;
  for (int i = 0; i < kWidth<float>; ++i) bits |= (m[i] & 1u) << i;
  return bits;
#endif
}

SMORE_INLINE uint32_t greater_bits(Vec<double> a, Vec<double> b) {
#if SMORE_VECTOR_BYTES == 64
  return _mm512_cmp_pd_mask((__m512d)a, (__m512d)b, _CMP_GT_OQ);
#elif SMORE_VECTOR_BYTES == 32
  return static_cast<uint32_t>(_mm256_movemask_pd(_mm256_cmp_pd((__m256d)a, (__m256d)b, _CMP_GT_OQ)));
#else
  const VecOf<double>::mask m = a > b;
  uint32_t bits = 0;
  for (int i = 0; i < kWidth<double>; ++i) bits |= static_cast<uint32_t>(m[i] & 1) << i;
  return bits;
#endif
}

}  // namespace smore::SMORE_LEVEL
