#include "cpu/exponential.inl"
#include "cpu/gemm_tile.inl"

// Tiles of scores s_ij = x_i . y_j * inverse that are never kept: sums of their exponentials over a row, and the
// gradients of these on both sides. What InfoNCE and the logarithm of such sums by themselves share.
namespace smore::SMORE_LEVEL {

// Columns whose probabilities are kept at a time: kTileRows x kNceColumns lie in the first-level cache.
inline constexpr int64_t kNceColumns = 256;

template <typename T>
void nce_pack_at(const T* rows, int64_t n, int64_t d, T* panels, int64_t begin, int64_t end) {
  constexpr int64_t C = kTileColumns<T>;
  const int64_t stride = nce_padded(d), padded = nce_padded(n);
  for (int64_t row = begin * kNceBlock; row < std::min(padded, end * kNceBlock); ++row) {
    T* to = panels + row / C * C * d + row % C;
    for (int64_t k = 0; k < d; ++k) to[k * C] = rows[row * stride + k];
  }
}

template <typename T>
T dot(const T* a, const T* b, int64_t d) {
  double sum = 0;
  for (int64_t j = 0; j < d; ++j) sum += static_cast<double>(a[j]) * static_cast<double>(b[j]);
  return static_cast<T>(sum);
}

// Scores of kTileRows rows against one panel.
template <typename T>
SMORE_INLINE void scores(const T* rows, int64_t stride, const T* panel, int64_t d, T inverse,
                         Vec<T> (&s)[kTileRows][kTileVectors]) {
  clear<T>(s);
  gemm_tile<T>(rows, stride, 1, panel, kTileColumns<T>, d, s);
  for (int r = 0; r < kTileRows; ++r) {
    for (int v = 0; v < kTileVectors; ++v) s[r][v] *= broadcast(inverse);
  }
}

// Lane l of register v is a real column.
template <typename T>
SMORE_INLINE typename VecOf<T>::mask inside(int64_t first, int64_t n) {
  typename VecOf<T>::mask index{};
  for (int l = 0; l < kWidth<T>; ++l) index[l] = l;
  const auto limit = static_cast<std::remove_reference_t<decltype(index[0])>>(std::min<int64_t>(n - first, kWidth<T>));
  return index < limit;
}

// log sum_j exp(s_ij) of kTileRows rows over n columns. `shift` is one that is safe: sums of exp(s_ij - shift) neither
// leave the range of T nor vanish in it. If none is known, each row's largest score is found first. If counted, columns
// weigh counts [padded(n)], zeros behind.
template <typename T, bool kCounted = false>
SMORE_INLINE void log_sums(const T* rows, int64_t stride, const T* panels, int64_t n, int64_t d, T inverse,
                           bool shift_known, T (&shift)[kTileRows], T (&log_sum)[kTileRows],
                           const T* counts = nullptr) {
  constexpr int64_t C = kTileColumns<T>;
  constexpr int W = kWidth<T>;
  const int64_t n_panels = (n + C - 1) / C;
  Vec<T> s[kTileRows][kTileVectors];
  if (!shift_known) {
    Vec<T> best[kTileRows];
    for (int r = 0; r < kTileRows; ++r) best[r] = broadcast(-std::numeric_limits<T>::infinity());
    for (int64_t p = 0; p < n_panels; ++p) {
      scores<T>(rows, stride, panels + p * C * d, d, inverse, s);
      for (int v = 0; v < kTileVectors; ++v) {
        const auto real = inside<T>(p * C + v * W, n);
        for (int r = 0; r < kTileRows; ++r) best[r] = (real & (s[r][v] > best[r])) ? s[r][v] : best[r];
      }
    }
    for (int r = 0; r < kTileRows; ++r) {
      shift[r] = best[r][0];
      for (int l = 1; l < W; ++l) shift[r] = std::max<T>(shift[r], best[r][l]);
    }
  }
  Vec<T> sum[kTileRows];
  for (int r = 0; r < kTileRows; ++r) sum[r] = Vec<T>{};
  for (int64_t p = 0; p < n_panels; ++p) {
    scores<T>(rows, stride, panels + p * C * d, d, inverse, s);
    const bool whole = (p + 1) * C <= n;
    for (int v = 0; v < kTileVectors; ++v) {
      for (int r = 0; r < kTileRows; ++r) {
        Vec<T> e = exponential(s[r][v] - broadcast(shift[r]));
        if (!whole) e = inside<T>(p * C + v * W, n) ? e : Vec<T>{};
        if constexpr (kCounted) e *= load(counts + p * C + v * W);
        sum[r] += e;
      }
    }
  }
  for (int r = 0; r < kTileRows; ++r) log_sum[r] = shift[r] + std::log(lane_sum<T>(sum[r]));
  // A score beyond T is infinite, and so is the sum; but not where another score is no number.
  for (int r = 0; r < kTileRows; ++r) {
    if (!std::isinf(shift[r]) || n == 0) continue;
    bool numbers = true;
    for (int64_t p = 0; p < n_panels; ++p) {
      scores<T>(rows, stride, panels + p * C * d, d, inverse, s);
      for (int64_t c = 0; c < std::min(C, n - p * C); ++c) numbers &= !std::isnan(s[r][c / W][c % W]);
    }
    log_sum[r] = numbers ? shift[r] : std::numeric_limits<T>::quiet_NaN();
  }
}

// What the gradients of sums of log sums are made of. A block of probabilities exp(s_ij - log_sum) is computed once and
// serves both sides: "own" rows, whose blocks are shared out, add up their own gradient, and what the others receive is
// summed up stripe by stripe of the own ones.
template <typename T>
struct ScoreGradient {
  const T* own;           // [padded(n_own), padded(d)], for scores
  const T* own_terms;     // likewise: what the others' gradients are sums of
  const T* other_panels;  // for scores
  const T* other_terms;   // [padded(n_other), padded(d)]
  const T* log_sum;       // padded: of the own rows, or of the others
  int64_t n_own, n_other, d;
  T inverse;
  T* partial;                 // [nce_stripes(n_own)][padded(n_other)][padded(d)]
  const T* counts = nullptr;  // [padded(n)], zeros behind: how often own and other rows occur, where it is asked for
};

// Which of the two has the log sums, and whether 1 is subtracted from the probability of a row with its like; all that
// for rows that occur several times.
enum class LogSums { own, own_and_diagonal, own_counted, others };

// Of kTileRows own rows from i0 on and of the others [j0, j0 + columns); zero outside.
template <LogSums kLogSums, typename T>
void probabilities(const ScoreGradient<T>& job, int64_t i0, int64_t j0, int64_t columns, T* probability) {
  constexpr int64_t C = kTileColumns<T>;
  constexpr int W = kWidth<T>;
  const int64_t stride = nce_padded(job.d);
  for (int64_t c = 0; c < columns; c += C) {
    Vec<T> s[kTileRows][kTileVectors];
    scores<T>(job.own + i0 * stride, stride, job.other_panels + (j0 + c) * job.d, job.d, job.inverse, s);
    for (int v = 0; v < kTileVectors; ++v) {
      const int64_t first = j0 + c + v * W;
      const bool whole = first + W <= job.n_other;
      for (int r = 0; r < kTileRows; ++r) {
        const Vec<T> log_sum = kLogSums == LogSums::others ? load(job.log_sum + first) : broadcast(job.log_sum[i0 + r]);
        Vec<T> e = exponential(s[r][v] - log_sum);
        if (!whole) e = inside<T>(first, job.n_other) ? e : Vec<T>{};
        if constexpr (kLogSums == LogSums::own_counted) e *= load(job.counts + first) * broadcast(job.counts[i0 + r]);
        store(probability + r * kNceColumns + c + v * W, e);
      }
    }
  }
  for (int r = 0; r < kTileRows; ++r) {
    if (i0 + r >= job.n_own) {
      std::fill(probability + r * kNceColumns, probability + r * kNceColumns + columns, T(0));
      continue;
    }
    const int64_t like = i0 + r - j0;
    if (like < 0 || like >= columns) continue;
    if (kLogSums == LogSums::own_and_diagonal) probability[r * kNceColumns + like] -= T(1);
    if (kLogSums == LogSums::own_counted) probability[r * kNceColumns + like] -= job.counts[i0 + r];
  }
}

// to[r][0..d) += sum_k a[r * row_step + k * k_step] * b[k][0..d) for kTileRows rows.
template <typename T>
void accumulate(const T* a, int64_t row_step, int64_t k_step, const T* b, int64_t stride, int64_t depth, int64_t d,
                T* to) {
  constexpr int W = kWidth<T>;
  for (int64_t c = 0; c < d; c += kTileColumns<T>) {
    Vec<T> acc[kTileRows][kTileVectors];
    for (int r = 0; r < kTileRows; ++r) {
      for (int v = 0; v < kTileVectors; ++v) acc[r][v] = load(to + r * stride + c + v * W);
    }
    gemm_tile<T>(a, row_step, k_step, b + c, stride, depth, acc);
    for (int r = 0; r < kTileRows; ++r) {
      for (int v = 0; v < kTileVectors; ++v) store(to + r * stride + c + v * W, acc[r][v]);
    }
  }
}

// Stripes [begin, end) of the own rows. finish(i, sum) gets the sum [d] of own row i.
template <LogSums kLogSums, typename T, typename F>
void gradient_stripes(const ScoreGradient<T>& job, int64_t begin, int64_t end, const F& finish) {
  static_assert(kNceBlock % kTileRows == 0 && kNceColumns % kTileRows == 0);
  const int64_t stride = nce_padded(job.d), padded = nce_padded(job.n_other), d = job.d;
  const int64_t blocks = nce_padded(job.n_own) / kNceBlock, stripes = nce_stripes(job.n_own);
  const AlignedBuffer<T> probability(kNceBlock * kNceColumns), gradient(kNceBlock * stride);
  for (int64_t stripe = begin; stripe < end; ++stripe) {
    T* partial = job.partial + stripe * padded * stride;
    std::fill(partial, partial + padded * stride, T(0));
    for (int64_t block = stripe * blocks / stripes; block < (stripe + 1) * blocks / stripes; ++block) {
      const int64_t first = block * kNceBlock;
      std::fill(gradient.get(), gradient.get() + kNceBlock * stride, T(0));
      // All rows of the block meet a group of columns while these lie in the second-level cache.
      for (int64_t j0 = 0; j0 < padded; j0 += kNceColumns) {
        const int64_t columns = std::min(kNceColumns, padded - j0);
        for (int64_t i = 0; i < kNceBlock; i += kTileRows) {
          T* rows = probability.get() + i * kNceColumns;
          probabilities<kLogSums>(job, first + i, j0, columns, rows);
          accumulate(rows, kNceColumns, 1, job.other_terms + j0 * stride, stride, columns, d,
                     gradient.get() + i * stride);
        }
        for (int64_t j = 0; j < columns; j += kTileRows) {
          accumulate(probability.get() + j, 1, kNceColumns, job.own_terms + first * stride, stride, kNceBlock, d,
                     partial + (j0 + j) * stride);
        }
      }
      for (int64_t i = first; i < std::min(job.n_own, first + kNceBlock); ++i) {
        finish(i, gradient.get() + (i - first) * stride);
      }
    }
  }
}

// The sum [d] of what all stripes hold for row i of the others, in their order.
template <typename T>
void add_stripes(const T* partial, int64_t stripes, int64_t n_other, int64_t d, int64_t i, T* sum) {
  const int64_t stride = nce_padded(d), size = nce_padded(n_other) * stride;
  std::fill(sum, sum + d, T(0));
  for (int64_t s = 0; s < stripes; ++s) {
    const T* from = partial + s * size + i * stride;
    for (int64_t j = 0; j < d; ++j) sum[j] += from[j];
  }
}

}  // namespace smore::SMORE_LEVEL
