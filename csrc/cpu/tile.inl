// Moves rows of a row-major matrix into vector lanes and back: lane r of register j holds element j of row r.
namespace smore::SMORE_LEVEL {

template <typename T, int Step, bool High, int... L>
SMORE_INLINE Vec<T> exchange(Vec<T> a, Vec<T> b, std::integer_sequence<int, L...>) {
  constexpr int W = kWidth<T>;
  if constexpr (High) {
    return __builtin_shufflevector(a, b, ((L & Step) ? W + L : L + Step)...);
  } else {
    return __builtin_shufflevector(a, b, ((L & Step) ? W + L - Step : L)...);
  }
}

template <typename T, int Step>
SMORE_INLINE void transpose_steps(Vec<T>* v) {
  constexpr int W = kWidth<T>;
  if constexpr (Step < W) {
    constexpr auto lanes = std::make_integer_sequence<int, W>{};
    for (int i = 0; i < W; ++i) {
      if (i & Step) continue;
      const Vec<T> a = v[i], b = v[i + Step];
      v[i] = exchange<T, Step, false>(a, b, lanes);
      v[i + Step] = exchange<T, Step, true>(a, b, lanes);
    }
    transpose_steps<T, Step * 2>(v);
  }
}

// lanes[2 * W * j + r] = f(rows[r * stride + j]) for j < d, f on whole registers; rows from `valid` on read as zero.
template <typename T, typename F>
SMORE_INLINE void load_lanes(const T* rows, int64_t stride, int64_t valid, int64_t d, const F& f, T* lanes) {
  constexpr int W = kWidth<T>;
  if (d < W) {
    for (int64_t j = 0; j < d; ++j) {
      for (int64_t r = 0; r < W; ++r) lanes[2 * W * j + r] = r < valid ? rows[r * stride + j] : T(0);
      store(lanes + 2 * W * j, f(load(lanes + 2 * W * j)));
    }
    return;
  }
  for (int64_t block = 0; block < d; block += W) {
    const int64_t first = std::min(block, d - W);  // the last block overlaps: same values again
    Vec<T> v[W];
    for (int r = 0; r < W; ++r) v[r] = r < valid ? load(rows + r * stride + first) : Vec<T>{};
    transpose_steps<T, 1>(v);
    for (int j = 0; j < W; ++j) store(lanes + 2 * W * (first + j), f(v[j]));
  }
}

// The way back, times a factor a row: rows[r * stride + j] = lanes[2 * W * j + r] * factor[r] for r < valid.
template <typename T>
void store_lanes(const T* lanes, Vec<T> factor, int64_t d, T* rows, int64_t stride, int64_t valid) {
  constexpr int W = kWidth<T>;
  if (d < W) {
    for (int64_t j = 0; j < d; ++j) {
      for (int64_t r = 0; r < std::min<int64_t>(W, valid); ++r) rows[r * stride + j] = lanes[2 * W * j + r] * factor[r];
    }
    return;
  }
  for (int64_t block = 0; block < d; block += W) {
    const int64_t first = std::min(block, d - W);
    Vec<T> v[W];
    for (int j = 0; j < W; ++j) v[j] = load(lanes + 2 * W * (first + j)) * factor;
    transpose_steps<T, 1>(v);
    for (int r = 0; r < W; ++r) {
      if (r < valid) store(rows + r * stride + first, v[r]);
    }
  }
}

}  // namespace smore::SMORE_LEVEL
