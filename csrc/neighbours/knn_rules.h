// What makes a kNN graph the same on every device: which candidates are looked at again, and the similarity that
// decides among them. Host and device.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "common/host_device.h"

namespace smore {

// Candidates that a row's list holds.
inline constexpr int64_t knn_capacity(int64_t k) { return k + (k > 48 ? k / 2 : 24); }

// How far a similarity from the matrix product may lie from the exact one. Rounding errors of a dot product
// of length d grow as sqrt(d) u but for a probability below d exp(-lambda^2 / 2) (Higham, Mary, "A New
// Approach to Probabilistic Rounding Error Analysis", SIAM J. Sci. Comput. 2019); lambda = 10. Both the k-th
// best and the candidate may be off.
template <typename T>
inline T knn_margin(int64_t d) {
  const double unit = 0.5 * static_cast<double>(std::numeric_limits<T>::epsilon());
  return static_cast<T>(2 * 10 * unit * std::sqrt(static_cast<double>(d) + 4));
}

// Cosine of two rows from their dot product and squared norms; `same`: it is one row.
template <typename T>
SMORE_HOST_DEVICE inline T knn_cosine(double dot, double square_a, double square_b, bool same) {
  if (!(square_a > 0) || !(square_b > 0)) return T(0);
  if (same) return T(1);
  // sqrt(s * s) is s, so equal rows have a cosine of exactly 1; apart where the product leaves the range of double.
  const double product = square_a * square_b;
  const bool in_range = product > 1e-280 && product < 1e280;
  const double scale = in_range ? std::sqrt(product) : std::sqrt(square_a) * std::sqrt(square_b);
  const double cosine = dot / scale;
  return static_cast<T>(cosine >= 1.0 ? 1.0 : cosine > -1.0 ? cosine : -1.0);
}

}  // namespace smore
