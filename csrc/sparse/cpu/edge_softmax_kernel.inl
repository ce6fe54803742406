#include "cpu/exponential.inl"
#include "sparse/cpu/csr_rows.inl"

namespace smore::SMORE_LEVEL {

inline constexpr int64_t kBlockEdges = 1024;  // rows whose exponentials are made together: they stay in the first cache

// In place, n values.
template <typename T>
SMORE_INLINE void exponentials(T* x, int64_t n) {
  constexpr int W = kWidth<T>;
  int64_t i = 0;
  for (; i + W <= n; i += W) store(x + i, exponential_or_zero<T>(load(x + i)));
  if (i == n) return;
  T rest[W] = {};
  std::copy(x + i, x + n, rest);
  store(rest, exponential_or_zero<T>(load(rest)));
  std::copy(rest, rest + (n - i), x + i);
}

// The sum of value(i) over i < n: a register's worth at a time (at(i): the values from i on), then one by one.
template <typename T, typename F, typename G>
SMORE_INLINE T sum(int64_t n, const F& at, const G& value) {
  constexpr int W = kWidth<T>;
  T total = 0;
  int64_t i = 0;
  if (n >= 2 * W) {
    Vec<T> lanes{};
    for (; i + W <= n; i += W) lanes += at(i);
    total = lane_sum<T>(lanes);
  }
  for (; i < n; ++i) total += value(i);
  return total;
}

template <typename T>
SMORE_INLINE T largest(const T* x, int64_t n) {
  constexpr int W = kWidth<T>;
  T best = -std::numeric_limits<T>::infinity();
  int64_t i = 0;
  if (n >= 2 * W) {
    Vec<T> lanes = broadcast(best);
    for (; i + W <= n; i += W) lanes = load(x + i) > lanes ? load(x + i) : lanes;
    for (int l = 0; l < W; ++l) best = lanes[l] > best ? T(lanes[l]) : best;
  }
  for (; i < n; ++i) best = x[i] > best ? x[i] : best;
  return best;
}

template <typename T, typename I>
bool edge_softmax_rows_at(const I* rowptr, int64_t n_edges, const T* logits, T* y, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end;) {
    const int64_t first = row, first_edge = rowptr[row];
    for (; row < end && (row == first || static_cast<int64_t>(rowptr[row]) < first_edge + kBlockEdges); ++row) {
      if (!valid_bounds(rowptr, row, n_edges)) return false;
      const int64_t from = rowptr[row], to = rowptr[row + 1];
      const T shift = largest(logits + from, to - from);
      for (int64_t e = from; e < to; ++e) y[e] = logits[e] - shift;
    }
    exponentials(y + first_edge, static_cast<int64_t>(rowptr[row]) - first_edge);
    for (int64_t r = first; r < row; ++r) {
      T* const of_row = y + rowptr[r];
      const int64_t n = rowptr[r + 1] - rowptr[r];
      const T total = sum<T>(n, [&](int64_t i) { return load(of_row + i); }, [&](int64_t i) { return of_row[i]; });
      for (int64_t i = 0; i < n; ++i) of_row[i] /= total;
    }
  }
  return true;
}

template <typename T, typename I>
bool edge_softmax_backward_rows_at(const I* rowptr, int64_t n_edges, const T* y, const T* grad, T* grad_logits,
                                   int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    if (!valid_bounds(rowptr, row, n_edges)) return false;
    const int64_t first = rowptr[row], n = rowptr[row + 1] - rowptr[row];
    const T* const p = y + first;
    const T* const g = grad + first;
    const T mean =
        sum<T>(n, [&](int64_t i) { return load(p + i) * load(g + i); }, [&](int64_t i) { return p[i] * g[i]; });
    for (int64_t i = 0; i < n; ++i) grad_logits[first + i] = p[i] * (g[i] - mean);
  }
  return true;
}

}  // namespace smore::SMORE_LEVEL
