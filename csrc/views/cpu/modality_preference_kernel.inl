#include "cpu/exponential.inl"
#include "cpu/philox_block.inl"

namespace smore::SMORE_LEVEL {

// The register of a row of d elements from place i on, with `filler` behind the row's end.
template <typename T>
SMORE_INLINE Vec<T> load_row(const T* row, int64_t i, int64_t d, T filler) {
  if (i + kWidth<T> <= d) return load(row + i);
  T rest[kWidth<T>];
  for (int64_t l = 0; l < kWidth<T>; ++l) rest[l] = i + l < d ? row[i + l] : filler;
  return load(rest);
}

template <typename T>
SMORE_INLINE void store_row(T* row, int64_t i, int64_t d, Vec<T> v) {
  if (i + kWidth<T> <= d) return store(row + i, v);
  T rest[kWidth<T>];
  store(rest, v);
  for (int64_t l = 0; i + l < d; ++l) row[i + l] = rest[l];
}

template <typename T>
SMORE_INLINE Vec<T> sigmoid(Vec<T> x) {
  const Vec<T> e = exponential_or_zero<T>(x < -x ? x : -x);  // of -|x|: it never overflows
  const Vec<T> one = broadcast(T(1)), inverse = one / (one + e);
  return x < Vec<T>{} ? e * inverse : inverse;
}

// What dropout makes of the gates of row r: zero or the scale, [(M + 1) d].
template <typename T>
SMORE_INLINE void fill_factors(const Preference<T>& job, int64_t r, T* factor) {
  const DropoutRule<T>& rule = job.dropout;
  const uint64_t offset = rule.offset_now();
  const uint32_t threshold = rule.threshold;  // copies, which nothing that is written can be: loops become vectors
  const T scale = rule.scale;
  const int64_t first = r * job.width(), last = first + job.width();
  for (int64_t at = first / kDropoutGroup * kDropoutGroup; at < last; at += kDropoutGroup) {
    const uint64_t counter = static_cast<uint64_t>(at / kDropoutGroup * kDropoutLanes) | kDropoutCounters;
    uint32_t low[kPhiloxBlock];
    for (int l = 0; l < kPhiloxBlock; ++l) low[l] = static_cast<uint32_t>(counter) + static_cast<uint32_t>(l);
    PhiloxBlock words;
    philox_block_at(rule.seed, low, static_cast<uint32_t>(counter >> 32), offset, words);
    T part[kDropoutGroup];  // of a group that begins before the row, or ends behind it
    const bool whole = at >= first && at + kDropoutGroup <= last;
    T* const made = whole ? factor + (at - first) : part;
    for (int w = 0; w < 4; ++w) {
      for (int l = 0; l < kPhiloxBlock; ++l) {
        made[w * kPhiloxBlock + l] = words.out[w][l] < threshold ? T(0) : scale;
      }
    }
    for (int64_t e = std::max(first, at); !whole && e < std::min(last, at + kDropoutGroup); ++e) {
      factor[e - first] = part[e - at];
    }
  }
}

// e^(a - largest) of a row to `e`, padded to whole registers with zeros; returns 1 / their sum.
template <typename T>
SMORE_INLINE T softmax_parts(const T* a, int64_t d, T* e) {
  constexpr int64_t W = kWidth<T>;
  constexpr T least = -std::numeric_limits<T>::infinity();
  Vec<T> tops = broadcast(least), sums{};
  for (int64_t i = 0; i < d; i += W) {
    const Vec<T> x = load_row(a, i, d, least);
    tops = x > tops ? x : tops;
  }
  T top = least;
  for (int l = 0; l < W; ++l) top = tops[l] > top ? T(tops[l]) : top;
  for (int64_t i = 0; i < d; i += W) {
    const Vec<T> x = exponential_or_zero<T>(load_row(a, i, d, least) - broadcast(top));
    store(e + i, x);
    sums += x;
  }
  return T(1) / lane_sum<T>(sums);
}

// Scratch of a row: factors [(M + 1) d], and two rows padded to whole registers.
template <typename T>
void preference_at(const PreferenceForward<T>& job, T* factors, T* e, T* sum, Range rows) {
  constexpr int64_t W = kWidth<T>;
  const Preference<T>& of = job.of;
  const int64_t d = of.d, M = of.modalities;
  const bool drops = of.dropout.threshold > 0;
  for (int64_t r = rows.begin; r < rows.end; ++r) {
    const T *g = of.gates + r * of.width(), *v = of.views + r * of.width();
    if (drops) fill_factors(of, r, factors);
    const auto gate = [&](int64_t m, int64_t i) {
      const Vec<T> s = sigmoid<T>(load_row(g + m * d, i, d, T(0)));
      if (!drops) return s;
      const Vec<T> factor = load_row<T>(factors + m * d, i, d, T(0));
      return factor > Vec<T>{} ? s * factor : Vec<T>{};  // a dropped gate is 0, be it NaN
    };
    for (int64_t i = 0; i < d; i += W) store(sum + i, gate(M, i) * load_row(v + M * d, i, d, T(0)));
    for (int64_t m = 0; m < M; ++m) {
      const Vec<T> inverse = broadcast(softmax_parts(of.attention + (m * of.n + r) * d, d, e));
      for (int64_t i = 0; i < d; i += W) {
        const Vec<T> weight = gate(m, i) * (load(e + i) * inverse);
        store(sum + i, load(sum + i) + weight * load_row(v + m * d, i, d, T(0)));
      }
    }
    for (int64_t i = 0; i < d; i += W) store_row(job.side + r * d, i, d, load(sum + i) * broadcast(of.share()));
  }
}

template <typename T>
void preference_backward_at(const PreferenceBackward<T>& job, T* factors, T* e, T* along, Range rows) {
  constexpr int64_t W = kWidth<T>;
  const Preference<T>& of = job.of;
  const int64_t d = of.d, M = of.modalities;
  const bool drops = of.dropout.threshold > 0;
  const Vec<T> one = broadcast(T(1)), share = broadcast(of.share());
  for (int64_t r = rows.begin; r < rows.end; ++r) {
    const int64_t row = r * of.width();
    if (drops) fill_factors(of, r, factors);
    // G: the gradient of side, by the share and what dropout makes of gate m.
    const auto incoming = [&](int64_t m, int64_t i) {
      const Vec<T> G = load_row(job.grad + r * d, i, d, T(0)) * share;
      return drops ? G * load_row<T>(factors + m * d, i, d, T(0)) : G;
    };
    const auto gate = [&](int64_t m, int64_t i) {
      const Vec<T> s = sigmoid<T>(load_row(of.gates + row + m * d, i, d, T(0)));
      if (!drops) return s;
      return load_row<T>(factors + m * d, i, d, T(0)) > Vec<T>{} ? s : Vec<T>{};
    };
    const auto view = [&](int64_t m, int64_t i) { return load_row(of.views + row + m * d, i, d, T(0)); };
    for (int64_t i = 0; i < d; i += W) {
      const Vec<T> G = incoming(M, i), s = gate(M, i);
      store_row(job.grad_gates + row + M * d, i, d, G * view(M, i) * (s * (one - s)));
      store_row(job.grad_views + row + M * d, i, d, G * s);
    }
    for (int64_t m = 0; m < M; ++m) {
      const int64_t place = (m * of.n + r) * d;
      const Vec<T> inverse = broadcast(softmax_parts(of.attention + place, d, e));
      Vec<T> sums{};
      for (int64_t i = 0; i < d; i += W) {
        const Vec<T> G = incoming(m, i), s = gate(m, i), p = load(e + i) * inverse, v = view(m, i);
        const Vec<T> t = G * s * v;  // gradient of the attention's weights
        store(along + i, t);
        sums += p * t;
        store_row(job.grad_gates + row + m * d, i, d, G * p * v * (s * (one - s)));
        store_row(job.grad_views + row + m * d, i, d, G * s * p);
      }
      const Vec<T> mean = broadcast(lane_sum<T>(sums));
      for (int64_t i = 0; i < d; i += W) {
        store_row(job.grad_attention + place, i, d, load(e + i) * inverse * (load(along + i) - mean));
      }
    }
  }
}

}  // namespace smore::SMORE_LEVEL
