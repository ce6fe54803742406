// Named pairs of rows, as every device sees them, and what the gradient of a pair's cosine is made of. No torch here.
#pragma once

#include <cstdint>

#include "neighbours/cosine.h"

namespace smore {

// Pair e = i * k + p is of row i of features and row index[e] of base.
template <typename T>
struct CosinePairs {
  const T* features;          // [n, d]
  const double* square;       // [n], squared norms
  const T* base;              // [m, d]; the features themselves if `self`
  const double* base_square;  // [m]
  const int64_t* index;       // [n, k], checked by the caller
  int64_t n, m, k, d;
  bool self;
};

// Of a pair (a, b) with cosine c and incoming gradient g, the gradient of a is slope * b - share / |a|^2 * a, that of b
// slope * a - share / |b|^2 * b, with slope = g / (|a| |b|) and share = g c.
struct CosineSlope {
  double slope, share;
};

template <typename T>
SMORE_HOST_DEVICE inline CosineSlope cosine_slope(T grad, T cosine, double square_a, double square_b, bool same) {
  if (same || square_a == 0 || square_b == 0) return {0.0, 0.0};
  const double g = static_cast<double>(grad);
  return {g / cosine_scale(square_a, square_b), g * static_cast<double>(cosine)};
}

// What is taken off along the row itself: the sum of its pairs' shares, over its squared norm.
SMORE_HOST_DEVICE inline double cosine_along(double shares, double square) {
  return square == 0 ? 0.0 : shares / square;
}

}  // namespace smore
