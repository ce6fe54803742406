// Cosine of two rows as every device computes it. Host and device.
#pragma once

#include <cmath>

#include "common/host_device.h"

namespace smore {

// |a| |b| from the squared norms.
SMORE_HOST_DEVICE inline double cosine_scale(double square_a, double square_b) {
  // sqrt(s * s) is s, so equal rows have a cosine of exactly 1; apart where the product leaves the range of double.
  const double product = square_a * square_b;
  const bool in_range = product > 1e-280 && product < 1e280;
  return in_range ? std::sqrt(product) : std::sqrt(square_a) * std::sqrt(square_b);
}

// Cosine from dot product and squared norms; `same`: it is one row. A zero row has cosine 0 with every row; NaN stays.
template <typename T>
SMORE_HOST_DEVICE inline T cosine(double dot, double square_a, double square_b, bool same) {
  if (square_a == 0 || square_b == 0) return T(0);
  if (same && square_a > 0) return T(1);
  const double value = dot / cosine_scale(square_a, square_b);
  return static_cast<T>(value >= 1.0 ? 1.0 : value <= -1.0 ? -1.0 : value);
}

}  // namespace smore
