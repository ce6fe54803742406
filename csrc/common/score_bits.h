// Scores as whole numbers that sort as the scores do. Host and device.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/host_device.h"

namespace smore {

template <typename T>
struct ScoreBits;
template <>
struct ScoreBits<float> {
  typedef uint32_t type;
};
template <>
struct ScoreBits<double> {
  typedef uint64_t type;
};

template <typename T>
SMORE_HOST_DEVICE inline typename ScoreBits<T>::type score_bits(T score) {
  typedef typename ScoreBits<T>::type Bits;
  constexpr Bits sign = Bits{1} << (8 * sizeof(Bits) - 1);
  score += T(0);  // -0 is 0
  Bits bits;
  std::memcpy(&bits, &score, sizeof bits);
  return (bits & sign) != 0 ? static_cast<Bits>(~bits) : static_cast<Bits>(bits | sign);
}

template <typename T>
SMORE_HOST_DEVICE inline T score_from_bits(typename ScoreBits<T>::type bits) {
  typedef typename ScoreBits<T>::type Bits;
  constexpr Bits sign = Bits{1} << (8 * sizeof(Bits) - 1);
  bits = (bits & sign) != 0 ? static_cast<Bits>(bits ^ sign) : static_cast<Bits>(~bits);
  T score;
  std::memcpy(&score, &bits, sizeof score);
  return score;
}

}  // namespace smore
