// The best k of a stream of scores. Plain scalar code for every processor: a sort that calls back into code of a higher
// instruction level could not be inlined.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>

#include "common/score_bits.h"

namespace smore {

// Score and index as one whole number that sorts like (score, then smaller index): the list is reordered by plain
// integer comparisons.
__extension__ typedef unsigned __int128 Unsigned128;

template <typename T>
struct TopkKey;

template <>
struct TopkKey<float> {
  typedef uint64_t type;
  typedef ScoreBits<float>::type Bits;
  static constexpr int kIndexBits = 32;
};

template <>
struct TopkKey<double> {
  typedef Unsigned128 type;
  typedef ScoreBits<double>::type Bits;
  static constexpr int kIndexBits = 64;
};

template <typename T>
inline typename TopkKey<T>::type topk_key(T score, int64_t index) {
  typedef typename TopkKey<T>::Bits Bits;
  const Bits rest = static_cast<Bits>(~static_cast<Bits>(index));
  return static_cast<typename TopkKey<T>::type>(score_bits(score)) << TopkKey<T>::kIndexBits | rest;
}

template <typename T>
inline T topk_score(typename TopkKey<T>::type key) {
  return score_from_bits<T>(static_cast<typename TopkKey<T>::Bits>(key >> TopkKey<T>::kIndexBits));
}

template <typename T>
inline int64_t topk_index(typename TopkKey<T>::type key) {
  typedef typename TopkKey<T>::Bits Bits;
  return static_cast<int64_t>(static_cast<Bits>(~static_cast<Bits>(key)));
}

inline constexpr int64_t kTopkRoom = 3;

// The best k of a stream of scores whose indices ascend. Room for kTopkRoom k: when they are full, the better half
// stays and its worst score becomes the bar that later scores must exceed (an equal one has a larger index).
template <typename T, typename I>
struct TopkList {
  typedef typename TopkKey<T>::type Key;
  Key* keys;
  int64_t count;
  const I* seen;  // the next seen item that has not been passed
  const I* seen_end;

  void push(T score, int64_t index, int64_t k, T& bar) {
    keys[count++] = topk_key(score, index);
    if (count < kTopkRoom * k) return;
    std::nth_element(keys, keys + k - 1, keys + count, std::greater<Key>());
    count = k;
    bar = topk_score<T>(keys[k - 1]);
  }

  // Bit i: item first + i is seen. `first` ascends from call to call.
  uint64_t seen_bits(int64_t first, int64_t columns) {
    while (seen != seen_end && static_cast<int64_t>(*seen) < first) ++seen;
    uint64_t bits = 0;
    for (const I* s = seen; s != seen_end && static_cast<int64_t>(*s) < first + columns; ++s) {
      bits |= uint64_t{1} << (static_cast<int64_t>(*s) - first);
    }
    return bits;
  }

  void finish(int64_t k, T* score, int64_t* index) {
    const int64_t kept = std::min(count, k);
    if (count > kept) std::nth_element(keys, keys + kept - 1, keys + count, std::greater<Key>());
    std::sort(keys, keys + kept, std::greater<Key>());
    for (int64_t j = 0; j < k; ++j) {
      score[j] = j < kept ? topk_score<T>(keys[j]) : -std::numeric_limits<T>::infinity();
      index[j] = j < kept ? topk_index<T>(keys[j]) : -1;
    }
  }
};

}  // namespace smore
