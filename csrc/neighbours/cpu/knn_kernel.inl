namespace smore::SMORE_LEVEL {

// Dot products in double of one row with J others: eight partial sums each (element j goes to sum j mod 8) and one
// fixed tree. Products of floats are exact in double, so every instruction level gives the same bits. Several rows at
// once, since each comes from far away in memory.
template <typename T, int J>
void dot_double(const T* a, const T* const (&b)[J], int64_t d, double (&out)[J]) {
  typedef double Sums __attribute__((vector_size(64)));
  typedef T Eight __attribute__((vector_size(8 * sizeof(T)), aligned(alignof(T)), may_alias));
  Sums sum[J] = {};
  const int64_t whole = d / 8 * 8;
  for (int64_t j = 0; j < whole; j += 8) {
    const Sums x = __builtin_convertvector(*reinterpret_cast<const Eight*>(a + j), Sums);
#pragma GCC unroll 8
    for (int i = 0; i < J; ++i) sum[i] += x * __builtin_convertvector(*reinterpret_cast<const Eight*>(b[i] + j), Sums);
  }
  for (int i = 0; i < J; ++i) {
    double s[8];
    std::memcpy(s, &sum[i], sizeof s);
    for (int64_t j = whole; j < d; ++j) s[j % 8] += static_cast<double>(a[j]) * static_cast<double>(b[i][j]);
    out[i] = ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
  }
}

template <typename T>
void knn_squares_at(const T* x, int64_t d, double* square, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const T* const row[1] = {x + i * d};
    double out[1];
    dot_double(row[0], row, d, out);
    square[i] = out[0];
  }
}

template <typename T>
void knn_unit_rows_at(const T* x, int64_t d, const double* square, T* unit, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const double inverse = square[i] > 0 ? 1.0 / std::sqrt(square[i]) : 0.0;
    for (int64_t j = 0; j < d; ++j)
      unit[(i - begin) * d + j] = static_cast<T>(static_cast<double>(x[i * d + j]) * inverse);
  }
}

// Makes room in a full list: keeps what lies within the margin of the k-th best, and raises the bar to that.
template <typename T>
void shrink(KnnCandidates<T>& lists, int64_t row, T* spare) {
  T* score = lists.score + row * lists.capacity;
  int32_t* index = lists.index + row * lists.capacity;
  const int32_t count = lists.count[row];
  std::copy(score, score + count, spare);
  std::nth_element(spare, spare + lists.k - 1, spare + count, std::greater<T>());
  const T bar = spare[lists.k - 1] - lists.margin;
  int32_t kept = 0;
  for (int32_t i = 0; i < count; ++i) {
    if (score[i] < bar) continue;
    score[kept] = score[i];
    index[kept++] = index[i];
  }
  lists.bar[row] = bar;
  lists.count[row] = kept;
  if (kept == lists.capacity) {
    lists.count[row] = -1;
    lists.bar[row] = std::numeric_limits<T>::infinity();
  }
}

template <typename T>
SMORE_INLINE void offer(KnnCandidates<T>& lists, int64_t row, int64_t other, T score, T* spare) {
  if (score < lists.bar[row]) return;
  const int32_t count = lists.count[row];
  lists.score[row * lists.capacity + count] = score;
  lists.index[row * lists.capacity + count] = static_cast<int32_t>(other);
  lists.count[row] = count + 1;
  if (count + 1 == lists.capacity) shrink(lists, row, spare);
}

// Bit i: lane i of `bar` is not above lane i of `score`.
template <typename T>
SMORE_INLINE uint32_t reaches(Vec<T> score, Vec<T> bar) {
  constexpr uint32_t all = static_cast<uint32_t>((uint64_t{1} << kWidth<T>)-1);
  return ~greater_bits(bar, score) & all;
}

template <typename T>
void knn_offer_rows_at(KnnCandidates<T>& lists, const T* block, int64_t stride, int64_t first_row, int64_t first_column,
                       int64_t columns, int64_t begin, int64_t end) {
  constexpr int W = kWidth<T>;
  const AlignedBuffer<T> spare(lists.capacity);
  for (int64_t r = begin; r < end; ++r) {
    const int64_t row = first_row + r;
    const T* scores = block + r * stride;
    int64_t c = 0;
    for (; c + W <= columns; c += W) {
      for (uint32_t hit = reaches<T>(load(scores + c), broadcast(lists.bar[row])); hit != 0; hit &= hit - 1) {
        const int64_t at = c + __builtin_ctz(hit);
        offer(lists, row, first_column + at, scores[at], spare.get());
      }
    }
    for (; c < columns; ++c) offer(lists, row, first_column + c, scores[c], spare.get());
  }
}

template <typename T>
void knn_offer_columns_at(KnnCandidates<T>& lists, const T* block, int64_t stride, int64_t first_row,
                          int64_t first_column, int64_t rows, int64_t begin, int64_t end) {
  constexpr int W = kWidth<T>;
  const AlignedBuffer<T> spare(lists.capacity);
  for (int64_t r = 0; r < rows; ++r) {
    const T* scores = block + r * stride;
    int64_t c = begin;
    for (; c + W <= end; c += W) {
      for (uint32_t hit = reaches<T>(load(scores + c), load(lists.bar + first_column + c)); hit != 0; hit &= hit - 1) {
        const int64_t at = c + __builtin_ctz(hit);
        offer(lists, first_column + at, first_row + r, scores[at], spare.get());
      }
    }
    for (; c < end; ++c) offer(lists, first_column + c, first_row + r, scores[c], spare.get());
  }
}

// The similarities of row i and found[0..count), whose indices are given.
template <typename T>
void measure(const T* x, int64_t d, const double* square, int64_t i, Neighbour<T>* found, int64_t count) {
  constexpr int J = 4;
  for (int64_t c = 0; c < count; c += J) {
    const T* rows[J];
    for (int l = 0; l < J; ++l) rows[l] = x + found[std::min(c + l, count - 1)].index * d;
    double dots[J];
    dot_double<T, J>(x + i * d, rows, d, dots);
    for (int64_t l = 0; l < std::min<int64_t>(J, count - c); ++l) {
      const int64_t j = found[c + l].index;
      found[c + l].similarity = knn_cosine<T>(dots[l], square[i], square[j], i == j);
    }
  }
}

template <typename T>
void knn_finish_at(const KnnCandidates<T>& lists, const T* x, int64_t d, const double* square, T* similarity,
                   int64_t* index, int64_t begin, int64_t end) {
  const int64_t k = lists.k;
  const AlignedBuffer<T> spare(lists.capacity);
  const AlignedBuffer<Neighbour<T>> found(std::max(lists.capacity, 2 * k));
  for (int64_t i = begin; i < end; ++i) {
    int64_t count = 0;
    Neighbour<T>* best = found.get();
    if (lists.count[i] >= 0) {
      const T* score = lists.score + i * lists.capacity;
      std::copy(score, score + lists.count[i], spare.get());
      std::nth_element(spare.get(), spare.get() + k - 1, spare.get() + lists.count[i], std::greater<T>());
      const T bar = spare.get()[k - 1] - lists.margin;
      for (int32_t c = 0; c < lists.count[i]; ++c) {
        if (score[c] >= bar) best[count++] = {T(0), lists.index[i * lists.capacity + c]};
      }
      measure(x, d, square, i, best, count);
    } else {
      for (int64_t j = 0; j < lists.n;) {
        const int64_t known = count;
        while (j < lists.n && count < 2 * k) best[count++] = {T(0), j++};
        measure(x, d, square, i, best + known, count - known);
        if (count < 2 * k) break;
        std::nth_element(best, best + k - 1, best + count, Nearer<T>());
        count = k;
      }
    }
    std::partial_sort(best, best + k, best + count, Nearer<T>());
    for (int64_t j = 0; j < k; ++j) {
      similarity[i * k + j] = best[j].similarity;
      index[i * k + j] = best[j].index;
    }
  }
}

}  // namespace smore::SMORE_LEVEL
