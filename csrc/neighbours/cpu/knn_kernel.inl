#include "neighbours/cpu/dot_double.inl"

namespace smore::SMORE_LEVEL {

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

// The similarities of row i and found[0..count), other rows whose indices are given.
template <typename T>
void measure(const KnnTables<T>& tables, int64_t i, Neighbour<T>* found, int64_t count) {
  constexpr int J = 4;
  const int64_t d = tables.d;
  for (int64_t c = 0; c < count; c += J) {
    const T* rows[J];
    for (int l = 0; l < J; ++l) rows[l] = tables.base + found[std::min(c + l, count - 1)].index * d;
    double dots[J];
    dot_double<T, J>(tables.queries + i * d, rows, d, dots);
    for (int64_t l = 0; l < std::min<int64_t>(J, count - c); ++l) {
      const double square = tables.base_square[found[c + l].index];
      found[c + l].similarity = cosine<T>(dots[l], tables.query_square[i], square, false);
    }
  }
}

template <typename T>
void knn_finish_at(const KnnCandidates<T>& lists, const KnnTables<T>& tables, T* similarity, int64_t* index,
                   int64_t begin, int64_t end) {
  const int64_t k = lists.k, others = knn_others(k, tables.self), first = tables.self == KnnSelf::first ? 1 : 0;
  const AlignedBuffer<T> spare(lists.capacity);
  const AlignedBuffer<Neighbour<T>> found(std::max(lists.capacity, 2 * k));
  for (int64_t i = begin; i < end; ++i) {
    const int64_t itself = tables.self == KnnSelf::none ? -1 : i;
    int64_t count = 0;
    Neighbour<T>* best = found.get();
    if (lists.count[i] >= 0) {
      const T* score = lists.score + i * lists.capacity;
      std::copy(score, score + lists.count[i], spare.get());
      std::nth_element(spare.get(), spare.get() + k - 1, spare.get() + lists.count[i], std::greater<T>());
      const T bar = spare.get()[k - 1] - lists.margin;
      for (int32_t c = 0; c < lists.count[i]; ++c) {
        const int64_t j = lists.index[i * lists.capacity + c];
        if (score[c] >= bar && j != itself) best[count++] = {T(0), j};
      }
      measure(tables, i, best, count);
    } else if (others > 0) {
      for (int64_t j = 0; j < tables.n;) {
        const int64_t known = count;
        for (; j < tables.n && count < 2 * k; ++j) {
          if (j != itself) best[count++] = {T(0), j};
        }
        measure(tables, i, best + known, count - known);
        if (count < 2 * k) break;
        std::nth_element(best, best + others - 1, best + count, Nearer<T>());
        count = others;
      }
    }
    std::partial_sort(best, best + others, best + count, Nearer<T>());
    T* to = similarity + i * (first + others);
    int64_t* to_index = index + i * (first + others);
    if (first == 1) {
      to[0] = tables.query_square[i] > 0 ? T(1) : T(0);
      to_index[0] = i;
    }
    for (int64_t j = 0; j < others; ++j) {
      to[first + j] = best[j].similarity;
      to_index[first + j] = best[j].index;
    }
  }
}

}  // namespace smore::SMORE_LEVEL
