// What makes a kNN graph the same on every device: which candidates are looked at again, and what becomes of the row
// itself. The similarity that decides among them is in cosine.h. Host and device.
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

// What a row is to the search for its own neighbours.
enum class KnnSelf {
  none,      // nothing: other rows are searched
  first,     // its own nearest: the first among its equals
  left_out,  // not a neighbour
};

// Nearest rows, the row itself included, that its list must find for k neighbours ...
inline constexpr int64_t knn_listed(int64_t k, KnnSelf self) { return self == KnnSelf::left_out ? k + 1 : k; }
// ... and how many of those are not the row itself.
SMORE_HOST_DEVICE inline constexpr int64_t knn_others(int64_t listed, KnnSelf self) {
  return self == KnnSelf::none ? listed : listed - 1;
}

}  // namespace smore
