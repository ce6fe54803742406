#include "cpu/simd/bfloat16.inl"
#include "sparse/cpu/csr_rows.inl"

namespace smore::SMORE_LEVEL {

inline constexpr int64_t kPrefetchEdges = 8;
inline constexpr int64_t kLongRow = 64;  // edges
inline constexpr int kMaxVectors = 8;    // accumulators that stay in registers

// One vector of row r, at index `at` of its outputs.
template <typename S>
SMORE_INLINE void emit(const SpmmOutput<S>& out, int64_t r, int64_t at, Vec<Accumulator<S>> value) {
  if (out.inner != nullptr) value *= broadcast(out.inner[r]);
  if (out.addend != nullptr) {
    if (out.coefficient == nullptr) {
      value = load(out.addend + at) + value;
    } else {
      if (out.both) value *= broadcast(out.coefficient[1]);
      value = fma(broadcast(*out.coefficient), load(out.addend + at), value);
    }
  }
  if (out.outer != nullptr) value *= broadcast(out.outer[r]);
  if (out.scale != 1) value *= broadcast(out.scale);
  if (out.y != nullptr) store(out.y + at, value);
  for (int i = 0; i < 2; ++i) {
    if (out.factor[i] != nullptr) store(out.scaled[i] + at, value * load(out.factor[i] + at));
  }
}

template <typename S>
SMORE_INLINE void emit_scalar(const SpmmOutput<S>& out, int64_t r, int64_t at, Accumulator<S> value) {
  if (out.inner != nullptr) value *= out.inner[r];
  if (out.addend != nullptr) {
    if (out.both) value *= out.coefficient[1];
    value = (out.coefficient == nullptr ? 1 : *out.coefficient) * widened(out.addend[at]) + value;
  }
  if (out.outer != nullptr) value *= out.outer[r];
  if (out.scale != 1) value *= out.scale;
  if (out.y != nullptr) out.y[at] = narrowed<S>(value);
  for (int i = 0; i < 2; ++i) {
    if (out.factor[i] != nullptr) out.scaled[i][at] = narrowed<S>(value * widened(out.factor[i][at]));
  }
}

// acc += w * the columns from `source` on.
template <typename T, int NV>
SMORE_INLINE void add_row(Vec<T> w, const T* source, Vec<T> (&acc)[NV]) {
  for (int v = 0; v < NV; ++v) acc[v] = fma(w, load(source + v * kWidth<T>), acc[v]);
}

// The same for bfloat16, with even and odd columns apart in two neighbouring registers until in_order().
template <int NV>
SMORE_INLINE void add_row(Vec<float> w, const BFloat16* source, Vec<float> (&acc)[NV]) {
  for (int v = 0; v + 1 < NV; v += 2) {
    Vec<float> even, odd;
    load_apart(source + v * kWidth<float>, even, odd);
    acc[v] = fma(w, even, acc[v]);
    acc[v + 1] = fma(w, odd, acc[v + 1]);
  }
  if constexpr (NV % 2 == 1) acc[NV - 1] = fma(w, load(source + (NV - 1) * kWidth<float>), acc[NV - 1]);
}

template <typename S, int NV>
SMORE_INLINE void in_order(Vec<Accumulator<S>> (&acc)[NV]) {
  if constexpr (sizeof(S) == 2) {
    constexpr auto lanes = std::make_integer_sequence<int, kWidth<float>>{};
    for (int v = 0; v + 1 < NV; v += 2) interleave(acc[v], acc[v + 1], lanes);
  }
}

// Sums edges begin, begin + Step, .. below end into acc: columns [first, first + NV * width).
template <typename S, typename I, int NV, int Step>
SMORE_INLINE void sum_edges(const CsrMatrix<Accumulator<S>, I>& a, const S* x, int64_t width, int64_t first,
                            int64_t begin, int64_t end, Vec<Accumulator<S>> (&acc)[NV]) {
  typedef Accumulator<S> T;
  constexpr int W = kWidth<T>;
  for (int64_t e = begin; e < end; e += Step) {
    const char* ahead = reinterpret_cast<const char*>(
        x + static_cast<int64_t>(a.col[std::min(e + kPrefetchEdges * Step, a.n_edges - 1)]) * width + first);
    for (int line = 0; line < NV * W * static_cast<int>(sizeof(S)); line += 64) __builtin_prefetch(ahead + line);
    const S* source = x + static_cast<int64_t>(a.col[e]) * width + first;
    const Vec<T> w = broadcast(a.weight != nullptr ? a.weight[e] : T(1));
    add_row(w, source, acc);
  }
  in_order<S>(acc);
}

// A long row, even and odd edges apart: errors grow more slowly. A function of its own, so that the short rows' loop
// stays short.
template <typename S, typename I, int NV>
__attribute__((noinline)) void long_row_block(const CsrMatrix<Accumulator<S>, I>& a, const S* x, int64_t width,
                                              const SpmmOutput<S>& out, int64_t row, int64_t first) {
  typedef Accumulator<S> T;
  Vec<T> even[NV] = {}, odd[NV] = {};
  sum_edges<S, I, NV, 2>(a, x, width, first, a.rowptr[row], a.rowptr[row + 1], even);
  sum_edges<S, I, NV, 2>(a, x, width, first, a.rowptr[row] + 1, a.rowptr[row + 1], odd);
  for (int v = 0; v < NV; ++v) emit(out, row, row * width + first + v * kWidth<T>, even[v] + odd[v]);
}

// Columns [first, first + NV * width) of one row.
template <typename S, typename I, int NV>
SMORE_INLINE void row_block(const CsrMatrix<Accumulator<S>, I>& a, const S* x, int64_t width, const SpmmOutput<S>& out,
                            int64_t row, int64_t first) {
  typedef Accumulator<S> T;
  constexpr int W = kWidth<T>;
  const int64_t begin = a.rowptr[row], end = a.rowptr[row + 1];
  if (end - begin >= kLongRow) return long_row_block<S, I, NV>(a, x, width, out, row, first);
  Vec<T> acc[NV] = {};
  sum_edges<S, I, NV, 1>(a, x, width, first, begin, end, acc);
  for (int v = 0; v < NV; ++v) emit(out, row, row * width + first + v * W, acc[v]);
}

template <typename S, typename I, int NV>
SMORE_INLINE void row_rest(const CsrMatrix<Accumulator<S>, I>& a, const S* x, int64_t width, const SpmmOutput<S>& out,
                           int64_t row, int64_t first, int64_t vectors) {
  if constexpr (NV > 0) {
    if (vectors == NV) {
      row_block<S, I, NV>(a, x, width, out, row, first);
    } else {
      row_rest<S, I, NV - 1>(a, x, width, out, row, first, vectors);
    }
  }
}

// The columns that do not fill a vector: the last full vector's worth is read again, its known part is
// dropped.
template <typename S, typename I>
SMORE_INLINE void row_tail(const CsrMatrix<Accumulator<S>, I>& a, const S* x, int64_t width, const SpmmOutput<S>& out,
                           int64_t row, int64_t first) {
  typedef Accumulator<S> T;
  constexpr int W = kWidth<T>;
  const int64_t begin = a.rowptr[row], end = a.rowptr[row + 1];
  const auto weight = [&](int64_t e) { return a.weight != nullptr ? a.weight[e] : T(1); };
  T lanes[W];
  int64_t start = first;
  if (width >= W) {
    start = width - W;
    Vec<T> acc{};
    for (int64_t e = begin; e < end; ++e) {
      acc = fma(broadcast(weight(e)), load(x + static_cast<int64_t>(a.col[e]) * width + start), acc);
    }
    store(lanes, acc);
  } else {
    for (int64_t i = 0; i < width - first; ++i) {
      T acc = 0;
      for (int64_t e = begin; e < end; ++e) {
        acc += weight(e) * widened(x[static_cast<int64_t>(a.col[e]) * width + first + i]);
      }
      lanes[i] = acc;
    }
  }
  for (int64_t i = first; i < width; ++i) emit_scalar(out, row, row * width + i, lanes[i - start]);
}

template <typename S, typename I>
bool spmm_rows_at(const CsrMatrix<Accumulator<S>, I>& a, const S* x, int64_t width, const SpmmOutput<S>& out,
                  int64_t begin, int64_t end) {
  constexpr int W = kWidth<Accumulator<S>>;
  const int64_t whole = width / W * W;
  for (int64_t row = begin; row < end; ++row) {
    if (!valid_row(a.rowptr, a.col, row, a.n_cols, a.n_edges)) return false;
    int64_t first = 0;
    for (; first + kMaxVectors * W <= whole; first += kMaxVectors * W) {
      row_block<S, I, kMaxVectors>(a, x, width, out, row, first);
    }
    row_rest<S, I, kMaxVectors - 1>(a, x, width, out, row, first, (whole - first) / W);
    if (whole < width) row_tail(a, x, width, out, row, whole);
  }
  return true;
}

}  // namespace smore::SMORE_LEVEL
