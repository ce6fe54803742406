#include "cpu/simd/bfloat16.inl"
#include "cpu/tile.inl"
#include "sparse/cpu/csr_rows.inl"

namespace smore::SMORE_LEVEL {

inline constexpr int64_t kPrefetchEdges = 8;

// The lanes of `last` that hold columns from `whole` on, where it was loaded from column `width` - W on.
template <typename T>
SMORE_INLINE Vec<T> beyond(Vec<T> last, int64_t whole, int64_t width) {
  typename VecOf<T>::mask column{};
  for (int l = 0; l < kWidth<T>; ++l) column[l] = l;
  const auto known = static_cast<std::remove_reference_t<decltype(column[0])>>(whole - (width - kWidth<T>));
  return column >= known ? last : Vec<T>{};
}

// Lanes whose sum is u . v: four sums in turn, and the columns that do not fill a register.
template <typename S>
SMORE_INLINE Vec<Accumulator<S>> dot_lanes(const S* u, const S* v, int64_t width) {
  typedef Accumulator<S> T;
  constexpr int W = kWidth<T>;
  const int64_t whole = width / W * W;
  Vec<T> sum[4] = {};
  int64_t i = 0;
  for (; i + 4 * W <= whole; i += 4 * W) {
    for (int k = 0; k < 4; ++k) sum[k] = fma(load(u + i + k * W), load(v + i + k * W), sum[k]);
  }
  for (int k = 0; i < whole; i += W, ++k) sum[k] = fma(load(u + i), load(v + i), sum[k]);
  if (whole < width && width >= W) {
    sum[3] += beyond<T>(load(u + width - W) * load(v + width - W), whole, width);
  } else if (whole < width) {
    for (int64_t c = 0; c < width; ++c) sum[0][0] += widened(u[c]) * widened(v[c]);
  }
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

// v[0] <- lane l: the sum of the lanes of v[l], as a binary tree.
template <typename T, int Step = 1>
SMORE_INLINE void sum_each(Vec<T>* v) {
  constexpr int W = kWidth<T>;
  if constexpr (Step < W) {
    constexpr auto lanes = std::make_integer_sequence<int, W>{};
    for (int i = 0; i < W; i += 2 * Step) {
      v[i] = exchange<T, Step, false>(v[i], v[i + Step], lanes) + exchange<T, Step, true>(v[i], v[i + Step], lanes);
    }
    sum_each<T, 2 * Step>(v);
  }
}

// NV: registers that a row fills, if that is known when compiling, else 0. The loops are then unrolled: half the time.
template <typename S, typename I, int NV>
bool edge_dots(const EdgeDot<S, I>& job, int64_t begin, int64_t end) {
  typedef Accumulator<S> T;
  constexpr int W = kWidth<T>;
  const int64_t width = NV > 0 ? NV * W : job.width, bytes = width * static_cast<int64_t>(sizeof(S));
  Vec<T> lanes[W] = {};  // of the edges that are not summed up yet
  int waiting = 0;
  int64_t next = begin < end ? static_cast<int64_t>(job.rowptr[begin]) : 0;  // the first of them
  for (int64_t row = begin; row < end; ++row) {
    if (!valid_row(job.rowptr, job.col, row, job.n_cols, job.n_edges)) return false;
    const S* u = job.u + row * width;
    for (int64_t e = job.rowptr[row]; e < job.rowptr[row + 1]; ++e) {
      const char* ahead = reinterpret_cast<const char*>(
          job.v + static_cast<int64_t>(job.col[std::min(e + kPrefetchEdges, job.n_edges - 1)]) * width);
      for (int64_t line = 0; line < bytes; line += 64) __builtin_prefetch(ahead + line);
      lanes[waiting++] = dot_lanes(u, job.v + static_cast<int64_t>(job.col[e]) * width, width);
      if (waiting < W) continue;
      sum_each<T>(lanes);
      store(job.out + next, lanes[0]);
      next += W;
      waiting = 0;
    }
  }
  if (waiting > 0) {
    T sums[W];
    sum_each<T>(lanes);
    store(sums, lanes[0]);
    for (int i = 0; i < waiting; ++i) job.out[next + i] = sums[i];
  }
  return true;
}

template <typename S, typename I>
bool edge_dot_rows_at(const EdgeDot<S, I>& job, int64_t begin, int64_t end) {
  constexpr int W = kWidth<Accumulator<S>>;
  if (job.width == W) return edge_dots<S, I, 1>(job, begin, end);
  if (job.width == 2 * W) return edge_dots<S, I, 2>(job, begin, end);
  if (job.width == 4 * W) return edge_dots<S, I, 4>(job, begin, end);
  if (job.width == 8 * W) return edge_dots<S, I, 8>(job, begin, end);
  return edge_dots<S, I, 0>(job, begin, end);
}

}  // namespace smore::SMORE_LEVEL
